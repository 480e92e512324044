"""How much of an encoder lives, counted exactly and as the reference implementation of CoFi counts it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from trainflat.compress.shrink import Shape, carve
from trainflat.compress.units import Structure

__all__ = ["Counting", "full_size", "gates_of", "shrunk", "size", "sparsity"]

Counting = Literal["exact", "cofi"]
UNREPORTED = ("embedding", "layer_transformation", "classifier", "pooler")  # calculate_parameters in its utils/utils.py


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


def shrunk(model: nn.Module, structure: Structure, shape: Shape) -> dict[str, float]:
    """What share of a model is gone once it has this shape, said in the four ways that are in use; nothing is really cut.

    ``layers``: of all parameters in the encoder's layers, biases and norms included: what is really gone, and what a target
    in the ``"exact"`` counting is about. ``total``: of all parameters, embeddings and head included: the file on disk. Both
    count tensors, of this model and of its skeleton cut to the shape.

    CoFi's code (Xia et al. 2022, arXiv:2204.00408) has two more, which differ. ``cofi_constraint`` is what its Lagrangian
    holds at the target (`sparsity` in the counting ``"cofi"``), without norms. ``cofi_reported`` is what its evaluation.py
    prints beside the accuracy: parameters whose names have none of "embedding", "layer_transformation", "classifier" and
    "pooler". For a BERT classifier these are the layers, so it equals ``layers``; elsewhere what is left of the head counts.

    Args:
        model: The whole one, or any of its architecture; only shapes are read, so the meta device will do.
        structure: Of the model.
        shape: What is left, `trainflat.compress.shape_of` a shrunk one.

    Raises:
        ValueError: If the shape does not fit into the structure.

    Example:
        >>> from trainflat.compress.dialects import structure
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small()
        >>> found = shrunk(model, structure(model), Shape(hidden=64, heads=(4, 4), neurons=(128, 0)))
        >>> {name: round(share, 4) for name, share in found.items()}  # an FFN: 16,704 of the layers' 66,944, of all 73,226
        {'layers': 0.2495, 'total': 0.2281, 'cofi_constraint': 0.2524, 'cofi_reported': 0.249}
    """
    whole, small = _counts(model), _counts(carve(_skeleton(model), structure, shape))
    inside = tuple(f"{layer}." for layer in structure.layers)

    def gone(counted: Callable[[str], bool]) -> float:
        before, after = (sum(n for name, n in counts.items() if counted(name)) for counts in (whole, small))
        return 1 - after / before

    return {
        "layers": gone(lambda name: name.startswith(inside)),
        "total": gone(lambda name: True),
        "cofi_constraint": float(sparsity(structure, gates_of(structure, shape), "cofi")),
        "cofi_reported": gone(lambda name: not any(word in name for word in UNREPORTED)),
    }


def gates_of(structure: Structure, shape: Shape) -> dict[str, Tensor]:
    """Gates, 0 or 1, that leave this shape: the first of the heads, neurons and dimensions; in float64, for exact counts.

    Example:
        >>> from trainflat.compress.dialects import structure
        >>> from trainflat.tasks import zoo
        >>> parts = structure(zoo.vit_small())
        >>> int(size(parts, gates_of(parts, Shape(hidden=32, heads=(1, 0), neurons=(0, 3)))))  # 2,192 and 291
        2483
    """
    counts = {"head": shape.heads, "intermediate": shape.neurons, "hidden": shape.hidden}
    gates = {family: torch.ones(whole, dtype=torch.float64) for family, whole in structure.shapes.items()}
    for family, kept in counts.items():
        gate = gates[family]
        gate.copy_(torch.arange(gate.shape[-1]) < torch.tensor(kept).unsqueeze(-1))
    return gates


def _counts(model: nn.Module) -> dict[str, int]:
    """Parameters by name; a tied one once."""
    return {name: p.numel() for name, p in model.named_parameters()}


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy without numbers: every tensor on the meta device."""
    bare = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    bare |= {id(b): b.detach().to("meta") for b in model.buffers()}
    return copy.deepcopy(model, bare)
