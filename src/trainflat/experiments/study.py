"""Where every stage of a plan stands while many hands work at them: what can begin, what came of it, what is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.runner import Say
from trainflat.experiments.store import Store
from trainflat.experiments.work import Interrupted

__all__ = ["Hands", "Study"]

DEATHS = 3  # of workers at one stage, without a step more in between, until it counts as failed
LOOK_AGAIN = 2.0  # seconds until a stage that another process is at is handed out again


class Hands(Protocol):
    """Whoever does the work."""

    def hand_out(self, job: Job) -> Any:
        """Begin a stage as soon as there is room; returns what `some` and `answer` know it by."""
        ...

    def lacking(self, job: Job) -> str | None:
        """The reason why a stage can begin nowhere for now, or None."""
        ...

    def some(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Those that have ended, after waiting a moment for the first."""
        ...

    def answer(self, task: Any) -> dict[str, Any]:
        """What came of it: ``{"event", "document"}``, or why not: "busy", "stopped" (with "began": whether it had
        begun), "died" or "failed" (with "trace")."""
        ...

    def news(self) -> dict[str, dict[str, Any]]:
        """How far the running stages are, by key."""
        ...

    def cancel(self, task: Any, *, force: bool = False) -> None:
        """Ask it to save and stop; with ``force``, end it."""
        ...


class Study:
    """One run of a plan by other hands. After `go`, ``done`` and ``failed`` say what became of the stages."""

    def __init__(self, plan: Plan, store: Store, say: Say):
        self.say = say
        self.left = {job.key: job for job in plan.jobs}
        self.running: dict[Any, Job] = {}
        self.done: set[str] = set()
        self.failed: dict[str, tuple[Job, dict[str, Any]]] = {}
        self.left_out: set[str] = set()  # they build on what failed
        self.started: set[str] = set()
        self.waits: dict[str, str] = {}  # the reason last said
        self.not_before: dict[str, float] = {}
        self.furthest: dict[str, tuple[int, int]] = {}
        self.deaths: dict[str, int] = {}
        for job in plan.jobs:
            if (found := store.done(job.key)) is not None:
                self._finish(job, {"event": "cached", "document": found})

    def go(self, hands: Hands, stop: Callable[[], bool]) -> None:
        """Until every stage is done or cannot be.

        Raises:
            Interrupted: Once ``stop`` asks for it and the running stages have saved themselves.
        """
        while self.left or self.running:
            if stop():
                self._stop(hands)
            self._hand_out(hands)
            if not self.running:
                time.sleep(min(LOOK_AGAIN, 0.25))
            for task in hands.some(list(self.running)) if self.running else ():
                self._judge(self.running.pop(task), hands.answer(task))
            self._tell(hands)

    def _hand_out(self, hands: Hands) -> None:
        for key, job in list(self.left.items()):
            needs = {parent.key for parent in job.parents.values()}
            if not needs.isdisjoint(self.failed.keys() | self.left_out):
                self.left_out.add(key)
                del self.left[key]
            elif needs <= self.done and time.monotonic() >= self.not_before.get(key, 0.0):
                if why := hands.lacking(job):
                    self._wait(job, why)
                self.running[hands.hand_out(job)] = self.left.pop(key)

    def _judge(self, job: Job, answer: dict[str, Any]) -> None:
        if "document" in answer:
            self._finish(job, answer)
        elif "failed" in answer:
            self._fail(job, answer)
        elif "died" in answer and self._too_often(job):
            way_out = f"if it needs more memory, reserve it with --set '{job.name}.memory=16' (gigabytes)"
            self._fail(job, {"failed": f"{answer['died']}, {DEATHS} times without a step more; {way_out}"})
        else:  # to be handed out again
            self.left[job.key] = job
            self.started.discard(job.key)
            if "busy" in answer:
                self.not_before[job.key] = time.monotonic() + LOOK_AGAIN
                self._wait(job, "another process is at it; waiting")
            else:
                self.waits.pop(job.key, None)
                self._wait(
                    job, f"{answer.get('died', 'its worker was told to stop')}; it goes on from its last checkpoint"
                )

    def _finish(self, job: Job, answer: dict[str, Any]) -> None:
        self.left.pop(job.key, None)
        self.done.add(job.key)
        self.say(answer["event"], job, answer["document"])

    def _fail(self, job: Job, answer: dict[str, Any]) -> None:
        self.failed[job.key] = (job, answer)
        self.say("failed", job, {"why": answer["failed"]})

    def _wait(self, job: Job, why: str) -> None:
        if self.waits.get(job.key) != why:
            self.waits[job.key] = why
            self.say("waiting", job, {"why": why})

    def _too_often(self, job: Job) -> bool:
        self.deaths[job.key] = self.deaths.get(job.key, 0) + 1
        return self.deaths[job.key] >= DEATHS

    def _began(self, job: Job) -> None:
        if job.key not in self.started:
            self.started.add(job.key)
            self.say("started", job, {})

    def _tell(self, hands: Hands) -> None:
        running = {job.key: job for job in self.running.values()}
        for key, about in hands.news().items():
            if (job := running.get(key)) is None:
                continue  # it has ended meanwhile
            self._began(job)
            if about:
                self.say("step", job, about)
                far = (about.get("round", 0), about["done"])
                if far > self.furthest.get(key, (-1, -1)):
                    self.furthest[key], self.deaths[key] = far, 0

    def _stop(self, hands: Hands) -> None:
        """Ask all to save and stop, and wait for them; a second Ctrl-C ends them where they are."""
        try:
            for task in list(self.running):
                hands.cancel(task)
            while self.running:
                for task in hands.some(list(self.running)):
                    job, answer = self.running.pop(task), hands.answer(task)
                    if "document" in answer:
                        self._finish(job, answer)
                    elif answer.get("began"):  # whether the news of it have come or not
                        self._began(job)
        except KeyboardInterrupt:
            for task in self.running:
                hands.cancel(task, force=True)
            raise
        raise Interrupted

    def error(self) -> RuntimeError:
        """What the failed stages said, each reason once; their tracebacks are its notes."""
        reasons: dict[str, list[str]] = {}
        for job, answer in self.failed.values():
            reasons.setdefault(answer["failed"], []).append(f"{job.name} seed {job.seed} ({job.key})")
        said = []
        for why, who in reasons.items():
            more = f" and {len(who) - 3} more" if len(who) > 3 else ""
            said.append(f"{', '.join(who[:3])}{more}: {why}")
        others = f", {len(self.left_out)} that build on it left out" if self.left_out else ""
        error = RuntimeError(f"{len(self.failed)} failed{others}, {len(self.done)} done. {'; '.join(said)}")
        for _, answer in self.failed.values():
            error.add_note(answer.get("trace", ""))
        return error
