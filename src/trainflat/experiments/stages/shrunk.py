"""What the stages that make a model smaller have in common: how it is kept, and what a row says of its size."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainflat import train
from trainflat.compress import Structure, shape_of
from trainflat.compress.sizes import shrunk
from trainflat.experiments.work import Work

__all__ = ["RAW", "leave", "sizes"]

RAW = ", raw"
"""The end of a variant's name before its final fine-tuning."""


def leave(work: Work, model: nn.Module) -> dict[str, Any]:
    """Write a model, with its shape if it was shrunk; what a row says of that."""
    shape = getattr(model, "trainflat_shape", None)
    small = {"small": shape.as_dict()} if shape else {}
    train.save_weights(work.folder / "model.safetensors", model, **small)
    return {"shape": shape.as_dict(), "parameters": sum(p.numel() for p in model.parameters())} if shape else {}


def sizes(structure: Structure, model: nn.Module, small: nn.Module) -> dict[str, float]:
    """How sparse a shrunk model is: in its layers as it is and as CoFi's constraint counts, and of all parameters."""
    found = shrunk(model, structure, shape_of(small))
    names = {"sparsity_layers": "layers", "sparsity_cofi": "cofi_constraint", "sparsity_total": "total"}
    return {name: found[one] for name, one in names.items()}
