"""The laws of a Task and of a Schedule."""

from __future__ import annotations

import inspect
import math
from itertools import islice

import torch
from torch import nn

from trainflat import train
from trainflat.testing.problem import equal, law, same, untouched
from trainflat.train.batches import enter
from trainflat.types import Batch, Schedule, Task

__all__ = ["check_schedule", "check_task"]


def check_schedule(schedule: Schedule) -> None:
    """Check a schedule. The law: a pure function from [0, 1] to finite numbers.

    Raises:
        AssertionError: With the law that is broken.
        TypeError: If it is no function.

    Example:
        >>> check_schedule(train.cosine(warmup=0.1))
    """
    if not callable(schedule):
        raise TypeError(
            f"this checks a schedule, a function from progress to a number, such as train.linear(); got {schedule!r}"
        )
    grid = [i / 200 for i in range(201)]
    values = [schedule(t) for t in grid]
    for t, value in zip(grid, values, strict=True):
        law(isinstance(value, (int, float)) and math.isfinite(value), f"a schedule is finite: {value!r} at t = {t}")
    again = [schedule(t) for t in reversed(grid)]
    law(again[::-1] == values, "a schedule has no memory: asked again, it answers otherwise")


def check_task(task: Task, *, batches: int = 3) -> None:
    """Check a task. The laws: the seed decides the model and the batches; batches have no end; the objective is a
    finite 0-d loss with a graph; evaluating is repeatable, leaves no trace, and its first metric is in [-1, 1]; the held-out
    batches are the same at every call;
    something is prunable, and nothing of it in the head, since a ticket has to fit another task; ``inputs`` is what the
    model takes.

    Args:
        task: Yours.
        batches: How many batches to compare, from the start of the first epoch and across its end.

    Raises:
        AssertionError: With the law that is broken.
    """
    with torch.random.fork_rng(devices=[]):
        missing = sorted(name for name in _parts_of_a_task() if not hasattr(task, name))
        law(not missing, f"a task has all its parts: not {', '.join(missing)}")
        law(bool(task.name) and task.steps_per_epoch >= 1, "a task has a name and at least one step an epoch")
        net, twin = task.model(seed=0), task.model(seed=0)
        law(net is not twin and equal(train.snapshot(net), train.snapshot(twin)), "the seed decides the model")
        _check_names(task, net)
        batch = _check_batches(task, batches)
        loss = task.objective(net, batch)
        law(loss.ndim == 0 and loss.isfinite(), "the objective is a finite 0-d loss")
        law(loss.requires_grad, "the objective has a graph to go backward through")
        loss.backward()
        with untouched(net, "evaluating leaves no trace"):
            metrics = task.evaluate(net)
        law(bool(metrics) and all(isinstance(value, float) for value in metrics.values()), "metrics are floats by name")
        law(-1 <= next(iter(metrics.values())) <= 1, f"the main metric comes first and is in [-1, 1]: {metrics}")
        law(task.evaluate(net) == metrics, "evaluating is repeatable")
        _check_held_out(task)
        net.eval()
        with torch.no_grad():
            law(len(train.logits(net, task.inputs(size=4))) == 4, "inputs(size) is what the model takes, of that size")


def _parts_of_a_task() -> list[str]:
    methods = [name for name, _ in inspect.getmembers(Task, inspect.isfunction) if not name.startswith("_")]
    return [*inspect.get_annotations(Task), *methods]


def _check_names(task: Task, net: nn.Module) -> None:
    names = dict(net.named_parameters())
    for prefix in task.head:
        law(any(name.startswith(prefix) for name in names), f"the head names parameters: {prefix!r} begins none")
    prunable = [name for name, p in names.items() if task.prunable(name, p)]
    law(bool(prunable), "something is prunable")
    in_head = [name for name in prunable if name.startswith(tuple(task.head))]
    law(not in_head, f"the head is not prunable, since a ticket has to fit another task: {', '.join(in_head)}")


def _check_held_out(task: Task) -> None:
    whole, again, few = (list(task.held_out_batches(first)) for first in (None, None, 5))
    law(bool(whole) and same(whole, again), "the held-out batches are the same at every call")
    law(sum(len(labels) for _, labels in few) == 5, "held_out_batches(first) are so many examples")


def _check_batches(task: Task, count: int) -> Batch:
    def drawn(seed: int, start: int) -> list[Batch]:
        return list(islice(enter(task.batches(seed), start), count))

    for start in (0, task.steps_per_epoch - 1):
        first = drawn(0, start)
        law(len(first) == count, "batches have no end")
        law(same(first, drawn(0, start)), "the seed decides the batches")
    law(not same(first, drawn(1, start)), "the seed decides the batches: another seed gave the same")
    return first[0]
