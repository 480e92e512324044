"""trainflat: train into a flat minimum, then compress, and show honestly what was gained."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainflat import compress, deploy, experiments, export, flat, hf, int8, reports, tasks, testing, train, types
    from trainflat.deploy import compress_text

__all__ = [
    "compress",
    "compress_text",
    "deploy",
    "experiments",
    "export",
    "flat",
    "hf",
    "int8",
    "reports",
    "tasks",
    "testing",
    "train",
    "types",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The sub-packages, imported when first asked for: ``import trainflat`` alone loads neither torch nor transformers."""
    if name == "compress_text":
        return importlib.import_module("trainflat.deploy").compress_text
    if name in __all__:
        return importlib.import_module(f"trainflat.{name}")
    raise AttributeError(f"module 'trainflat' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
