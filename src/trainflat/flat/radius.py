"""How far a rule goes: a radius that is given, or one that is found as training goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.flat.choices import Choice
from trainflat.flat.metrics import Tensors, norm
from trainflat.train.schedules import at
from trainflat.types import Params, Schedule

__all__ = ["Given", "Radius", "Smooth"]

Radius = float | Schedule | Literal["auto"]
"""A number, a schedule, or ``"auto"``: found by `trainflat.flat.auto.Auto`."""


class Given(Choice):
    """A number or a schedule; 0 switches the rule off."""

    learns = False  # whether it looks at the gradients at both ends of the ascent

    def __init__(self, rho: float | Schedule):
        super().__init__()
        if not callable(rho) and not hasattr(rho, "__float__"):
            kind = ValueError if isinstance(rho, str) else TypeError
            raise kind(
                f'rho must be a number of at least 0 or a schedule, got {rho!r}; "auto" is for rules that do not find it already'
            )
        if not callable(rho) and not rho >= 0:
            raise ValueError(f"rho must be at least 0, got {rho}")
        self.rho = rho
        self._ends: tuple[Tensor, Tensor] | None = None

    def at(self, t: float) -> float:
        """The radius at progress t.

        Raises:
            ValueError: If it is negative.
        """
        radius = at(self.rho, t)
        if radius < 0:
            raise ValueError(f"rho must be at least 0, got {radius} at t = {t:.3f}")
        return radius

    @property
    def used(self) -> float | Schedule | None:
        """What the rule says its radius is."""
        return self.rho

    @property
    def rise(self) -> float | None:
        """By which share of itself the last ascent raised the loss; None before the first."""
        if self._ends is None:
            return None
        before, after = map(float, self._ends)  # waits for the device, so only where it is asked for
        return (after - before) / abs(before) if before else None

    @property
    def share(self) -> float | None:
        """The last ascent's radius as a share of the weights' norm; None where the radius is given."""
        return None

    def see(self, params: Params) -> None:
        """Look at the weights at the beginning of a step."""

    def step(
        self, t: float, length: float, eps: float, weights: Sequence[Tensor], ascent: Tensors, scale: float
    ) -> float:
        """What an ascent, of this length in its rule's metric, of these weights, is multiplied by, with the direction's scale."""
        return scale * (self.at(t) / (length + eps)) if length else 0.0

    def learn(self, params: Params, first: dict[str, Tensor], factor: float, length: float) -> None:
        """Look at the gradients before and after (in ``p.grad``) an ascent by ``factor`` times a vector of that length."""

    def watch(self, before: Float[Tensor, ""], after: Float[Tensor, ""]) -> None:
        """Look at the losses before and after an ascent."""
        self._ends = before.detach(), after.detach()


class Smooth(Given):
    """The ascent is a gradient step of the largest size that the local smoothness allows; ``rho`` is the first radius only.

    s_0 = rho / |g_0|, then s = min(sqrt(1 + s_-1 / s_-2) s_-1, |e| / (2 |g(w + e) - g(w)|)), both from the step before.
    """

    learns = remembers = True

    def step(
        self, t: float, length: float, eps: float, weights: Sequence[Tensor], ascent: Tensors, scale: float
    ) -> float:
        known = self.memory.get("next")
        return scale * known if known else super().step(t, length, eps, weights, ascent, scale)

    @torch.no_grad()
    def learn(self, params: Params, first: dict[str, Tensor], factor: float, length: float) -> None:
        changes = [g - before for name, before in first.items() if (g := params[name].grad) is not None]
        change = float(norm(changes)) if changes else 0.0
        growth = math.sqrt(1 + self.memory["growth"]) if "growth" in self.memory else math.inf
        found = min(growth * factor, factor * length / (2 * change) if change > 0 else math.inf)
        if 0 < found < math.inf and factor > 0:
            self.memory = {"next": found, "growth": found / factor}
