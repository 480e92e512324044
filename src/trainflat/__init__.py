"""trainflat: train into a flat minimum, then compress, and show honestly what was gained."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["compress", "compress_text", "deploy", "experiments", "flat", "hf", "reports", "tasks", "testing", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The sub-packages, imported when first asked for: ``import trainflat`` alone loads neither torch nor transformers."""
    if name == "compress_text":
        return importlib.import_module("trainflat.deploy").compress_text
    if name in __all__:
        return importlib.import_module(f"trainflat.{name}")
    raise AttributeError(f"module 'trainflat' has no attribute {name!r}; it has {', '.join(__all__)}")
