"""Checkpoints, GLUE, SQuAD, your own table, a Trainer: the only place that imports transformers and datasets, when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Imported here, not in __getattr__: a submodule of the same name would otherwise take the function's place.
from trainflat.hf.glue import glue
from trainflat.hf.models import load
from trainflat.hf.squad import squad
from trainflat.hf.text import text

if TYPE_CHECKING:
    from trainflat.hf.trainer import FlatTrainer

__all__ = ["FlatTrainer", "glue", "load", "squad", "text"]


def __getattr__(name: str) -> Any:
    if name == "FlatTrainer":
        from trainflat.hf.trainer import FlatTrainer

        return FlatTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
