"""The harness: candidates take turns in one process, so that whatever else the machine does hits all of them alike.

A ratio is the median over the rounds of ours / peer *within* a round: a load that comes and goes cancels.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch

__all__ = [
    "Line",
    "Times",
    "arguments",
    "load",
    "now",
    "peak_allocated",
    "peak_bytes",
    "ratio",
    "reset_peak",
    "show",
    "subprocess_output",
    "take_turns",
]

_clock: list[Callable[[], float]] = [time.perf_counter]


def now() -> float:
    """Seconds on the clock of ``--clock``."""
    return _clock[0]()


@dataclass(frozen=True)
class Times:
    """The seconds of every round of one candidate."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True)
class Line:
    """One row of the table: what was compared, both values as text, and their ratio against the target."""

    what: str
    ours: str
    peer: str
    ratio: float
    target: float | None = None
    at_least: bool = False  # the target is a lower bound, e.g. "1.3 times as fast"

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        return "pass" if met else "FAIL"

    def cells(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        target = "" if self.target is None else f"{sign} {self.target:g}"
        return [self.what, self.ours, self.peer, f"{self.ratio:.3f}", target, self.verdict]


def take_turns(
    candidates: Mapping[str, Callable[[], float | None]], *, rounds: int = 7, warmup: int = 2
) -> dict[str, Times]:
    """Run A, B, C, A, B, C, … and time each; a candidate that returns a number measured its own seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, run in candidates.items():
            start = now()
            own = run()
            elapsed = now() - start if own is None else own
            if turn >= warmup:
                seconds[name].append(elapsed)
    return {name: Times(values) for name, values in seconds.items()}


def ratio(what: str, ours: Times, peer: Times, target: float | None = None, *, faster: bool = False) -> Line:
    """Ours over the peer's; with ``faster`` the peer's over ours, a speed-up with a lower bound."""
    value = statistics.median(a / b for a, b in zip(ours.seconds, peer.seconds, strict=True))
    value = 1 / value if faster else value
    texts = [f"{times.median:.4g} s (min {times.fastest:.4g})" for times in (ours, peer)]
    return Line(what, *texts, value, target, at_least=faster)


def show(
    title: str, lines: Iterable[Line], options: argparse.Namespace, before: str, notes: Iterable[str] = ()
) -> None:
    """Print one Markdown table with what it was measured on; ``before`` is the load before. Small runs get no verdict."""
    if options.small:
        title, lines = f"{title} (--small: no verdict)", [replace(line, target=None) for line in lines]
    rows = [["", "ours", "peer", "ratio", "target", ""], *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    rows.insert(1, ["-" * width for width in widths])
    print(f"\n### {title}\n")
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    for note in notes:
        print(f"\n{note}")
    print(
        f"\ntorch {torch.__version__}, {torch.get_num_threads()} thread(s), {os.cpu_count()} processors "
        f"({platform.machine()}), {options.clock} seconds, medians of {options.rounds} rounds; "
        f"load average {before} before, {load()} after.",
        flush=True,
    )


def load() -> str:
    """The load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def arguments(what: str, *extra: tuple[str, dict]) -> argparse.Namespace:
    """``--small --rounds --threads`` and more; sets the threads."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--small", action="store_true", help="a thin model: seconds, and no verdict")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after two untimed ones")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, the same for all candidates")
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    parser.add_argument("--clock", choices=clocks, default="wall", help="cpu: on a shared machine, with one thread")
    for name, options in extra:
        parser.add_argument(name, **options)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    _clock[0] = clocks[parsed.clock]
    return parsed


def peak_allocated(run: Callable[[], object]) -> int:
    """The most that torch had allocated at once while running, in bytes beyond what it had before: exact, without noise."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))


def reset_peak() -> int:
    """Start a new peak of resident memory (Linux) and return what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The peak of resident memory since `reset_peak`, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def subprocess_output(module: str, *words: str) -> str:
    """The last line that ``python -m module words`` prints: memory is measured in a process of its own."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=root, check=True, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    return done.stdout.strip().splitlines()[-1]
