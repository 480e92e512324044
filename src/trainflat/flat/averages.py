"""Which iterate is kept: the last one, or an average of several. An average looks at the weights after every step.

``average(params, t)`` with ``t`` the progress *after* the step, in (0, 1]. It reads the weights and never writes them, so that
training goes on as if it were not there; ``average.apply_to(model)`` at the end puts into the model what is kept. Buffers stay
the last iterate's: a net with batch normalisation has to pass over its training data once more for its statistics
(``torch.optim.swa_utils.update_bn``); transformers have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.flat.choices import check_count
from trainflat.train.weights import uphold
from trainflat.types import Average, Params

__all__ = ["ema", "last", "swa"]


def last() -> Average:
    """The last iterate: no average.

    Example:
        >>> model, average = nn.Linear(1, 1), last()
        >>> average(dict(model.named_parameters()), 1.0)
        >>> average.apply_to(model)                             # leaves it as it is
        >>> average
        last()
    """
    return _Last()


def swa(*, checkpoints: int = 10, share: float = 0.5) -> Average:
    """The equal average of the last checkpoints: w = 1/k sum_j w_j over the last k = round(share * checkpoints) of them.

    Izmailov et al. 2018, algorithm 1, arXiv:1803.05407, as Na et al. 2022, appendix A.2, use it: checkpoint i of n is the weights
    at progress t = i/n. With ten epochs and ten checkpoints these are the ends of epochs 6 to 10; with three epochs and six
    checkpoints those at 2, 2.5 and 3. Unlike Izmailov et al. there is no constant learning rate: the recipe has the schedule.

    A weight that a mask holds at zero is zero in every checkpoint, so it is in the average.

    Of SAM's iterates this is WASAM (Kaddour et al. 2022, arXiv:2202.00661), which needs nothing of its own, since
    an average does not ask how a step was made: ``gradient = "sam"`` beside ``average = "swa"`` in a recipe.

    Args:
        checkpoints: Checkpoints in a whole run, >= 1. Default: 10, one an epoch on Na et al.'s small tasks.
        share: Share of them that is averaged, in (0, 1]. Default: 0.5, the last half, as Na et al.

    Raises:
        TypeError, ValueError: If an argument is no whole number or out of range, or later a progress that it is told.

    Example:
        >>> model, average = nn.Linear(1, 1, bias=False), swa(checkpoints=4)
        >>> for i in range(8):                                  # 8 steps: checkpoints after steps 2, 4, 6, 8
        ...     _ = model.weight.data.fill_(i + 1)
        ...     average(dict(model.named_parameters()), (i + 1) / 8)
        >>> average.apply_to(model)
        >>> model.weight.item(), average                        # (6 + 8) / 2
        (7.0, swa of checkpoints 3 to 4, with 2 of them so far)
    """
    check_count("checkpoints", checkpoints, "those of a whole run")
    if checkpoints < 1:
        raise ValueError(f"checkpoints counts those of a whole run and must be at least 1, got {checkpoints}")
    if not 0 < share <= 1:
        raise ValueError(f"share is the part of the checkpoints that is averaged and must be in (0, 1], got {share}")
    return _Swa(checkpoints, share)


def ema(decay: float = 0.999) -> Average:
    """The exponential moving average over all steps: a_1 = w_1, a_t = decay * a_(t-1) + (1 - decay) * w_t.

    Polyak & Juditsky 1992 with forgetting; it remembers about 1 / (1 - decay) steps. Of SAM's iterates: as WASAM, see `swa`.

    Args:
        decay: In [0, 1); 0 is the last iterate. Default: 0.999, as ``torch.optim.swa_utils``; a run should have several
            thousand steps for it, or the beginning is averaged in.

    Raises:
        ValueError: If decay is out of range.

    Example:
        >>> model, average = nn.Linear(1, 1, bias=False), ema(decay=0.5)
        >>> for value in (4.0, 2.0, 1.0):
        ...     _ = model.weight.data.fill_(value)
        ...     average(dict(model.named_parameters()), 1.0)
        >>> average.apply_to(model)
        >>> model.weight.item(), average                        # ((4 + 2) / 2 + 1) / 2
        (2.0, ema(decay=0.5), of 3 steps so far)
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    return _Ema(decay)


class _Last:
    """Sees nothing, keeps nothing."""

    def __call__(self, params: Params, t: float) -> None:
        return None

    def __repr__(self) -> str:
        return "last()"

    def apply_to(self, model: nn.Module) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_kind(self, state)


