"""What a run shows while it goes: one line a stage, and a live bar inside the stage; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.runner import Say

__all__ = ["shown"]

QUIET_SECONDS = 30.0  # between two plain lines inside a stage


@contextmanager
def shown(plan: Plan, to: TextIO) -> Iterator[Say]:
    """A ``say`` for `runner.run` that writes to a stream while the context is open."""
    console = Console(file=to, highlight=False, soft_wrap=True)
    arms = {key: _arms(plan, key) for key in {point["key"] for point in plan.points}}
    lines = _Lines(console, arms, len(plan.jobs))
    if not console.is_terminal:
        yield lines
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[about]}")]
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        yield _Live(lines, bars)


class _Lines:
    """A line when a stage is found, waited for or finished, and now and then in between."""

    def __init__(self, console: Console, arms: dict[str, str], total: int):
        self.console, self.arms, self.total = console, arms, total
        self.count, self.spoken = 0, time.monotonic()

    def __call__(self, event: str, job: Job, about: dict[str, Any]) -> None:
        if event in ("cached", "finished"):
            self.count += 1
            mark = "=" if event == "cached" else "+"
            took = "cached" if event == "cached" else f"{about['seconds']:.1f} s"
            self.console.print(
                f"{mark} [{self.count}/{self.total}] {self.name(job)}  {took}  {_result(about)}", markup=False
            )
        elif event == "waiting":
            self.console.print(f"  {self.name(job)}: another process is at it; waiting", markup=False)
        elif event == "started":
            self.spoken = time.monotonic()
        elif time.monotonic() - self.spoken >= QUIET_SECONDS:
            self.spoken = time.monotonic()
            self.console.print(f"  {self.name(job)}: {about['done']}/{about['of']} {_about(about)}", markup=False)

    def name(self, job: Job) -> str:
        """The stage as a person calls it: its name, its arm, its seed."""
        return f"{job.name:10} {self.arms[job.key]}  seed {job.seed}"


class _Live:
    """The same lines, with a bar under them for the stage at hand."""

    def __init__(self, lines: _Lines, bars: Progress):
        self.lines, self.bars = lines, bars
        self.bar, self.began, self.first = None, 0.0, 0

    def __call__(self, event: str, job: Job, about: dict[str, Any]) -> None:
        if event == "started":
            self.bar = self.bars.add_task(self.lines.name(job), total=None, about="")
            self.began, self.first = time.monotonic(), -1
        elif event == "step" and self.bar is not None:
            if self.first < 0 or about["done"] < self.first:
                self.first, self.began = about["done"], time.monotonic()
            rate = (about["done"] - self.first) / max(1e-9, time.monotonic() - self.began)
            words = f"{_about(about)} {rate:.1f} steps/s"
            self.bars.update(self.bar, completed=about["done"], total=about["of"], about=words)
        else:
            if event == "finished" and self.bar is not None:
                self.bars.remove_task(self.bar)
                self.bar = None
            self.lines(event, job, about)


def _about(event: dict[str, Any]) -> str:
    loss = f"loss {event['loss']:.3f}" if "loss" in event else ""
    return f"round {event['round'] + 1} {loss}" if event.get("round") else loss


def _result(document: dict[str, Any]) -> str:
    scored = [row for row in document["rows"] if "value" in row]
    if not scored:
        return ""
    last = scored[-1]
    at = f" at {last['sparsity']:.0%}" if last.get("sparsity") else ""
    return f"{last['metric']} {last['value']:.3f}{at}"


def _arms(plan: Plan, key: str) -> str:
    labels = dict.fromkeys(" ".join(point["arm"].values()) for point in plan.points if point["key"] == key)
    return " | ".join(labels)
