"""How much of an encoder lives, counted exactly and as the reference implementation of CoFi counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from trainflat.compress.units import Structure

__all__ = ["Counting", "full_size", "size", "sparsity"]

Counting = Literal["exact", "cofi"]


def size(structure: Structure, p: Mapping[str, Tensor], counting: Counting = "exact") -> Tensor:
    """Parameters of the encoder's layers that live on average if gates are open with probabilities ``p``, independently.

    ``"exact"``: every parameter of the layers as the shrunk model has it, biases and LayerNorms included. With the number of
    living dimensions H, of living units U, their pairs, and the probability A that the sub-layer lives at all::

        sum over sub-layers: per_pair * E[U] E[H] + per_unit * E[U] + per_dimension * A * E[H]

    ``"cofi"``: as the reference implementation (Xia et al. 2022, arXiv:2204.00408; l0_module.py), for comparison: the
    biases of attention spread over its heads, none in the FFN, no LayerNorm, while `full_size` has all biases. All gates
    open, BERT-base counts as 84,971,520 of 85,017,600: 0.05 % sparse.

    Args:
        p: Probabilities, or 0 and 1 for a particular model (the size is then its size), for all families.

    Raises:
        ValueError: If the counting has another name.
    """
    hidden = p["hidden"].sum()
    heads = (p["attention"][:, None] * p["head"]).sum()
    neurons = (p["ffn"][:, None] * p["intermediate"]).sum()
    attention, ffn = structure.attention[0], structure.ffn[0]
    if counting == "cofi":
        per_head = (4 * structure.hidden**2 + 4 * structure.hidden) // attention.units
        return hidden * heads * per_head / structure.hidden + hidden * neurons * 2
    if counting != "exact":
        raise ValueError(f"counting must be 'exact' or 'cofi', got {counting!r}")
    attentions = (p["attention"] * (1 - (1 - p["head"]).prod(-1))).sum()
    ffns = (p["ffn"] * (1 - (1 - p["intermediate"]).prod(-1))).sum()
    return (
        (attention.per_pair * heads + ffn.per_pair * neurons) * hidden
        + (attention.per_unit * heads + ffn.per_unit * neurons)
        + (attention.per_dimension * attentions + ffn.per_dimension * ffns) * hidden
    )


def full_size(structure: Structure, counting: Counting = "exact") -> int:
    """The size of the whole: what sparsity is a share of."""
    if counting == "exact":
        whole = {family: torch.ones(shape, dtype=torch.float64) for family, shape in structure.shapes.items()}
        return int(size(structure, whole))
    hidden, ffn = structure.hidden, structure.ffn[0].units
    attention = 4 * hidden**2 + 4 * hidden
    return len(structure.layers) * (attention + 2 * hidden * ffn + hidden + ffn)


def sparsity(structure: Structure, p: Mapping[str, Tensor], counting: Counting = "exact") -> Tensor:
    """The share that is pruned on average: 1 - size / full_size.

    Example:
        >>> from trainflat.compress.dialects import structure
        >>> from trainflat.tasks import zoo
        >>> found = structure(zoo.vit_small())
        >>> half = {**found.open(), "attention": torch.tensor([1.0, 0.0])}       # one of two attentions, of four and FFNs
        >>> round(float(sparsity(found, half)), 3)
        0.25
    """
    return 1 - size(structure, p, counting) / full_size(structure, counting)