class _Mean:
    """A mean of iterates in float32 or wider, and how many went in."""

    def __init__(self):
        self.mean: dict[str, Tensor] = {}
        self.count = 0

    def take(self, params: Params, weight: float) -> None:
        """mean += weight * (w - mean); the first iterate is the mean.

        Raises:
            TypeError: If the parameters have no names.
            ValueError: If one was not there before, or had another shape, or is missing.
        """
        if not isinstance(params, (Mapping, nn.ParameterDict)):
            raise TypeError(
                f"an average takes the parameters by name, dict(model.named_parameters()); this is a {type(params).__name__}"
            )
        for name, p in params.items() if self.count else ():
            if name not in self.mean or self.mean[name].shape != p.shape:
                was = f"had the shape {tuple(self.mean[name].shape)}" if name in self.mean else "was not there"
                raise ValueError(
                    f"{name} has the shape {tuple(p.shape)} and {was} when the average began; show it the same parameters in "
                    "every step, also those that are still frozen"
                )
        for name in self.mean.keys() - params.keys():
            raise ValueError(
                f"{name} is missing and was there when the average began; show it the same parameters in every step, also those "
                "that are frozen by now"
            )
        with torch.no_grad():
            wide = {name: p.detach().to(torch.promote_types(p.dtype, torch.float32)) for name, p in params.items()}
            if not self.count:
                self.mean = {name: tensor.clone() for name, tensor in wide.items()}
            else:
                for name, tensor in wide.items():  # a state is read on the CPU
                    self.mean[name] = self.mean[name].to(tensor.device)
                torch._foreach_lerp_([self.mean[name] for name in wide], list(wide.values()), weight)
        self.count += 1

    def apply_to(self, model: nn.Module) -> None:
        """Copy the average into the model; what it never saw stays, such as a frozen layer, and what a mask prunes stays zero.

        Raises:
            ValueError: If a shape differs, or the average saw no parameters yet, or none of them is the model's.
        """
        if not self.count:
            raise ValueError(
                f"there is nothing to put into the model yet: {self}; show it the weights after every step, "
                "average(dict(model.named_parameters()), (step.index + 1) / steps)"
            )
        here = {name: p for name, p in model.named_parameters() if name in self.mean}
        if self.mean and not here:
            raise ValueError(
                f"this average is of other parameters, such as {next(iter(self.mean))!r}: show it the names of the model that "
                f"it is applied to, such as {next((name for name, _ in model.named_parameters()), None)!r}"
            )
        for name, p in here.items():
            if p.shape != self.mean[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(p.shape)} in the model, {tuple(self.mean[name].shape)} in the average"
                )
        with torch.no_grad():
            for name, p in here.items():
                p.copy_(self.mean[name])
        uphold(model)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_kind(self, state)
        self.mean = {name: tensor.clone() for name, tensor in state["mean"].items()}
        self.count = state["count"]


class _Swa(_Mean):
    def __init__(self, checkpoints: int, share: float):
        super().__init__()
        self.checkpoints, self.first = checkpoints, checkpoints - max(1, round(share * checkpoints)) + 1
        self.reached = 0  # checkpoints so far

    def __repr__(self) -> str:
        return f"swa of checkpoints {self.first} to {self.checkpoints}, with {self.count} of them so far"

    def __call__(self, params: Params, t: float) -> None:
        if not 0 < t <= 1:
            raise ValueError(
                f"an average is told the progress after a step, (step.index + 1) / steps, in (0, 1]; got {t}"
            )
        passed = int(t * self.checkpoints + 1e-9)  # t = i / n is i up to rounding
        if passed > self.reached and passed >= self.first:
            self.take(params, 1 / (self.count + 1))
        self.reached = passed

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "reached": self.reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.reached = state["reached"]


class _Ema(_Mean):
    def __init__(self, decay: float):
        super().__init__()
        self.decay = decay

    def __repr__(self) -> str:
        return f"ema(decay={self.decay}), of {self.count} steps so far"

    def __call__(self, params: Params, t: float) -> None:
        self.take(params, 1 - self.decay)


def _check_kind(average: Any, state: Mapping[str, Any]) -> None:
    if state.keys() != average.state_dict().keys():
        raise ValueError(
            f"this state is of another average: it holds {', '.join(state) or 'nothing'}, and here it has to be "
            f"{', '.join(average.state_dict()) or 'nothing'}; make the average as it was for the run"
        )
