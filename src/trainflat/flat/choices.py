"""What the choices that make a rule have in common: a name for each, and a memory that is saved with the run.

A `trainflat.flat.rule.Rule` asks its choices in this order: `when` to leave the weights, along which `direction`, measured in
which metric and how far (`radius`), `where` (which parameters), to which `point`, and how to `combine` what it saw; in each
pass, how much the single `examples` count.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainflat.train.seeds import derive
from trainflat.types import Params

__all__ = [
    "Choice",
    "as_gradient",
    "called",
    "chance",
    "check",
    "check_count",
    "check_filled",
    "model_of",
    "run_pass",
    "trainable",
]


class Choice:
    """One choice. All that it remembers is in ``memory``: tensors by the parameter's name, and numbers."""

    remembers = False  # whether it has a memory or counts steps, so that a run has to save it

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}

    def __repr__(self) -> str:
        """The choice with what it was made of, not with what it remembers."""
        made = {name: value for name, value in vars(self).items() if name[0] != "_" and not hasattr(type(self), name)}
        told = [f"{name}={called(value)}" for name, value in made.items() if name != "memory"]
        return f"{type(self).__name__}({', '.join(told)})"

    def recall(self, name: str, like: Tensor) -> Tensor | None:
        """What is remembered of a parameter, on its device; None if nothing is, or that of another model."""
        kept = self.memory.get(name)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            return None
        if kept.device != like.device:  # a state is read on the CPU
            kept = self.memory[name] = kept.to(like.device)
        return kept

    def forget(self) -> None:
        """Begin anew, since what is remembered is not finite: no step was taken on it."""
        self.memory = {}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # in memory of its own: what was read from a file need not be aligned, and a rule may multiply with it
        self.memory = {name: x.clone() if isinstance(x, Tensor) else x for name, x in state.items()}


def called(value: Any) -> str:
    """A value as it is printed; of a function its name, or that of the function that made it.

    >>> from trainflat.flat.metrics import adaptive
    >>> called(0.5), called(adaptive(0.01))
    ('0.5', 'adaptive')
    """
    return value.__qualname__.partition(".")[0] if hasattr(value, "__qualname__") else repr(value)


def as_gradient(p: nn.Parameter, vector: Tensor) -> Tensor:
    """What the hooks of a parameter would leave of the vector if it were its gradient: a mask zeroes what it has pruned.

    So that a pruned weight stays where it is, although the vector is noise or was remembered before there was a mask. The hooks
    are called and no backward pass is run: DistributedDataParallel would count it as one of the passes.
    """
    hooks = getattr(p, "_post_accumulate_grad_hooks", None)
    if not hooks:
        return vector
    own, p.grad = p.grad, vector.detach().clone()
    try:
        with torch.no_grad():
            for hook in list(hooks.values()):
                hook(p)
        assert p.grad is not None
        return p.grad
    finally:
        p.grad = own


def chance(what: str, seed: int, step: int) -> float:
    """A number in [0, 1) for one purpose in one step: the same in every process, and after resuming, without a stream.

    Example:
        >>> chance("sparsity", 0, 7) == chance("sparsity", 0, 7), 0 <= chance("sparsity", 0, 8) < 1
        (True, True)
    """
    return (derive(f"flat {what}", seed, step) >> 10) / 2**53


def check(name: str, value: float, low: float, high: float) -> None:
    """Raise the ValueError of an argument out of [low, high], or the TypeError of one that is no number."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value:g}")


def check_count(name: str, value: float, of: str) -> None:
    """Raise the TypeError of what is to count something and is no whole number; 2.0 is one, as a recipe may have it.

    >>> check_count("k", 2.5, "steps")
    Traceback (most recent call last):
    TypeError: k counts steps and is a whole number, got 2.5
    """
    if not isinstance(value, Integral) and not (isinstance(value, float) and value.is_integer()):
        raise TypeError(f"{name} counts {of} and is a whole number, got {value!r}")


def run_pass(closure: Any) -> Float[Tensor, ""]:
    """Forward and backward; the loss without its graph, so that no activation outlives the pass.

    Raises:
        TypeError: If the closure is none, or returns something else.
    """
    if not callable(closure):
        raise TypeError(
            "a closure is a function that runs forward and backward and returns the loss, since a rule calls it at several "
            f"places; this is a {type(closure).__name__}"
        )
    loss = closure()
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"a closure runs forward and backward and returns the loss, a 0-d tensor; this one returned {type(loss).__name__}"
        )
    return loss.detach()


def trainable(params: Any, t: float) -> Params:
    """Those of the parameters that are not frozen, each once, though it may have two names.

    Raises:
        TypeError: If they have no names, as ``model.parameters()``.
        ValueError: If there are none or all are frozen, or t is not in [0, 1].
    """
    if not hasattr(params, "items"):
        raise TypeError(
            f"a rule takes the parameters by name, dict(model.named_parameters()); this is a {type(params).__name__}"
        )
    if not params:
        raise ValueError("a rule was given no parameters, and so would do nothing: dict(model.named_parameters())")
    if not 0 <= t <= 1:
        raise ValueError(f"t is the progress of the run, from 0 to 1, step / steps; got {t:g}")
    names = {id(p): name for name, p in reversed(list(params.items())) if p.requires_grad}
    if not names:
        raise ValueError(
            "none of the parameters that a rule was given requires a gradient: they are all frozen, or copies, as in "
            "state_dict(); give dict(model.named_parameters())"
        )
    return {name: p for name, p in params.items() if names.get(id(p)) == name}


def check_filled(closure: Any, params: Params) -> None:
    """Raise the ValueError of a closure after which no parameter has a gradient, so that a step would do nothing."""
    if params and all(p.grad is None for p in params.values()) and not len(getattr(closure, "beside", ())):
        raise ValueError(
            "after the closure none of the parameters has a gradient: it has to run loss.backward(), on a loss of the model "
            "whose parameters these are"
        )


def model_of(closure: Any, why: str) -> nn.Module:
    """The model behind a closure, for choices by type of module.

    Raises:
        TypeError: If the closure does not say.
    """
    model = getattr(closure, "model", None)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{why} by type of module, and so needs closure.model, which this closure does not have; those of "
            "trainflat.train.loop do, and to your own function you may add it: closure.model = model"
        )
    return model
