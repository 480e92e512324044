"""When a rule leaves the weights. In all other steps it is ``plain``: one pass, and the second one is really skipped."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainflat.flat.choices import Choice, chance, check, check_count

__all__ = ["Always", "Every", "From", "HighNorm", "Sometimes"]


class Always(Choice):
    """In every step."""

    looks = False  # whether the answer needs this batch's gradient first

    def __call__(self, step: int, t: float, norm: Callable[[], float]) -> bool:
        """Whether to leave the weights in step number ``step`` (counted by the rule), at progress ``t``."""
        return True


class Every(Always):
    """In steps 0, k, 2k, …"""

    remembers = True

    def __init__(self, k: int):
        super().__init__()
        check_count("k", k, "steps")
        if k < 1:
            raise ValueError(f"k counts steps and must be at least 1, got {k}")
        self.k = k

    def __call__(self, step: int, t: float, norm: Callable[[], float]) -> bool:
        return step % self.k == 0


class From(Always):
    """From progress ``t0`` on."""

    def __init__(self, t0: float):
        super().__init__()
        check("t0", t0, 0, 1)
        self.t0 = t0

    def __call__(self, step: int, t: float, norm: Callable[[], float]) -> bool:
        return t >= self.t0


class Sometimes(Always):
    """With probability ``p``, drawn anew for each step from (seed, step): the same steps after resuming."""

    remembers = True

    def __init__(self, p: float, seed: int = 0):
        super().__init__()
        check("p", p, 0, 1)
        self.p, self.seed = p, seed

    def __call__(self, step: int, t: float, norm: Callable[[], float]) -> bool:
        return chance("when", self.seed, step) < self.p


class HighNorm(Always):
    """When this batch's squared gradient norm is high: |g|^2 >= mu + c(t) sigma, with c from ``start`` to ``end``.

    mu and sigma^2 are running averages of |g|^2 and of its squared distance from mu, this step included.
    """

    looks = remembers = True

    def __init__(self, start: float, end: float, decay: float):
        super().__init__()
        check("decay", decay, 0, 1)
        self.start, self.end, self.decay = start, end, decay

    def __call__(self, step: int, t: float, norm: Callable[[], float]) -> bool:
        square = norm() ** 2
        mean, variance = self.memory.get("mean", square), self.memory.get("variance", 0.0)
        mean = self.decay * mean + (1 - self.decay) * square
        variance = self.decay * variance + (1 - self.decay) * (square - mean) ** 2
        if math.isfinite(square):  # else the loop will say so
            self.memory = {"mean": mean, "variance": variance}
        factor = self.start if self.start == self.end else (1 - t) * self.start + t * self.end
        return square >= mean + factor * math.sqrt(variance) if math.isfinite(factor) else factor < 0
