"""A radius that nobody has to find: where, at the start, the ascent raises a batch's loss by a given share of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.flat.choices import check
from trainflat.flat.metrics import norm
from trainflat.flat.radius import Given

__all__ = ["Auto"]

FIRST = 1e-3  # the first radius, as a share of |w|
LOWEST, HIGHEST = 1e-6, 0.01  # and the range that it never leaves
PROBES, LAST = 30, 10  # steps that leave the weights until the radius is found, and those of them that count
GAIN = 0.5
NOTHING = 1e-6  # a smaller rise is rounding


class Auto(Given):
    """rho <- rho * exp(k * clip(1 - r / target, -1, 1)) for thirty steps that leave the weights, r = (L(w + e) - L(w)) / L(w).

    This project's own rule. After these probes the geometric mean of the last ten radii stays. Both losses are those of the
    rule's own passes over this batch, so it takes **no extra pass**, and since r is a ratio the loss's unit is of no account.
    k = 1/2 lets the radius change by up to e^10 before the last ten and, where the rise is quadratic in rho, is Newton's step
    for log rho. The clipped difference (and not log r) is what moves rho, so that a rise which dropout makes negative does no
    harm. On L = a |w - m|^2 / 2 with fixed w it comes to rest at |w - m| (sqrt(1 + target) - 1). Beside its passes a step reads
    the weights once more, for |w|, and waits for two losses.

    It does not follow the loss after the probes: what is learnt by heart has hardly a loss left, a tenth of which hardly needs an
    ascent. (Followed to the end, the radius fell to a fifth on digits and to a tenth on docstrings.) The rise is still watched,
    and told.

    rho begins at |w| / 1000 and stays within [1e-6, 1e-2] |w|, where w are the weights that move. (Beyond 0.01 |w| digits did
    not learn at all, and so the loss did not rise by its share, and so the radius grew.) The range is wide since |w| alone does
    not decide: for digits' small transformer, |w| = 37, good radii are 0.02 to 0.2, and for BERT, whose |w| is larger, papers
    take 0.05. Where the last pass is not over the same batch at w + e itself (pruned, quantized, or ascended to on a part of the
    batch), r is the first-order one, e . g / L(w).

    Each process of a distributed run follows the loss of its own share of the batch.

    Args:
        target: The rise, as a share of the loss, > 0. Default: 0.1. With it SAM's dense models are 0.3 points below those of the
            best of six radii on digits (−0.3 to 0.9) and 0.2 above on docstrings (−0.9 to 1.2): results/small-radius, five seeds.

    Raises:
        ValueError: If the target is not above 0.

    Example:
        >>> from trainflat.flat import compose
        >>> w, rule = torch.nn.Parameter(torch.tensor([100.0])), compose(Auto(target=0.21))
        >>> def closure(): w.grad, loss = None, ((w - 98) ** 2).sum(); loss.backward(); return loss.detach()
        >>> for step in range(40):
        ...     _ = rule(closure, {"w": w}, 0.0)
        >>> round(rule.rho, 3), round(rule.share, 4), round(rule.rise, 2)                # (2 + 0.2)^2 is 1.21 * 2^2
        (0.2, 0.002, 0.21)
    """

    remembers = watches = True

    def __init__(self, target: float = 0.1):
        super().__init__(0.0)
        check("target", target, 0, math.inf)
        if target == 0:
            raise ValueError(
                "target is the share by which the ascent raises the loss and must be above 0; for none use plain"
            )
        self.target, self.told = target, False

    @property
    def used(self) -> float | None:
        """The radius of the next ascent; None before the first."""
        return self.memory.get("rho")

    @property
    def rise(self) -> float | None:
        """By which share the last ascent raised the loss."""
        return self.memory.get("rise")

    @property
    def share(self) -> float | None:
        """The last ascent's radius as a share of |w|."""
        return self.memory.get("share")

    def at(self, t: float) -> float:
        return self.memory.get("rho", math.inf)  # never 0, which would switch the rule off

    def step(self, t: float, length: float, eps: float, weights: Sequence[Tensor]) -> float:
        size = float(norm(list(weights)))
        if not 0 < size < math.inf:
            return 0.0
        rho = min(max(self.memory.get("rho", FIRST * size), LOWEST * size), HIGHEST * size)
        self.memory.update(rho=rho, share=rho / size)
        return rho / (length + eps)

    def watch(self, before: Float[Tensor, ""], after: Float[Tensor, ""]) -> None:
        """Learn from the losses at both ends of an ascent."""
        low, high = torch.stack([before.detach(), after.detach()]).double().tolist()
        if low == 0 or "rho" not in self.memory or not math.isfinite(low + high):
            return  # nothing to compare with; a loss that is not finite the loop reports
        rise, seen = (high - low) / abs(low), self.memory.get("seen", 0) + 1
        self.memory.update(rise=rise, seen=seen)
        if seen <= PROBES:
            self._move(rise, seen)
        if seen >= PROBES and self.idle and not self.told:
            self.told = True
            warnings.warn(self.says, RuntimeWarning, stacklevel=2)

    def _move(self, rise: float, seen: int) -> None:
        """The next radius; after the last probe the one that stays."""
        rho = self.memory["rho"]
        if seen > PROBES - LAST:
            self.memory["logs"] = self.memory.get("logs", 0.0) + math.log(rho)
        if seen < PROBES:
            self.memory["rho"] = rho * math.exp(GAIN * min(max(1 - rise / self.target, -1.0), 1.0))
        else:
            self.memory["rho"] = math.exp(self.memory["logs"] / LAST)

    @property
    def idle(self) -> bool:
        """Whether the last ascent changed nothing."""
        return self.rise is not None and abs(self.rise) < NOTHING

    @property
    def says(self) -> str:
        """What the rule does, in a sentence."""
        if self.rise is None or self.share is None:
            return "the radius is not known before the first ascent"
        if self.idle:
            return (
                f"the ascent changes nothing: at {self.share:.1e} of the weights' norm it raises the loss by {self.rise:.0e} "
                "of itself, less than rounding; this rule trains as plain does, which costs less"
            )
        return f"the ascent of {self.share:.1e} of the weights' norm raises the loss by {self.rise:.1%} (aim: {self.target:.0%})"
