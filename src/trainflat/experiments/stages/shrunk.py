"""What the stages that make a model smaller have in common: how it is kept, and what a row says of its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainflat import train
from trainflat.compress import Structure
from trainflat.compress.sizes import sparsity
from trainflat.experiments.work import Work

__all__ = ["RAW", "leave", "sizes"]

RAW = ", raw"
"""The end of a variant's name before its final fine-tuning."""


def leave(work: Work, model: nn.Module) -> dict[str, Any]:
    """Write a model, with its shape if it was shrunk; what a row says of that."""
    shape = getattr(model, "trainflat_shape", None)
    small = {"small": shape.as_dict()} if shape else {}
    train.save_weights(work.folder / "model.safetensors", model, **small)
    return {"shape": shape.as_dict(), "parameters": _count(model)} if shape else {}


def sizes(structure: Structure, z: Mapping[str, Tensor], model: nn.Module, small: nn.Module) -> dict[str, float]:
    """How sparse a shrunk model is: in its layers as it is and as CoFi's constraint counts, and of all parameters."""
    living = {family: (gate > 0).double() for family, gate in z.items()}
    return {
        "sparsity_layers": float(sparsity(structure, living)),
        "sparsity_cofi": float(sparsity(structure, living, "cofi")),
        "sparsity_total": 1 - _count(small) / _count(model),
    }


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
