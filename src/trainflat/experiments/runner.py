"""Runs a plan: each stage once, under its own lock, resumable at any moment.

`run` takes the stages one after the other in this process; `run_stage` is one of them, wherever it runs (see `cluster`).
"""

from __future__ import annotations

import errno
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.provenance import environment, now, sources
from trainflat.experiments.resolve import sentence
from trainflat.experiments.store import Store, canonical, write_json
from trainflat.experiments.work import Interrupted, Parent, Work

__all__ = ["Say", "Settings", "begin", "end", "pick_device", "run", "run_stage", "stoppable"]

Say = Callable[[str, Job, dict[str, Any]], None]
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C; Slurm's end of a job, and its warning before that
LOOK_AGAIN = (0.1, 2.0)  # seconds between two looks at what other processes are doing: the first, and the longest


@dataclass(frozen=True)
class Settings:
    """What a run decides about every stage, none of which can change a result."""

    stop: Callable[[], bool] = lambda: False
    device: str = "cpu"
    checkpoint_seconds: float = 30.0


def run(
    plan: Plan,
    store: Store,
    *,
    say: Say = lambda event, job, about: None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    wait: bool = True,
    **header: Any,
) -> dict[str, Any]:
    """Run what is not done yet; returns the run's document, whose rows `Store.rows` reads.

    ``say(event, job, about)`` is told "cached", "waiting", "started", "step", "finished" and "failed". Ctrl-C (or SIGTERM, or
    SIGUSR1) stops after the step at hand, with everything saved; a second Ctrl-C stops at once. Several runs of a plan with
    one store share its stages; with ``wait=False`` a run returns as soon as all that is left is at work in others.

    Raises:
        Interrupted: After Ctrl-C.
        Exception: What a stage raised, once all that does not build on it is done.
        OSError: If the disk is full; nothing finished is lost.
    """
    device = pick_device(device)
    document = begin(plan, store, device=device, **header)
    with stoppable() as stop:
        _run_all(plan.jobs, store, say, Settings(stop, device, checkpoint_seconds), wait)
    return end(plan, store, document)


def begin(plan: Plan, store: Store, **header: Any) -> dict[str, Any]:
    """Remember in the store what is being run, and with what."""
    about = {"name": plan.recipe.name, "claim": plan.recipe.claim, "created": now(), "environment": environment()}
    seeds = {"run": plan.asked["seeds"], "recipe": plan.recipe.seeds(plan.asked["smoke"])}
    document = {**about, **header, "changed": plan.changed, "seeds": seeds, "points": plan.points}
    store.write_run(plan.recipe.name, document)
    return document


def end(plan: Plan, store: Store, document: dict[str, Any]) -> dict[str, Any]:
    """Add what the run has cost to what `begin` wrote."""
    stages = [store.done(job.key) or {} for job in plan.jobs]
    document["seconds"] = round(sum(stage.get("seconds", 0.0) for stage in stages), 1)  # cached ones as they were run
    store.write_run(plan.recipe.name, document)
    return document


def _run_all(jobs: Sequence[Job], store: Store, say: Say, settings: Settings, wait: bool) -> None:
    """Every job once. One that another process is at is put off until there is nothing else to do, then waited for."""
    left, pause = list(jobs), 0.0
    failed: dict[str, Exception | None] = {}  # None for a stage that builds on a failed one
    while left:
        put_off = []
        for job in left:
            if any(parent.key in failed for parent in job.parents.values()):
                failed[job.key] = None
                continue
            try:
                if run_stage(job, store, say, settings) is None:
                    put_off.append(job)
            except OSError:  # a full disk stops everything
                raise
            except Exception as error:
                failed[job.key] = error
                say("failed", job, {"why": sentence(error)})
        if len(put_off) < len(left):
            pause = 0.0
        elif not wait and all(_ready(job, store) for job in put_off):
            break
        else:
            if not pause:
                say("waiting", put_off[0], {})
            pause = min(max(LOOK_AGAIN[0], 2 * pause), LOOK_AGAIN[1])
            time.sleep(pause)
        left = put_off
    if errors := [error for error in failed.values() if error]:
        said = dict.fromkeys(map(sentence, errors))
        raise errors[0] if len(errors) == 1 else RuntimeError("; ".join(said)) from errors[0]


