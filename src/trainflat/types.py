"""The nouns of trainflat as protocols: what a plug-in has to look like, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Average", "Batch", "Closure", "Gradient", "Objective", "Params", "Quantizer", "Schedule", "Score", "Task"]

Batch = Any
"""What one micro-batch is: here always a pair ``(inputs, labels)``, inputs a tensor or a dict of keyword tensors; an objective of
one's own may read others."""

Params = Mapping[str, nn.Parameter]
"""The trainable parameters by name."""

Schedule = Callable[[float], float]
"""A number that changes over a run: progress ``t`` in [0, 1] to a value."""

Objective = Callable[[nn.Module, Batch], Float[Tensor, ""]]
"""What is minimised: ``(model, batch) -> loss``, a 0-d tensor with a graph behind it."""

Score = Callable[..., Mapping[str, Float[Tensor, " ..."]]]
"""Which weights matter: ``score(model, **options) -> {name: tensor}``, higher means keep."""

Quantizer = Callable[..., nn.Module]
"""On which grid: ``quantizer(model, **options) -> model``; the model given stays as it was."""


class Closure(Protocol):
    """Forward and backward over all micro-batches of one step; returns the mean loss, detached.

    A closure may have more, for rules that ask for it; a plain function serves all others. ``part(fraction)``: a closure over
    the first part of every micro-batch, to ascend on less data than to descend on. ``pieces(count)``: closures over so many
    pieces of the batch, whose losses and gradients add up to the whole's. ``model``: the model, to choose parameters by the
    type of their module. ``beside``: parameters that are trained but not the model's own. ``losses(weights=None)``: the losses
    of the ``count`` single examples, whose mean is the loss, without a graph; with weights, one for each, it adds the gradient
    of ``(weights * losses).mean()``, and need not run an example of weight 0 (whose loss it gives as 0).
    """

    def __call__(self) -> Float[Tensor, ""]: ...


class Gradient(Protocol):
    """Where the gradient is taken: fills ``p.grad`` and leaves every weight bit for bit as it was.

    ``params`` are all parameters that are trained, by name; frozen ones are left alone, and a rule that moves some alone chooses
    among them. What is trained and not there belongs into ``closure.beside``, or the gradients of all passes add up in it.
    ``t`` is the progress of the run, in [0, 1].

    Called where one would call ``backward``, once a step, with no gradients there before (or with a closure that clears them,
    as torch's are): micro-batches belong into the closure, since what was there would be taken for a part of the direction.
    A rule with memory has ``state_dict`` and ``load_state_dict``.
    """

    def __call__(self, closure: Closure, params: Params, t: float) -> Float[Tensor, ""]: ...


class Average(Protocol):
    """Which iterate is kept: is shown the weights after every step, and writes none of them."""

    def __call__(self, params: Params, t: float) -> None:
        """Look at the weights after a step; ``t`` is the progress at its end, in (0, 1]."""
        ...

    def apply_to(self, model: nn.Module) -> None:
        """Put into the model what is kept."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Task(Protocol):
    """Data, model, objective and metric. Any object with these serves; see `trainflat.testing.check_task`."""

    name: str
    head: tuple[str, ...]  # name prefixes of the parameters that belong to the task, not to the encoder
    steps_per_epoch: int

    def model(self, seed: int) -> nn.Module:
        """A fresh model; what is not pretrained is drawn from the seed."""
        ...

    def objective(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """The loss that training minimises."""
        ...

    def batches(self, seed: int) -> Iterable[Batch]:
        """Endless training batches in an order decided by the seed; a `trainflat.train.Stream` can be entered anywhere."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics on held-out data; the first is the main one, in [0, 1] or [-1, 1], the higher the better."""
        ...

    def held_out_batches(self, first: int | None = None) -> Iterable[Batch]:
        """The held-out data with labels, each example once, or the first so many examples of it: for measuring the loss."""
        ...

    def prunable(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter is in the prunable set."""
        ...

    def inputs(self, size: int = 32) -> Any:
        """What the model's forward takes, without labels, for ``size`` real held-out examples: for measuring.

        A task made of tokens takes ``length`` as well, to which it pads or cuts them.
        """
        ...
