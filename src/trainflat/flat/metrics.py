"""In which metric the direction of an ascent has length 1: a ball, one that scales with the weights, or one for each neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.flat.choices import check

__all__ = ["Metric", "Tensors", "adaptive", "l2", "norm", "per_neuron"]

Tensors = list[Tensor]
Metric = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Float[Tensor, ""]]]
"""``(weights, vectors, room) -> (ascent, length)``. The ascent, divided by its length and times the radius, is what the weights
are moved by. ``room`` has a tensor for each, to be overwritten if need be; the vectors themselves stay as they are."""

_PIECE = 1 << 16  # numbers at a time: what is between two operations then stays in a core's cache


def norm(tensors: Tensors) -> Float[Tensor, ""]:
    """The L2 norm over all tensors together, in float32 or wider."""
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=wide)))


def l2(weights: Tensors, vectors: Tensors, room: Tensors) -> tuple[Tensors, Float[Tensor, ""]]:
    """A ball: the vectors as they are, and |v| over all of them together."""
    _check_dense(vectors)
    return vectors, norm(vectors)


def adaptive(eta: float) -> Metric:
    """A ball that scales with each weight, T = |w| + eta: ascent T^2 v, length |T v| over all parameters together.

    Raises:
        ValueError: If eta is negative.
    """
    if eta < 0:
        raise ValueError(f"eta must be at least 0, got {eta}")

    def metric(weights: Tensors, vectors: Tensors, room: Tensors) -> tuple[Tensors, Float[Tensor, ""]]:
        _check_dense(vectors)
        for w, v, out in _pieces(weights, vectors, room):
            torch.mul(v, w.abs().add_(eta), out=out)
        length = norm(room)  # |T v|
        for w, out in _pieces(weights, room):
            out.mul_(w.abs().add_(eta))  # T^2 v; T is found again, which costs less than to keep a copy of the weights
        return room, length

    return metric


def per_neuron(lowest: float, eta: float) -> Metric:
    """A ball of its own for each row of a matrix: ascent r T^2 v / |T v| row by row, T = |w| + eta, and length 1.

    r falls from 1 for the row of least L2 norm to ``lowest`` for that of the largest. What has no rows does not move.
    """
    check("lowest", lowest, 0, 1)
    if eta < 0:
        raise ValueError(f"eta must be at least 0, got {eta}")

    def metric(weights: Tensors, vectors: Tensors, room: Tensors) -> tuple[Tensors, Float[Tensor, ""]]:
        _check_dense(vectors)
        for w, v, out in zip(weights, vectors, room, strict=True):
            if w.ndim < 2 or not w.numel():
                out.zero_()
                continue
            scale = w.abs().add_(eta)
            torch.mul(v, scale, out=out)  # T v
            size = torch.linalg.vector_norm(w.flatten(1), dim=1)
            share = (size - size.min()) / (size.max() - size.min()).clamp_min(1e-12)
            reach = (1 - (1 - lowest) * share) / (torch.linalg.vector_norm(out.flatten(1), dim=1) + 1e-12)
            out.mul_(scale).mul_(reach.view(-1, *[1] * (w.ndim - 1)))
        return room, torch.ones(())

    return metric


def _check_dense(vectors: Tensors) -> None:
    """
    Raises:
        TypeError: If there is a sparse one.
    """
    if any(v.is_sparse for v in vectors):
        raise TypeError(
            "a gradient is sparse, as that of nn.Embedding(sparse=True), and an ascent is made of plain ones: make the embedding "
            "with sparse=False, or train with flat.plain()"
        )


def _pieces(*lists: Tensors) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape side by side; on a CPU piece by piece, where their memory is in one order."""
    for tensors in zip(*lists, strict=True):
        if all(x.device.type == "cpu" and x.is_contiguous() for x in tensors):
            yield from zip(*(x.view(-1).split(_PIECE) for x in tensors), strict=True)
        else:
            yield tensors
