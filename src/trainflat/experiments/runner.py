"""Runs a plan: each stage once, under its own lock, resumable at any moment."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.provenance import environment, now
from trainflat.experiments.store import Store, canonical, write_json
from trainflat.experiments.work import Interrupted, Parent, Work

__all__ = ["run"]

Say = Callable[[str, Job, dict[str, Any]], None]


def run(
    plan: Plan,
    store: Store,
    *,
    say: Say = lambda event, job, about: None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    **header: Any,
) -> dict[str, Any]:
    """Run what is not done yet; returns the run's document, whose rows `Store.rows` reads.

    ``say(event, job, about)`` is told "cached", "waiting", "started", "step" and "finished". Ctrl-C stops after the step at
    hand, with everything saved; a second one stops at once.

    Raises:
        Interrupted: After Ctrl-C.
        OSError: If the disk is full; nothing finished is lost.
    """
    device = _device(device)
    about = {
        "name": plan.recipe.name,
        "claim": plan.recipe.claim,
        "created": now(),
        "environment": environment(),
        **header,
    }
    document = {**about, "device": device, "points": plan.points}
    store.write_run(plan.recipe.name, document)
    with _stoppable() as stop:
        try:
            _run_all(plan.jobs, store, say, _Settings(stop, device, checkpoint_seconds))
        except OSError as error:
            if error.errno == errno.ENOSPC or "No space left" in str(error):
                way_out = "free some and run the same command again, finished stages are kept"
                raise OSError(errno.ENOSPC, f"no space left on the disk of {store.root}; {way_out}") from error
            raise
    stages = [store.done(job.key) or {} for job in plan.jobs]
    document["seconds"] = round(sum(stage.get("seconds", 0.0) for stage in stages), 1)  # cached ones as they were run
    store.write_run(plan.recipe.name, document)
    return document


@dataclass(frozen=True)
class _Settings:
    stop: Callable[[], bool]
    device: str
    checkpoint_seconds: float


def _run_all(jobs: Sequence[Job], store: Store, say: Say, settings: _Settings) -> None:
    """Every job once. One that another process is at is put off until there is nothing else to do, then waited for."""
    waiting, progress = list(jobs), True
    while waiting:
        put_off = []
        for job in waiting:
            if settings.stop():
                raise Interrupted
            ready = all(store.done(parent.key) for parent in job.parents.values())
            if not (ready and _run_one(job, store, say, settings, wait=not progress)):
                put_off.append(job)
            elif not progress:
                progress = True  # what we waited for is there; see what has become possible
        progress = len(put_off) < len(waiting)
        waiting = put_off


def _run_one(job: Job, store: Store, say: Say, settings: _Settings, wait: bool) -> bool:
    """Whether the job is done afterwards; False if another process is at it and we do not ``wait``."""
    if (found := store.done(job.key)) is not None:
        say("cached", job, found)
        return True
    if wait:
        say("waiting", job, {})
    with store.lock(job.key, wait=wait) as ours:
        if (found := store.done(job.key)) is not None:  # somebody else did it meanwhile
            say("cached", job, found)
            return True
        if not ours:
            return False
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
        rows = job.stage.run(work)
        document = {
            "kind": job.kind,
            "rows": rows,
            "seconds": round(time.monotonic() - began, 3),
            "finished": now(),
            "environment": environment(),
        }
        say("finished", job, store.finish(job.key, document))
        work.forget()
        return True


def _parent(store: Store, job: Job) -> Parent:
    document = store.done(job.key)
    assert document is not None, "a plan lists parents before their children"
    return Parent(job.stage, store.folder(job.key), document["rows"])


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {name!r} is not to be had here ({str(error).splitlines()[0]}); use cpu, cuda or auto"
        ) from error
    return name


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once asks to stop; twice stops. Outside the main thread signals stay as they are."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
