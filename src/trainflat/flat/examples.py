"""How much each example of the batch counts: all alike, those whose loss rises most, where the loss is curved, or clipped.

All but the first need the losses of single examples, and so ``closure.losses``: see `trainflat.types.Closure`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainflat.flat.choices import Choice, as_gradient, check, run_pass
from trainflat.flat.combine import put_aside
from trainflat.flat.draws import fill_with_noise
from trainflat.flat.metrics import norm
from trainflat.flat.moving import at, random_state, rooms, set_random_state
from trainflat.train.seeds import derive
from trainflat.types import Params

__all__ = ["Alike", "Curved", "Private", "Sharpest"]


class Alike(Choice):
    """Every example counts alike, in every pass."""

    whole = True  # whether the first pass gives the gradient of the batch's mean
    compares = False  # whether it needs a first pass over the whole batch at the weights
    private = False  # whether there may be no pass but its own

    def alone(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        """The only pass of a step, which stays at the weights."""
        return run_pass(closure)

    def first(self, closure: Any, params: Params, step: int, kept: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The pass at the weights; ``kept`` has room for one copy of them."""
        return run_pass(closure)

    def last(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        """The pass at the point that was reached."""
        return run_pass(closure)


class Sharpest(Alike):
    """In the last pass only the ``share`` of the examples whose loss the ascent raised most, at least one.

    Their losses there are found by a forward pass over all, which repeats the dropout of the first pass (or the ascent's effect
    could not be told from the dropout's) and leaves the random stream as it was.
    """

    compares = True

    def __init__(self, share: float):
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share is that of the examples in the last pass and must be in (0, 1], got {share}")
        self.share = share

    def first(self, closure: Any, params: Params, step: int, kept: dict[str, Tensor]) -> Float[Tensor, ""]:
        if self.share == 1:
            return run_pass(closure)
        _check_losses(closure)
        self._streams = random_state(params)
        self._before = closure.losses(torch.ones(closure.count))
        return self._before.mean()

    def last(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        if self.share == 1:
            return run_pass(closure)
        after = _forward(closure, params, self._streams)
        rise, count = after - self._before, len(after)
        chosen = rise.topk(max(1, round(self.share * count))).indices
        closure.losses(torch.zeros_like(rise).index_fill_(0, chosen, count / len(chosen)))
        return after.mean()


class Curved(Alike):
    """In the first pass each example by |l(w + z) - 2 l(w) + l(w - z)|^power, divided by the mean of these.

    z is Gaussian of standard deviation ``sigma`` for each weight, drawn from (seed, step). The three forward passes have the
    dropout of the pass that they weigh, and leave the random stream as it was.
    """

    whole, compares, remembers = False, True, True

    def __init__(self, power: float, sigma: float, seed: int = 0):
        super().__init__()
        check("power", power, 0, math.inf)
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma is a weight's standard deviation and must be above 0, got {sigma}")
        self.power, self.sigma, self.seed = power, sigma, seed

    def first(self, closure: Any, params: Params, step: int, kept: dict[str, Tensor]) -> Float[Tensor, ""]:
        _check_losses(closure)
        streams = random_state(params)
        here = _forward(closure, params, streams)
        free = {name: p for name, p in params.items() if p.requires_grad}
        moved = dict(zip(free, rooms(free, kept), strict=True))
        with torch.no_grad():
            fill_with_noise(moved, derive("flat curvature", self.seed, step))
        for name, z in moved.items():  # a mask's hook needs the gradient mode
            masked = as_gradient(params[name], z)
            with torch.no_grad():
                torch.add(params[name], masked, alpha=self.sigma, out=z)
        with at(params, moved):
            up = _forward(closure, params, streams)
        with torch.no_grad():
            for name, there in moved.items():
                there.neg_().add_(params[name], alpha=2)
        with at(params, moved):
            down = _forward(closure, params, streams)
        bent = (up.double() - 2 * here.double() + down.double()).abs() ** self.power
        mean = bent.mean()
        closure.losses(torch.where(mean > 0, bent / mean, torch.ones_like(bent)).to(here.dtype))
        return here.mean()


class Private(Alike):
    """The only pass: the mean of the single gradients, each cut to length ``clip``, plus Gaussian noise.

    g = (sum_i g_i min(1, C / |g_i|) + noise C z) / n, with z standard normal, drawn from (seed, step). The norm is over all
    parameters together.
    """

    private = remembers = True

    def __init__(self, clip: float, noise: float, seed: int = 0):
        super().__init__()
        if not clip > 0:
            raise ValueError(f"clip is the largest norm of one example's gradient and must be above 0, got {clip}")
        check("noise", noise, 0, math.inf)
        if noise > 0 and clip == math.inf:
            raise ValueError("the noise is in units of clip, so clip must be finite; or give noise=0")
        self.clip, self.noise, self.seed = clip, noise, seed

    def alone(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        if self.clip == math.inf:  # and then there is no noise
            return run_pass(closure)
        _check_losses(closure)
        if len(getattr(closure, "beside", ())):
            raise ValueError(
                "what is trained beside the model's own parameters would not be private: leave it out, or take stale_sam"
            )
        if isinstance(getattr(closure, "model", None), nn.parallel.DistributedDataParallel):
            raise ValueError("under DDP single gradients would be averaged before they are clipped: use one process")
        modules = closure.model.modules() if hasattr(closure, "model") else ()
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in modules):
            raise ValueError(
                "the running statistics of a batch norm would hold the examples without noise: take nn.GroupNorm instead, or a "
                "rule that is not private, such as stale_sam"
            )
        return self._private(closure, params, step)

    def last(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        return self.alone(closure, params, step)

    def _private(self, closure: Any, params: Params, step: int) -> Float[Tensor, ""]:
        count, total, losses = closure.count, {}, []
        for i in range(count):
            put_aside(list(params.values()))
            only = torch.zeros(count).index_fill_(0, torch.tensor([i]), count)
            losses.append(closure.losses(only).sum())
            self._add_cut(params, total)
        put_aside(list(params.values()))
        drawn = {name: torch.empty_like(total[name]) for name in params if name in total} if self.noise else {}
        fill_with_noise(drawn, derive("flat privacy", self.seed, step))
        for name, x in total.items():
            if self.noise:
                z = as_gradient(params[name], drawn[name])
                x = torch.add(x, z, alpha=self.noise * self.clip, out=x)
            params[name].grad = x.div_(count)
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _add_cut(self, params: Params, total: dict[str, Tensor]) -> None:
        gradients = {name: p.grad for name, p in params.items() if p.grad is not None}
        length = norm(list(gradients.values())) if gradients else torch.ones(())
        for name, gradient in gradients.items():
            gradient.mul_((self.clip / length).clamp(max=1))
            total[name] = total[name].add_(gradient) if name in total else gradient


def _check_losses(closure: Any) -> None:
    """Raise the TypeError of a closure that does not tell the examples apart."""
    if not hasattr(closure, "losses"):
        raise TypeError(
            "a rule that tells single examples apart needs closure.losses(weights) and closure.count, which this closure does "
            "not have; those of trainflat.train.loop do, and your own may: see trainflat.types.Closure"
        )


def _forward(closure: Any, params: Params, streams: Any) -> Float[Tensor, " batch"]:
    """The losses of the examples with these random streams, which are afterwards where they were."""
    now = random_state(params)
    set_random_state(streams)
    try:
        return closure.losses()
    finally:
        set_random_state(now)
