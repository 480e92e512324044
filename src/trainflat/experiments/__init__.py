"""A recipe becomes a plan of stages, each of which runs once and is found again by what decides its result."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["plan", "progress", "provenance", "recipe", "resolve", "runner", "stages", "store", "work"]


def __getattr__(name: str) -> ModuleType:
    """Its modules, imported when first asked for: not all of them need torch."""
    if name in __all__:
        return importlib.import_module(f"trainflat.experiments.{name}")
    raise AttributeError(f"module 'trainflat.experiments' has no attribute {name!r}; it has {', '.join(__all__)}")
