"""What a running stage is given: its folder, its seed, its parents, and a way to tell how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from trainflat import compress, train
from trainflat.experiments.resolve import Spec, build, files_behind
from trainflat.train.files import read

__all__ = [
    "TASKS",
    "Interrupted",
    "Parent",
    "Work",
    "listed",
    "make_task",
    "nearest",
    "point",
    "row_of",
    "ticket_file",
]

M = TypeVar("M", bound=nn.Module)
SCRATCH = ("state.safetensors", "best.safetensors", "round.safetensors", "particles.safetensors")
ROUNDING = 1e-6  # by which a correlation may lie above 1
TASKS = ("trainflat.tasks", "trainflat.hf")


class Interrupted(KeyboardInterrupt):
    """Somebody asked to stop; everything needed to go on is on disk."""


@dataclass(frozen=True)
class Parent:
    """A finished stage: what it was, and where its files are."""

    stage: Any
    folder: Path
    rows: list[dict[str, Any]]

    @property
    def row(self) -> dict[str, Any]:
        """The row of the model that the stage left behind: the last one, unless another is marked as kept."""
        return next((row for row in self.rows if row.get("kept")), self.rows[-1])

    def ticket(self, at: float | None) -> Path:
        """The file of the ticket at a sparsity, of the last one by default; planning has checked that there is one."""
        levels = self.stage.tickets()
        found = len(levels) - 1 if at is None else nearest(at, levels)
        assert found is not None
        return self._file(ticket_file(levels[found]) if found < len(levels) - 1 else "ticket.safetensors")

    def task(self) -> Any:
        """The task that the stage was about."""
        return make_task(self.stage.task)

    def model(self, seed: int, task: Any = None) -> nn.Module:
        """The model that the stage left behind, shrunk if the stage shrank it; of its task, where that is at hand."""
        path = self._file("model.safetensors")
        try:
            tensors, header = read(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged; {self._again}") from error
        model = (task or self.task()).model(seed)
        if "small" in header:
            compress.carve(model, compress.structure(model), compress.Shape.of(header["small"]))
        train.restore(model, tensors)
        return model

    def _file(self, name: str) -> Path:
        """One of its files, which it has had since it was finished."""
        path = self.folder / name
        if not path.is_file():
            raise ValueError(f"{path} is not there any more; {self._again}")
        return path

    @property
    def _again(self) -> str:
        return f"delete the folder {self.folder} to compute this stage again"


@dataclass(frozen=True)
class Work:
    """One stage's run. ``progress`` is called after every step; ``stop`` says whether somebody wants to stop."""

    folder: Path
    seed: int
    parents: Mapping[str, Parent]
    device: str = "cpu"
    checkpoint_seconds: float = 30.0
    progress: Callable[[dict[str, Any]], None] = field(default=lambda event: None)
    stop: Callable[[], bool] = field(default=lambda: False)

    def log(self, **entry: Any) -> None:
        """Add a line to the stage's log.jsonl."""
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def forget(self, *names: str) -> None:
        """Delete files that only served to go on after an interruption; default: all of them."""
        for name in names or SCRATCH:
            (self.folder / name).unlink(missing_ok=True)

    def place(self, model: M) -> M:
        """The model on this run's device."""
        return model.to(torch.device(self.device))


_tasks: dict[str, Any] = {}


def make_task(spec: Spec) -> Any:
    """The task a spec names; made once for files as they are, since reading and tokenising data takes time."""
    key = json.dumps([spec.name, spec.kwargs, files_behind(spec, TASKS)], sort_keys=True)
    if key not in _tasks:
        _tasks.clear()  # one at a time in memory: a study's tasks come one after the other
        _tasks[key] = build(spec, TASKS)
    return _tasks[key]


def ticket_file(sparsity: float) -> str:
    """The file of one round's ticket.

    >>> ticket_file(0.7)
    'ticket-0.7.safetensors'
    """
    return f"ticket-{sparsity:.4g}.safetensors"


def nearest(sparsity: float, levels: Sequence[float]) -> int | None:
    """Which of the levels is this sparsity, up to rounding; None if none is.

    >>> nearest(0.3, [0.1, 0.2, 0.1 + 0.2])
    2
    """
    return next((i for i, level in enumerate(levels) if abs(level - sparsity) < 1e-4), None)


def listed(levels: Sequence[float]) -> str:
    """Sparsities in a sentence."""
    return ", ".join(f"{level:.4g}" for level in levels)


def point(task: Any, metrics: Mapping[str, float], **about: Any) -> dict[str, Any]:
    """A row: one measured point, with the main metric under ``value``; see `scored`."""
    metrics = scored(task, metrics)
    metric, value = next(iter(metrics.items()))
    return row_of(task, metric=metric, value=value, metrics=metrics, **about)


def row_of(task: Any, **about: Any) -> dict[str, Any]:
    """A row with what it says of its task; what is None is left out."""
    names = {"model": "model_name", "note": "note", "official": "official"}
    row = {"task": task.name, **{key: getattr(task, name, None) for key, name in names.items()}, **about}
    return {key: item for key, item in row.items() if item is not None}


def scored(task: Any, metrics: Mapping[str, Any]) -> dict[str, float]:
    """What ``task.evaluate`` gave, as plain floats. The main metric, the first, may be NaN of a model that has diverged.

    Raises:
        ValueError: If it is no table of numbers, or the main metric is not in [-1, 1]: reports take it times 100 and the higher
            for the better, which a loss or an error is not.

    Example:
        >>> from types import SimpleNamespace
        >>> scored(SimpleNamespace(name="mine"), {"loss": torch.tensor(1.5), "accuracy": torch.tensor(0.75)})
        Traceback (most recent call last):
        ValueError: the main metric of the task 'mine' is loss = 1.5; put one first that is in [-1, 1], the higher the better
    """
    try:
        found = {str(name): float(value) for name, value in metrics.items()}
        metric, value = next(iter(found.items()))
    except (AttributeError, TypeError, ValueError, StopIteration) as error:
        raise ValueError(
            f"evaluate of the task {task.name!r} gave {metrics!r}; it gives numbers by name, such as {{'accuracy': 0.9}}"
        ) from error
    if abs(value) > 1 + ROUNDING:
        raise ValueError(
            f"the main metric of the task {task.name!r} is {metric} = {value:.4g}; "
            f"put one first that is in [-1, 1], the higher the better"
        )
    return found