def _ready(job: Job, store: Store) -> bool:
    return all(store.done(parent.key) for parent in job.parents.values())


def run_stage(job: Job, store: Store, say: Say, settings: Settings) -> dict[str, Any] | None:
    """The finished stage's document: found, or computed here and now from its last checkpoint on.

    None if it cannot be had yet, since another process is at it or at what it builds on.

    Raises:
        Interrupted: If ``settings.stop`` asked for it; the stage is saved where it is.
        OSError: If the disk is full.
    """
    if settings.stop():
        raise Interrupted
    if (found := store.done(job.key)) is None:
        if not _ready(job, store):
            return None
        with _disk_of(store), store.lock(job.key) as ours:
            if (found := store.done(job.key)) is None:  # nobody else did it meanwhile
                return _compute(job, store, say, settings) if ours else None
    Work(store.folder(job.key), job.seed, {}).forget()  # whoever did it may have been killed before tidying up
    say("cached", job, found)
    return found


def _compute(job: Job, store: Store, say: Say, settings: Settings) -> dict[str, Any]:
    folder = store.folder(job.key)
    parents = {field: _parent(store, parent) for field, parent in job.parents.items()}
    keys = {field: parent.key for field, parent in job.parents.items()}
    about = {"settings": canonical(job.settings), "seed": job.seed, "parents": keys, "version": job.stage.VERSION}
    write_json(folder / "stage.json", {"kind": job.kind, **about})
    say("started", job, {})
    work = Work(
        folder,
        job.seed,
        parents,
        settings.device,
        settings.checkpoint_seconds,
        progress=lambda event: say("step", job, event),
        stop=settings.stop,
    )
    began = time.monotonic()
    rows = _checked(job.kind, job.stage.run(work))
    document = {
        "kind": job.kind,
        "rows": rows,
        "seconds": round(time.monotonic() - began, 3),
        "finished": now(),
        "environment": environment(),
        "sources": sources(job.stage, job.settings),
    }
    document = store.finish(job.key, document)
    say("finished", job, document)
    work.forget()
    return document


def _checked(kind: str, rows: Any) -> list[dict[str, Any]]:
    """What a stage gave, if it can be written and read back."""
    try:
        if not isinstance(rows, (list, tuple)):
            why = f"it gave {type(rows).__name__}"
        elif not all(isinstance(row, dict) for row in rows):
            why = "not all of it are tables"
        else:
            json.dumps(rows)
            return list(rows)
    except (TypeError, ValueError) as error:
        why = sentence(error)
    raise TypeError(f"run of the stage {kind} gives a list of rows, tables of numbers, text and lists; {why}")


def _parent(store: Store, job: Job) -> Parent:
    document = store.done(job.key)
    assert document is not None, "a stage is run once its parents are done"
    return Parent(job.stage, store.folder(job.key), document["rows"])


def pick_device(name: str) -> str:
    """The torch device of that name, of "cpu", "cuda" or "cuda:1"; "auto" is a GPU where there is one.

    Raises:
        ValueError: If it is none of these, or not to be had on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ValueError(f"the device {name!r} is not to be had here; use auto, cpu, cuda or cuda:N, such as cuda:0")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {name!r} is not to be had here ({str(error).splitlines()[0]}); use auto, cpu, cuda or cuda:N"
        ) from error
    return name


@contextmanager
def _disk_of(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            way_out = "free some and run the same command again, finished stages are kept"
            raise OSError(errno.ENOSPC, f"no space left on the disk of {store.root}; {way_out}") from error
        raise


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once asks to stop; twice stops. SIGTERM and SIGUSR1 ask, however often. Outside the main thread nothing changes."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in STOPS}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
