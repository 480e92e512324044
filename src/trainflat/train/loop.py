"""The one training loop. It is a generator: what others do in callbacks, the caller does between steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from inspect import signature
from itertools import islice
from numbers import Integral
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.train.batches import enter, to_device
from trainflat.train.closure import Backward, Precision
from trainflat.train.schedules import at
from trainflat.types import Batch, Gradient, Objective, Schedule

__all__ = ["NonFiniteLoss", "Precision", "Step", "check_rule", "fit", "loop"]


class NonFiniteLoss(ArithmeticError):
    """The loss or the gradient became NaN or infinite; the optimizer did not step on it."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step did: ``t`` is the progress at its start, ``passes`` counts forward-backward passes over its
    batch; one over a quarter of the batch counts 1/4, and a forward pass alone 1/3.

    ``seconds`` is what it took, and ``plain`` what it would have with one pass of the same pace and nothing else for the rule to
    do: their ratio is the rule's cost as measured. On a device that works on its own ``plain`` is None: who launches a pass does
    not know when it ended. Two steps that did the same are equal, however long they took.
    """

    index: int
    t: float
    loss: float
    lr: float
    passes: float
    seconds: float = field(compare=False, repr=False)
    plain: float | None = field(compare=False, repr=False)


def loop(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    start: int = 0,
    gradient: Gradient | None = None,
    lr: float | Schedule = 1.0,
    accumulate: int = 1,
    clip: float | None = None,
    precision: Precision = "fp32",
) -> Iterator[Step]:
    """Train for ``steps`` optimizer steps, yielding after each one.

    A step: zero the gradients, let ``gradient`` fill them from a closure over ``accumulate`` micro-batches, clip them,
    step the optimizer. Between two steps the caller may evaluate, save or stop; that changes nothing. To resume, restore
    everything with `load_state` and pass the number of finished steps as ``start``.

    What the optimizer trains beside the model (gates, multipliers, a projection) is neither moved by the rule nor clipped:
    its gradient is the last pass's, the one taken where the model's is. (A rule whose result is the sum of several passes
    adds theirs up in the same way.)

    Args:
        model: In training mode during each step, whatever the caller did between steps.
        objective: ``(model, batch) -> loss``.
        batches: Micro-batches, pairs ``(inputs, labels)`` or what else the objective reads: tensors in tuples, lists and dicts
            are brought to the model's device, and cut where a rule asks for it. Entered at number ``start * accumulate``. Of a
            ``DataLoader``, epoch after epoch: ``itertools.chain.from_iterable(itertools.repeat(loader))``.
        optimizer: Any ``torch.optim.Optimizer``, never wrapped. What it lacks of the model's parameters is not trained, but
            moved by the rule and clipped with the others as long as it requires a gradient: freeze it.
        steps: Length of the whole run; progress is ``t = index / steps``.
        start: Steps already done.
        gradient: Where the gradient is taken; default: at the weights (``flat.plain``).
        lr: Factor on each parameter group's own learning rate, a number or a schedule; a group with ``scheduled`` False
            keeps its own. That is the one which the caller, or a scheduler of torch's, set last, before the run or between two
            steps; what the loop made of it does not count. Default: 1, no schedule.
        accumulate: Micro-batches in one step. The loss is the mean of their means, so equal sizes give the gradient of
            the large batch.
        clip: Largest L2 norm of the gradient that reaches the optimizer (the second one for SAM), over all parameters
            at once; None for no clipping. Chen et al. 2020 clip BERT at 1.0.
        precision: ``"bf16"`` runs the forward pass under autocast; weights, gradients and optimizer stay as they are.

    Raises:
        NonFiniteLoss: Before the optimizer steps, if a loss in this step is not finite or, with ``clip``, the norm of
            its gradient.
        TypeError, ValueError: If the batches end before the run does, or an argument is of the wrong kind or out of range.

    Example:
        >>> model, data = nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.ones(4))
        >>> from trainflat.train import mean_squared_error
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> [step.index for step in loop(model, mean_squared_error, [data] * 3, sgd, steps=3)]
        [0, 1, 2]
        >>> model.weight                                    # one step of 1/2 on (w - 1)^2 lands on 1
        Parameter containing:
        tensor([[1.]], requires_grad=True)
    """
    _check_count("steps", steps, "the optimizer steps of the whole run", 0)
    _check_count("start", start, "the steps already done", 0)
    _check_count("accumulate", accumulate, "the micro-batches of a step", 1)
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be 'fp32' or 'bf16', got {precision!r}")
    if gradient is not None:
        check_rule(gradient)
    if clip is not None and not clip > 0:
        raise ValueError(
            f"clip is the largest norm of the gradient and must be above 0, got {clip}; None clips nothing"
        )
    if start > steps:
        raise ValueError(
            f"steps counts those of the whole run, with the {start} already done, and must be no fewer; got {steps}"
        )
    _check_optimizer(optimizer)
    params = _trainable(model)
    if not params:
        raise ValueError("there is nothing to train: no parameter of the model requires a gradient")
    own = {id(p) for p in model.parameters()}
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    if own.isdisjoint(map(id, stepped)):
        raise ValueError(
            "the optimizer has none of the model's parameters, so it would train nothing of it: was it made for another copy of "
            "the model? Make it last, from model.parameters()"
        )
    beside = [p for p in stepped if p.requires_grad and id(p) not in own]
    device = next(iter(params.values())).device
    stream = enter(batches, start * accumulate)
    for group in optimizer.param_groups:
        if start and "initial_lr" in group:
            group.setdefault("own_lr", group["initial_lr"])  # of a state that was saved when the loop kept only that
            group.setdefault("last_lr", group["lr"])
    for index in range(start, steps):
        micro = [to_device(batch, device) for batch in islice(stream, accumulate)]
        if len(micro) < accumulate:
            raise ValueError(
                f"the batches ended at step {index} of {steps}; give fewer steps or an endless stream, of a DataLoader "
                "itertools.chain.from_iterable(itertools.repeat(loader)), epoch after epoch"
            )
        t = index / steps
        for group in optimizer.param_groups:
            _set_rate(group, at(lr, t) if group.get("scheduled", True) else 1.0)
        model.train()  # the caller may have evaluated since the last step,
        params = _trainable(model)  # or frozen a layer, or let one go
        began = perf_counter()
        model.zero_grad()  # also of what the optimizer lacks, or its gradients added up over the run
        optimizer.zero_grad()
        closure = Backward(model, objective, micro, precision, beside)
        called = perf_counter()
        loss = gradient(closure, params, t) if gradient else closure()
        ruled = perf_counter() - called
        loss = _finite(loss, closure, params, clip, index, steps)
        optimizer.step()
        passes, seconds = sum(closure.shares), perf_counter() - began
        plain = seconds - ruled + sum(closure.seconds) / float(passes) if device.type == "cpu" and passes else None
        yield Step(index, t, loss, optimizer.param_groups[0]["lr"], _number(passes), seconds, plain)


def _check_count(name: str, value: int, of: str, least: int) -> None:
    if not isinstance(value, Integral):
        raise TypeError(f"{name} counts {of} and is a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} counts {of} and must be at least {least}, got {value}")


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(
            f"optimizer is a torch.optim.Optimizer, such as torch.optim.Adam(model.parameters(), lr=1e-3); got {optimizer!r}"
        )
    try:
        signature(type(optimizer).step).bind(optimizer)
    except TypeError:
        raise TypeError(
            f"the step of {type(optimizer).__name__} asks for the loss at places of its own choice, where no rule has been; take "
            "one that steps on a gradient, such as torch.optim.Adam, or call a rule in its closure, in a loop of your own"
        ) from None


def check_rule(gradient: Gradient) -> None:
    """Raise the TypeError of what is not a rule, such as the function that makes one."""
    try:
        signature(gradient).bind(None, None, 0.0)
    except ValueError:  # one that does not say
        return
    except TypeError:
        raise TypeError(
            f"gradient is a rule, which is called with (closure, params, t), such as flat.sam(rho=0.05); this is {gradient!r}"
        ) from None


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _set_rate(group: dict[str, Any], factor: float) -> None:
    """The group's own learning rate times the factor. Its own is what anybody but the loop set last; state dicts carry both."""
    if group["lr"] != group.get("last_lr"):
        group["own_lr"] = group["lr"]
    group["lr"] = group["own_lr"] * factor
    group["last_lr"] = float(group["lr"])  # a tensor could be written into


def fit(*args, **kwargs) -> list[Step]:
    """Run `loop` to its end and return its steps; a generator that nobody iterates would train nothing."""
    return list(loop(*args, **kwargs))


def _number(value: Fraction | int) -> float:
    """A count as an int if it is whole."""
    return int(value) if value == int(value) else float(value)


def _finite(loss: Tensor, closure: Backward, params, clip: float | None, index: int, steps: int) -> float:
    """Clip, then look at every number of the step at once: one transfer from the device."""
    watched = [loss, *closure.seen]
    if clip is not None:
        watched.append(nn.utils.clip_grad_norm_(params.values(), clip, foreach=True))
    value, *others = numbers = torch.stack([number.detach().float() for number in watched]).tolist()
    if not all(map(math.isfinite, numbers)):
        passes = all(map(math.isfinite, others[: len(closure.seen)]))
        what = "loss" if not math.isfinite(value) else "gradient's norm" if passes else "loss at the ascent point"
        raise NonFiniteLoss(
            f"the {what} is not finite at step {index} of {steps} (loss {value}); the weights are still those before the "
            f"step. Try a smaller learning rate, a warm-up, clip=1.0, a smaller rho, or precision 'fp32'"
        )
    return value
