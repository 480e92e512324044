"""What all checks share: a small net with a batch, and the words in which a law is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainflat import train
from trainflat.train.batches import examples, first_part, part
from trainflat.train.closure import losses_of
from trainflat.types import Batch

__all__ = ["Counted", "Stopped", "equal", "law", "low", "problem", "same", "trainable", "untouched"]


class Stopped(Exception):
    """Raised by a closure on purpose."""


class Counted:
    """A closure over one batch that counts its passes and raises `Stopped` in the one numbered ``fails_in``; with ``low``
    each pass is in bfloat16 by autocast, and with ``clears`` it clears the gradients first."""

    def __init__(
        self,
        net: nn.Module,
        batch: Batch,
        *,
        fails_in: int | None = None,
        factor: float = 1.0,
        low: bool = False,
        clears: bool = False,
    ):
        self.net, self.batch, self.fails_in, self.factor = net, batch, fails_in, factor
        self.low, self.clears, self.passes = low, clears, 0

    def __call__(self, batch: Batch | None = None, share: float = 1.0) -> Tensor:
        self._count()
        with low() if self.low else nullcontext():
            loss = share * self.factor * train.cross_entropy(self.net, self.batch if batch is None else batch)
        loss.backward()
        return loss.detach()

    def losses(self, weights: Tensor | None = None) -> Tensor:
        self._count()
        with torch.set_grad_enabled(weights is not None), low() if self.low else nullcontext():
            losses = self.factor * losses_of(train.cross_entropy, self.net, self.batch)
        if weights is not None:
            (weights.to(losses) * losses).mean().backward()
            losses = losses.masked_fill(weights == 0, 0)
        return losses.detach()

    def _count(self) -> None:
        self.passes += 1
        if self.passes == self.fails_in:
            raise Stopped
        if self.clears:
            self.net.zero_grad()

    def given(self, parts: bool) -> Any:
        """The plain function that a rule has to make do with, or one with ``part``, ``pieces``, ``losses`` and ``model`` for a
        rule that asks for one of them."""
        run: Any = lambda: self()
        if parts:
            run.part = lambda fraction: partial(self, first_part(self.batch, fraction))
            run.pieces = lambda count: [partial(self, part(self.batch, i, count), 1 / count) for i in range(count)]
            run.losses, run.count = self.losses, examples(self.batch)
            run.model = self.net
        return run


def low() -> torch.autocast:
    """Meanwhile what may be computed in bfloat16 is."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def law(holds: bool | Tensor, sentence: str) -> None:
    """Raise AssertionError with the sentence unless it holds (an ``assert`` would be gone under ``python -O``)."""
    if not holds:
        raise AssertionError(sentence)


def problem(dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A net with two matrices, biases and a norm, and one batch: the same at every call, as is the random stream."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 3)).to(dtype)
    return net, (torch.randn(32, 6, dtype=dtype), torch.randint(0, 3, (32,)))


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a rule is given."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Same names, same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same(one: Any, other: Any) -> bool:
    """Same bits in the same nesting of lists, tuples and dicts."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    return one == other


@contextmanager
def untouched(net: nn.Module, why: str) -> Iterator[None]:
    """Weights, buffers, gradients, modes and the random stream are afterwards what they were."""
    weights, modes, stream = train.snapshot(net), [m.training for m in net.modules()], torch.get_rng_state()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    yield
    now = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    law(equal(weights, train.snapshot(net)), f"{why}: weights changed")
    law(equal(gradients, now), f"{why}: gradients changed")
    law(modes == [m.training for m in net.modules()], f"{why}: the training mode changed")
    law(torch.equal(stream, torch.get_rng_state()), f"{why}: random numbers were drawn")
