"""Along which direction a rule leaves the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainflat.flat.choices import Choice, as_gradient, chance, check
from trainflat.flat.metrics import Tensors
from trainflat.flat.moving import check_plain
from trainflat.types import Params

__all__ = ["Drawn", "LastGradient", "Momentum", "Part", "ThisBatch", "Unfamiliar"]


class ThisBatch(Choice):
    """This batch's gradient, from a first pass at the weights."""

    fresh = True  # whether it takes a pass of its own
    whole = True  # whether that pass gives the gradient of the whole batch
    scale = 1.0  # what the ascent is multiplied by; -1 goes down
    spent = False  # whether its vectors are of no use after the ascent, which may then be made in their memory
    length: Tensor | None = None  # their L2 norm over all parameters together, where it is known without reading them

    def over(self, closure: Any) -> Any:
        """What of the batch that pass is over."""
        return closure

    def among(self, params: Params, step: int) -> Params:
        """Which of the parameters that may move do."""
        return params

    def turn(self, params: Params, gradients: Tensors, room: Tensors) -> Tensors:
        """The direction from the gradients of the first pass, which stay as they are."""
        return gradients

    def vectors(self, params: Params, step: int) -> dict[str, Tensor]:
        """The direction of a rule that takes no first pass; empty if there is none yet."""
        return {}

    def spend(self, vectors: Mapping[str, Tensor]) -> None:
        """Forget these: their memory will be overwritten."""

    def see(self, params: Params, spare: dict[str, Tensor]) -> None:
        """Remember the gradients of a finished step; tensors of ``spare`` may be taken for that."""


class Part(ThisBatch):
    """The gradient of a leading part of this batch."""

    whole = False

    def __init__(self, fraction: float):
        super().__init__()
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction is the share of the batch to ascend on and must be in (0, 1], got {fraction}")
        self.fraction = fraction

    def over(self, closure: Any) -> Any:
        if not hasattr(closure, "part"):
            raise TypeError(
                "to ascend on a part of the batch a rule needs closure.part(fraction), which this closure does not have; "
                "those of trainflat.train.loop do, and your own may: see trainflat.types.Closure"
            )
        return closure.part(self.fraction)


class Drawn(ThisBatch):
    """This batch's gradient of some parameters, each drawn with probability ``share`` in each step, at least one; they move
    by 1 / share times as far. Whole tensors are drawn, so that the first pass need not find the gradients of the others."""

    def __init__(self, share: float, seed: int = 0):
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"p is the share of the parameters that move and must be in (0, 1], got {share}")
        self.share, self.seed, self.scale, self.remembers = share, seed, 1 / share, share < 1

    def among(self, params: Params, step: int) -> Params:
        draws = {name: chance(f"parameter {name}", self.seed, step) for name in params}
        least = min(draws.values(), default=0.0)
        return {name: p for name, p in params.items() if draws[name] < self.share or draws[name] == least}


class Unfamiliar(ThisBatch):
    """This batch's gradient without what it shares with the gradients before: g - sigma * m, m their running average."""

    remembers = True

    def __init__(self, sigma: float, decay: float):
        super().__init__()
        check("decay", decay, 0, 1)
        self.sigma, self.decay = sigma, decay

    def turn(self, params: Params, gradients: Tensors, room: Tensors) -> Tensors:
        turned = []
        for (name, p), gradient, out in zip(params.items(), gradients, room, strict=True):
            mean = self.recall(name, p)
            if mean is None:
                self.memory[name] = gradient.clone()
                turned.append(gradient)
            else:
                turned.append(torch.sub(gradient, as_gradient(p, mean), alpha=self.sigma, out=out))
                mean.lerp_(gradient, 1 - self.decay)
        return turned


class LastGradient(ThisBatch):
    """The gradient that the step before gave to the optimizer."""

    fresh, whole, remembers, spent = False, False, True, True

    def vectors(self, params: Params, step: int) -> dict[str, Tensor]:
        check_plain(params)  # in the first step, not in that which has something to go by
        kept = {name: self.recall(name, p) for name, p in params.items()}
        return {name: as_gradient(params[name], v) for name, v in kept.items() if v is not None}

    def spend(self, vectors: Mapping[str, Tensor]) -> None:
        for name in vectors:
            self.memory.pop(name, None)

    @torch.no_grad()
    def see(self, params: Params, spare: dict[str, Tensor]) -> None:
        gradients = {name: p.grad for name, p in params.items() if p.grad is not None}
        for name in (
            self.memory.keys() - gradients.keys()
        ):  # an expert that this step did not ask, or what has been frozen
            del self.memory[name]
        for name, gradient in gradients.items():
            if self.recall(name, params[name]) is None:
                self.memory[name] = spare.pop(name, None)
            kept = self.recall(name, params[name])
            if kept is None:
                self.memory[name] = gradient.clone()
            else:
                kept.copy_(gradient)


class Momentum(LastGradient):
    """The running average of the gradients of all steps before, m = decay * m + (1 - decay) * g, in its own memory.

    ``sign`` -1 goes down along it, which is where the optimizer is about to go; +1 goes up.
    """

    def __init__(self, decay: float, sign: int):
        super().__init__()
        check("decay", decay, 0, 1)
        if sign not in (-1, 1):
            raise ValueError(f"sign must be -1 (down along the momentum) or 1 (up), got {sign}")
        self.decay, self.scale, self.spent = decay, float(sign), False

    @torch.no_grad()
    def see(self, params: Params, spare: dict[str, Tensor]) -> None:
        for name, p in params.items():
            if p.grad is not None:
                kept = self.recall(name, p)
                if kept is None:
                    self.memory[name] = (1 - self.decay) * p.grad
                else:
                    kept.lerp_(p.grad, 1 - self.decay)
