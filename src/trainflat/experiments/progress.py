"""What a run shows: one line a stage, and a live bar for each stage at work; plain lines where nothing can be live.

Bars need a terminal, or a notebook with ipywidgets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.provenance import sources
from trainflat.experiments.runner import Say

__all__ = ["shown"]

QUIET_SECONDS = 30.0  # between two plain lines about the same stage


@contextmanager
def shown(plan: Plan, to: TextIO, first: str = "") -> Iterator[Say]:
    """A ``say`` for `runner.run` or `cluster.run` that writes to a stream while the context is open.

    ``first`` is a line that comes before all others.
    """
    console = Console(file=to, highlight=False, soft_wrap=True)
    if console.is_jupyter and not find_spec("ipywidgets"):  # rich would make an output cell of every line
        console = Console(file=to, highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False)
    arms: dict[str, dict[str, None]] = {}
    for point in plan.points:
        arms.setdefault(point["key"], {})[" ".join(point["arm"].values())] = None
    lines = _Lines(console, {key: " | ".join(labels) for key, labels in arms.items()}, len(plan.jobs))
    if first:
        lines.line(first)
    if not (console.is_terminal or console.is_jupyter):
        yield lines
        return
    name = TextColumn(
        "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    about = TextColumn("{task.fields[about]}", table_column=Column(no_wrap=True))
    columns = [SpinnerColumn(), name, BarColumn(bar_width=20), about, TimeRemainingColumn(compact=True)]
    with Progress(*columns, console=console, transient=True, expand=True) as bars:
        yield _Live(lines, bars)


class _Lines:
    """A line when a stage is found, waited for, finished or failed, and now and then in between."""

    def __init__(self, console: Console, arms: dict[str, str], total: int):
        self.console, self.arms, self.total = console, arms, total
        self.count, self.spoken = 0, {}

    def __call__(self, event: str, job: Job, about: dict[str, Any]) -> None:
        if event in ("cached", "finished"):
            took = f"cached{_edited(job, about)}" if event == "cached" else f"{about['seconds']:.1f} s"
            self.counted("=" if event == "cached" else "+", job, f"{took}  {_result(about)}")
        elif event == "failed":
            self.counted("!", job, f"failed: {about['why']}")
        elif event == "waiting":
            self.line(f"  {self.name(job)}: {about.get('why', 'another process is at it; waiting')}")
        elif event == "started":
            self.spoken[job.key] = time.monotonic()
        elif time.monotonic() - self.spoken.get(job.key, 0.0) >= QUIET_SECONDS:
            self.spoken[job.key] = time.monotonic()
            self.line(f"  {self.name(job)}: {about['done']}/{about['of']} {_about(about)}")

    def counted(self, mark: str, job: Job, about: str) -> None:
        """The line of a stage that has come to its end."""
        self.count += 1
        self.line(f"{mark} [{self.count:{len(str(self.total))}}/{self.total}] {self.name(job)}  {about}")

    def line(self, text: str) -> None:
        """One line as it is."""
        self.console.print(text.rstrip(), markup=False)

    def name(self, job: Job) -> str:
        """The stage as a person calls it: its name, its arm, its seed."""
        return f"{job.name:10} {self.arms[job.key]}  seed {job.seed}"


@dataclass
class _Bar:
    """One stage at work. Its rate counts from the first step of a training that this run saw."""

    task: TaskID
    first: int = -1
    last: int = -1
    since: float = 0.0

    def begins(self, done: int) -> bool:
        """Whether this is the first step of a training: of the stage's only one, of the next round, or after a resume."""
        begins = self.first < 0 or done < self.last
        if begins:
            self.first, self.since = done, time.monotonic()
        self.last = done
        return begins

    def rate(self, done: int) -> str:
        """Steps a second."""
        seconds = time.monotonic() - self.since
        return f"{(done - self.first) / seconds:.1f} steps/s" if done > self.first and seconds > 0 else ""


class _Live:
    """The same lines, with a bar under them for each stage at work."""

    def __init__(self, lines: _Lines, bars: Progress):
        self.lines, self.bars = lines, bars
        self.at_work: dict[str, _Bar] = {}

    def __call__(self, event: str, job: Job, about: dict[str, Any]) -> None:
        if event == "step":
            bar = self.at_work.get(job.key) or self._begin(job)
            if bar.begins(about["done"]):
                self.bars.reset(bar.task, completed=about["done"], total=about["of"])
            words = f"{_about(about)}  {bar.rate(about['done'])}".strip()
            self.bars.update(bar.task, completed=about["done"], about=words)
        elif event == "started":
            self._begin(job)
        else:
            if job.key in self.at_work:
                self.bars.remove_task(self.at_work.pop(job.key).task)
            self.lines(event, job, about)

    def _begin(self, job: Job) -> _Bar:
        bar = _Bar(self.bars.add_task(self.lines.name(job), total=None, about=""))
        return self.at_work.setdefault(job.key, bar)


def _about(event: dict[str, Any]) -> str:
    """The round, the loss, and with a rule that leaves the weights its last ascent and what a step costs, counted and timed."""
    said = [f"round {event['round'] + 1}"] if event.get("round") else []
    if "loss" in event:
        said.append(f"loss {event['loss']:.3f}")
    if "rise" in event:
        said.append(f"rising {event['rise']:.0%}")
    if "share" in event:
        said.append(f"at {event['share']:.1e} |w|")
    if event.get("cost", 1) != 1:
        said.append(f"{event['cost']:.2f} passes")
    if "times" in event:
        said.append(f"{event['times']:.2f} x a plain step")
    return " ".join(said)


def _edited(job: Job, document: dict[str, Any]) -> str:
    """What has been edited since a stage was run, of the modules that are somebody's own; and the way out."""
    was, now = document.get("sources", {}), sources(job.stage, job.settings)
    edited = [module for module in was if now.get(module) != was[module]]
    return f" (before {', '.join(edited)} was edited; to run it again delete stages/{job.key})" if edited else ""


def _result(document: dict[str, Any]) -> str:
    scored = [row for row in document["rows"] if "value" in row]
    if not scored:
        return ""
    last = scored[-1]
    at = f" at {last['sparsity']:.0%}" if last.get("sparsity") else ""
    return f"{last['metric']} {last['value']:.3f}{at}"
