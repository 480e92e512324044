"""A radius that nobody has to find: a share of the way that the optimizer goes in a step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.flat.choices import check
from trainflat.flat.metrics import Tensors, norm
from trainflat.flat.moving import check_plain
from trainflat.flat.radius import Given
from trainflat.types import Params

__all__ = ["Auto"]

DECAY = 0.9  # of the running average
HIGHEST = 0.01  # the largest radius, as a share of |w|
SAMPLE = 1 << 18  # weights that are looked at; all of a smaller model
PROBES = 30  # every so many ascents a rule that changes nothing says so
NOTHING = 1e-6  # a smaller rise is rounding


class Auto(Given):
    """|e| = steps * u, u the running average of |w_t - w_(t-1)|: the ascent is a share of the optimizer's own steps.

    This project's own rule. The length of the optimizer's steps says on which scale the loss is being explored: it follows the
    learning rate and its schedule (to which Zhuang et al. 2022, arXiv:2203.08065, section 4, tie the radius, too), and it tells
    a model that is trained from scratch from one that is fine-tuned, whose good radii are smaller although its weights are
    larger. It is Euclidean for every metric, all parameters together; the average is u <- 0.9 u + 0.1 |w_t - w_(t-1)|. Of models
    of more than 2^18 weights it is estimated from as many, evenly spaced, so a copy of them is all that it keeps, and it takes
    **no extra pass**. The first step has nothing to go by and is `plain`. No ascent is longer than 0.01 |w|, where w are the
    weights that move: beyond, digits did not learn at all. Every 30 ascents it is looked at whether they still change anything:
    a loss that rises by rounding alone, or, of a rule without a pass at the weights, an ascent shorter than the weights' own
    rounding, is told in a warning, once until it is over.

    Args:
        steps: How far, in steps of the optimizer, > 0. Default: 0.3, this project's: of 0.1, 0.2, 0.3, 0.5 and 1 on digits and
            docstrings, scored on a fifth of the training data held back, three seeds, the best on both, by less than the seeds
            differ (`python -m bench.radius --rounds 3`).

    Raises:
        ValueError: If steps is not above 0.

    Example:
        >>> from trainflat.flat import compose
        >>> w, rule = torch.nn.Parameter(torch.tensor([100.0])), compose(Auto(steps=0.5))
        >>> def closure(): w.grad, loss = None, (3 * w).sum(); loss.backward(); return loss.detach()
        >>> for step in range(3):
        ...     _ = rule(closure, {"w": w}, 0.0)
        ...     w.data -= 0.1 * w.grad                                                    # by 0.3
        >>> round(rule.rho, 4), round(rule.share, 4)
        (0.15, 0.0015)
    """

    remembers = True

    def __init__(self, steps: float = 0.3):
        super().__init__(0.0)
        check("steps", steps, 0, math.inf)
        if steps == 0:
            raise ValueError(
                "steps is the ascent's length in steps of the optimizer and must be above 0; for none use plain"
            )
        self.steps = steps

    def __repr__(self) -> str:
        return f"Auto(steps={self.steps})"  # the radius is found as training goes

    @property
    def used(self) -> float | None:
        """The radius of the last ascent; None before the first."""
        return self.memory.get("rho")

    @property
    def share(self) -> float | None:
        """The last ascent's length as a share of |w|."""
        return self.memory.get("share")

    def at(self, t: float) -> float:
        return math.inf if self.memory.get("update") else 0.0

    @torch.no_grad()
    def see(self, params: Params) -> None:
        """Learn from where the weights are at the beginning of a step how far the last one was."""
        check_plain(params)
        looks = (self.memory.get("ascents", 0) + 1) // PROBES  # a step may take several ascents
        if looks > self.memory.get("looks", 0):
            self.memory["looks"] = looks
            self._check()
        now, count = _sample(params)
        before, known = self.recall("weights", now), self.memory.get("update")
        self.memory["weights"] = now
        if before is not None and len(now):
            length = math.sqrt(count / len(now)) * float(norm([now - before]))
            self.memory["update"] = DECAY * known + (1 - DECAY) * length if known else length

    def step(
        self, t: float, length: float, eps: float, weights: Sequence[Tensor], ascent: Tensors, scale: float
    ) -> float:
        size, straight = float(norm(list(weights))), float(norm(ascent))
        if not 0 < size < math.inf or straight == 0:
            return 0.0
        rho = min(abs(scale) * self.steps * self.memory["update"], HIGHEST * size)
        ascents = self.memory.get("ascents", 0) + 1
        rounding = torch.finfo(weights[0].dtype).eps / 4
        self.memory.update(rho=rho, share=rho / size, ascents=ascents, rounding=rounding)
        return math.copysign(rho, scale) / (straight + eps)

    def _check(self) -> None:
        if self.idle and not self.memory.get("told"):
            warnings.warn(self.says, RuntimeWarning, stacklevel=2)
        self.memory["told"] = self.idle

    @property
    def idle(self) -> bool:
        """Whether the last ascent changed nothing."""
        if self.rise is not None:
            return abs(self.rise) < NOTHING
        return self.share is not None and self.share < self.memory["rounding"]

    @property
    def says(self) -> str:
        """What the rule does, in a sentence."""
        if self.share is None:
            return "the radius is not known before the first ascent"
        if self.idle:
            at = f"the ascent changes nothing: at {self.share:.1e} of the weights' norm it"
            if self.rise is None:
                return f"{at} is shorter than their rounding; this rule trains as plain does"
            return (
                f"{at} raises the loss by {self.rise:.0e} of itself, less than rounding; this rule trains as plain does, which "
                "costs less"
            )
        rises = "" if self.rise is None else f", raises the loss by {self.rise:.1%}"
        return f"the ascent of {self.steps:g} steps of the optimizer, {self.share:.1e} of the weights' norm{rises}"


def _sample(params: Params) -> tuple[Float[Tensor, " weights"], int]:
    """Evenly spaced weights as one vector of its own memory, and how many there are in all."""
    count = sum(p.numel() for p in params.values())
    stride = max(1, -(-count // SAMPLE))
    parts = [p.detach().reshape(-1)[::stride] for p in params.values()]
    device = parts[0].device if parts else None
    wide = [part.to(device, torch.promote_types(part.dtype, torch.float32)) for part in parts]
    return (torch.cat(wide) if wide else torch.empty(0)), count
