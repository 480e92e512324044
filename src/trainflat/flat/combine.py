"""What becomes of the gradients at the weights and at the point that was reached: the result is left in ``p.grad``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainflat.flat.choices import Choice, as_gradient, check
from trainflat.flat.metrics import Tensors, norm
from trainflat.types import Params

__all__ = ["Decomposed", "Replace", "Reused", "Summed", "TwoSided", "add_up", "put_aside"]


class Replace(Choice):
    """The gradient at the point that was reached, and nothing else."""

    keeps = False  # whether the first gradient is kept while the second is taken: one more copy of the weights
    sums = False  # whether the gradients of the passes are added up
    back = False  # whether a third gradient is taken, on the other side of the weights

    def begin(self) -> None:
        """Before the second pass."""

    def finish(self, params: Params, first: dict[str, Tensor]) -> None:
        """Make the result from ``first`` and the last gradients in ``p.grad``."""

    def turn(self, trained: Sequence[nn.Parameter]) -> None:
        """After a third pass, for those that go ``back``."""

    def skipped(self, params: Params) -> None:
        """Make the result of a step that stayed at the weights."""


class Summed(Replace):
    """g(w) + g(there)."""

    sums = True


class Decomposed(Replace):
    """g(there) - alpha * (the part of g(w) that is orthogonal to g(there))."""

    keeps = True

    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = alpha

    @torch.no_grad()
    def finish(self, params: Params, first: dict[str, Tensor]) -> None:
        before, after = _pairs(params, first)
        along = _dot(before, after) / max(float(norm(after)) ** 2, 1e-24)
        for b, a in zip(before, after, strict=True):
            a.mul_(1 + self.alpha * along).sub_(b, alpha=self.alpha)


class Reused(Replace):
    """g(there) in the steps that leave the weights; its part v orthogonal to g(w) is remembered and reused in all others:
    g + alpha * (|g| / |v|) * v."""

    keeps = remembers = True

    def __init__(self, alpha: float):
        super().__init__()
        check("alpha", alpha, 0, float("inf"))
        self.alpha = alpha

    def begin(self) -> None:
        self.memory = {}  # or there would be three copies

    @torch.no_grad()
    def finish(self, params: Params, first: dict[str, Tensor]) -> None:
        before, after = _pairs(params, first)
        along = _dot(before, after) / max(float(norm(before)) ** 2, 1e-24)
        torch._foreach_mul_(before, -along)
        torch._foreach_add_(before, after)  # where g(w) was: g(there) - along * g(w)
        self.memory = first

    @torch.no_grad()
    def skipped(self, params: Params) -> None:
        kept = {name: self.recall(name, p) for name, p in params.items() if p.grad is not None}
        reused = {name: as_gradient(params[name], v) for name, v in kept.items() if v is not None}
        length = float(norm(list(reused.values()))) if reused else 0.0
        if length > 0:
            gradients = [g for p in params.values() if (g := p.grad) is not None]
            scale = self.alpha * float(norm(gradients)) / length
            for name, v in reused.items():
                gradient = params[name].grad
                assert gradient is not None
                gradient.add_(v, alpha=scale)


class TwoSided(Summed):
    """g(there) + g(w) - g(back), with ``back`` as far on the other side of the weights."""

    back = True

    @torch.no_grad()
    def turn(self, trained: Sequence[nn.Parameter]) -> None:
        """The negative of the third pass's gradients."""
        torch._foreach_neg_([p.grad for p in trained if p.grad is not None])


def put_aside(trained: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradients, taken out of the parameters."""
    kept = [p.grad for p in trained]
    for p in trained:
        p.grad = None
    return kept


@torch.no_grad()
def add_up(trained: Sequence[nn.Parameter], kept: Sequence[Tensor | None]) -> None:
    """Add what was put aside to the gradients."""
    for p, gradient in zip(trained, kept, strict=True):
        if gradient is not None:
            p.grad = gradient if p.grad is None else p.grad.add_(gradient)


def _pairs(params: Params, first: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The first gradients, and the second ones of the same parameters; zero where the second pass did not use one."""
    for name in first:
        if params[name].grad is None:
            params[name].grad = torch.zeros_like(params[name])
    return list(first.values()), [g for name in first if (g := params[name].grad) is not None]


def _dot(some: Tensors, others: Tensors) -> float:
    """The inner product over all tensors together, in float32 or wider."""
    wide = [torch.float64 if a.dtype == torch.float64 else torch.float32 for a in some]
    sums = [torch.dot(a.flatten().to(w), b.flatten().to(w)) for a, b, w in zip(some, others, wide, strict=True)]
    return float(torch.stack(sums).sum())
