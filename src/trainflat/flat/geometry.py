"""How two models of one shape lie to each other in weight space: is there a barrier on the straight line between them?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainflat.flat.moving import at
from trainflat.train.evaluate import evaluating
from trainflat.train.loop import NonFiniteLoss

__all__ = ["Barrier", "barrier", "measuring"]


class Barrier(NamedTuple):
    """The height of the barrier, the share ``a`` of the second model where it is highest, and the loss at every point."""

    height: float
    a: float
    losses: tuple[float, ...]


def barrier(
    model: nn.Module,
    one: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    evaluate: Callable[[nn.Module], float],
    points: int = 11,
) -> Barrier:
    """Linear mode connectivity: max over a of L((1 - a) w1 + a w2) - ((1 - a) L(w1) + a L(w2)), a from 0 to 1.

    Entezari et al. 2022, section 2, arXiv:2110.06296. Frankle et al. 2020, arXiv:1912.05671, subtract the mean of the two
    ends instead (their instability); where both ends have the same loss the two are one. Never negative, since it is 0 at
    the ends; 0 means that no point between lies above the chord, as far as so many points can see.

    Every parameter moves, the head with the rest. At a = 0 and a = 1, and wherever both agree, the weights are those given
    to the last bit, so a weight that is pruned in both models stays zero on the whole line. Buffers do not move: the running
    statistics of a batch norm are those of ``one`` all the way (a layer norm has none). They fit no other point, and the
    barrier then holds this as well; to take it out, let ``evaluate`` count them again at every point (Jordan et al. 2023,
    arXiv:2211.08403): whatever it does to the buffers is undone.

    Args:
        model: In whose place the points are measured, in evaluation mode and without gradients. Its own weights, buffers,
            modes and the random stream are afterwards what they were, to the last bit.
        one, other: A `trainflat.train.snapshot` of each.
        evaluate: The loss of a model, lower is better: ``lambda _: loss.value()`` of a `trainflat.flat.Loss` of this
            very model, or 1 - accuracy as Frankle et al.
        points: Evenly spaced, both ends among them, >= 3. Default: 11, steps of a tenth.

    Raises:
        ValueError: If a state lacks a parameter of the model or has another shape, or there are too few points.
        NonFiniteLoss: If a loss on the way is not finite.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> one, other = {"weight": torch.tensor([[-1.0]])}, {"weight": torch.tensor([[1.0]])}
        >>> barrier(model, one, other, lambda model: float((model.weight**2 - 1) ** 2), points=3)   # from -1 to 1 over 0
        Barrier(height=1.0, a=0.5, losses=(0.0, 1.0, 0.0))
    """
    if points < 3:
        raise ValueError(f"points are those on the line, both ends among them: at least 3, got {points}")
    params = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    ends = [_of(state, params, name) for state, name in ((one, "one"), (other, "other"))]
    start = [one[name] if name in one else own.clone() for name, own in buffers.items()]
    own_buffers = [own.clone() for own in buffers.values()]
    losses = []
    try:
        for i in range(points):
            _put(buffers, start)
            line = {name: torch.lerp(first, ends[1][name], i / (points - 1)) for name, first in ends[0].items()}
            with measuring(model), at(params, line):
                losses.append(float(evaluate(model)))
    finally:
        _put(buffers, own_buffers)
    if not all(map(math.isfinite, losses)):
        raise NonFiniteLoss(f"the loss between the two models is not finite everywhere: {losses}")
    chord = [losses[0] + (losses[-1] - losses[0]) * i / (points - 1) for i in range(points)]
    rises = [0.0, *(loss - below for loss, below in zip(losses[1:-1], chord[1:-1], strict=True)), 0.0]
    highest = max(range(points), key=rises.__getitem__)
    return Barrier(rises[highest], highest / (points - 1), tuple(losses))


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; modes and the random stream are put back afterwards."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(list(devices)):
        yield


def _of(state: Mapping[str, Tensor], params: Mapping[str, nn.Parameter], which: str) -> dict[str, Tensor]:
    """The model's parameters as a state has them, where and of the type that the model's are."""
    for name, p in params.items():
        if name not in state or state[name].shape != p.shape:
            has = f"has it of shape {tuple(state[name].shape)}" if name in state else "has none"
            raise ValueError(
                f"the model has a parameter {name!r} of shape {tuple(p.shape)} and {which!r} {has}: on a straight line can "
                "only be models of one shape"
            )
    return {name: state[name].detach().to(p.device, p.dtype) for name, p in params.items()}


def _put(buffers: Mapping[str, Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for own, value in zip(buffers.values(), values, strict=True):
            own.copy_(value)
