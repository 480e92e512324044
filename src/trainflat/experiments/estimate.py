"""What a plan will cost before anything runs: optimizer steps counted, hours from a rate that was measured here.

A rate is the seconds of one step of one setting (task, model, optimizer, gradient rule, precision …) on one device. It comes
from the finished stages of the store, or from twenty steps that `measure` runs; evaluation and the stages that do not train
are not in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from trainflat.experiments.plan import Job
from trainflat.experiments.resolve import Spec, files_behind, find
from trainflat.experiments.stages.imp import Imp
from trainflat.experiments.stages.training import Training
from trainflat.experiments.store import Store, identity, write_json
from trainflat.experiments.work import TASKS, Work, make_task

__all__ = ["STEPS", "Estimate", "Total", "duration", "estimate", "measure", "missing", "total"]

STEPS = 20
DECIDES = ("task", "optimizer", "gradient", "accumulate", "clip", "precision", "average", "objective")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One stage's optimizer steps, and its seconds if the rate is known; zero steps for a stage that trains nothing."""

    job: Job
    steps: int
    seconds: float | None
    done: bool


@dataclasses.dataclass(frozen=True)
class Total:
    """What several stages cost together. ``seconds_left`` counts the stages whose rate is known, ``unknown`` those without."""

    stage_count: int
    done: int
    stages_left: int
    steps_left: int
    seconds_spent: float
    seconds_left: float
    unknown: int

    @property
    def left(self) -> str:
        """The time that is left, as a reader says it."""
        if not self.unknown:
            return duration(self.seconds_left) if self.steps_left else "nothing"
        known = f"{duration(self.seconds_left)} and " if self.seconds_left else ""
        return f"{known}{self.unknown} of unknown rate"


def total(estimates: Iterable[Estimate]) -> Total:
    """The sum over stages, each key once."""
    each = {one.job.key: one for one in estimates}.values()
    left = [one for one in each if not one.done]
    return Total(
        stage_count=len(each),
        done=len(each) - len(left),
        stages_left=len(left),
        steps_left=sum(one.steps for one in left),
        seconds_spent=round(sum(one.seconds or 0.0 for one in each if one.done), 1),
        seconds_left=round(sum(one.seconds or 0.0 for one in left), 1),
        unknown=sum(one.steps > 0 and one.seconds is None for one in left),
    )


def duration(seconds: float) -> str:
    """How a reader says it.

    >>> duration(40), duration(600), duration(5400), duration(1e6)
    ('under a minute', '10 min', '1.5 h', '278 h')
    """
    if seconds < 60:
        return "under a minute"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def missing(estimates: Iterable[Estimate]) -> list[Job]:
    """One stage of every setting whose rate is not known: what `measure` has to run."""
    unknown = [one.job for one in estimates if one.steps and one.seconds is None]
    return list({setting(job): job for job in reversed(unknown)}.values())[::-1]


def estimate(jobs: Iterable[Job], store: Store, device: str) -> list[Estimate]:
    """Every stage's cost, the finished ones with the seconds that they took.

    Args:
        jobs: Of one plan or several; each key once.
        store: What is done, and the rates.
        device: "cpu" or "cuda": a rate holds for one of them.
    """
    jobs = list(jobs)
    found = {job.key: store.done(job.key) for job in jobs}
    names = {job.key: setting(job) for job in jobs if isinstance(job.stage, Training)}
    rates = _rates(names, found, store, device)
    told = []
    for job in jobs:
        document, steps = found[job.key], _steps(job)
        rate = rates.get(names.get(job.key, ""))
        seconds = document["seconds"] if document else None if rate is None else rate * steps
        told.append(Estimate(job, steps, seconds, document is not None))
    return told


def measure(job: Job, store: Store, device: str) -> float:
    """Train a stage's setting for twenty steps, throw the model away, and remember the seconds of a step in the store."""
    task = make_task(job.stage.task)
    task.batches(0)  # what is tokenised once is no part of a step
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), job.seed, {}, device, checkpoint_seconds=math.inf)
        short = dataclasses.replace(job.stage, steps=STEPS, keep="last")
        seconds = short.rehearse(work, task)["seconds"] / STEPS
    path = _path(store, setting(job), device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"seconds": seconds, "steps": STEPS, "setting": _decides(job)})
    return seconds


def setting(job: Job) -> str:
    """What decides how long a step takes, as a name."""
    return identity("rate", 1, _decides(job), {}, 0)


def _decides(job: Job) -> dict[str, Any]:
    decides = {name: job.settings.get(name) for name in DECIDES}
    if job.kind == "Movement":
        decides |= {name: job.settings[name] for name in ("way", "scope", "perturb")}
    if "teacher" in job.parents:  # its forward pass, gates, and a student that may be a small one
        decides |= {"kind": job.kind, "distillation": job.settings["distillation"], "student": _size(job)}
    return decides


def _size(job: Job) -> list[Any] | None:
    """What makes the student of a stage as large as it is."""
    student = job.parents.get("student")
    if student is None or not {"sparsity", "way"} & student.settings.keys():
        return None
    like = student.parents.get("like", student)
    return [student.kind, student.settings.get("way"), like.settings.get("sparsity")]


def _path(store: Store, name: str, device: str) -> Path:
    return store.root / "rates" / device / f"{name}.json"


def _steps(job: Job) -> int:
    """Optimizer steps of a stage, over all its rounds."""
    if not isinstance(job.stage, Training):
        return 0
    rounds = (job.stage.rounds + 1) * (job.stage.particles or 1) if isinstance(job.stage, Imp) else 1
    if job.stage.steps:
        return rounds * job.stage.steps
    per_epoch = max(1, math.ceil(_per_epoch(job.stage.task) / job.stage.accumulate))
    return rounds * math.ceil(job.stage.epochs * per_epoch)


_epochs: dict[str, int] = {}


def _per_epoch(spec: Spec) -> int:
    """Batches of an epoch: from the factory's ``steps_per_epoch``, which reads no data, or from the task itself."""
    name = json.dumps([spec.name, spec.kwargs, files_behind(spec, TASKS)], sort_keys=True)
    if name not in _epochs:
        counts = getattr(find(spec.name, TASKS), "steps_per_epoch", None)
        _epochs[name] = counts(**spec.kwargs) if counts else make_task(spec).steps_per_epoch
    return _epochs[name]


def _rates(names: dict[str, str], found: dict[str, Any], store: Store, device: str) -> dict[str, float]:
    """Seconds of a step by setting: of the finished stages (their median), else of what was measured."""
    rates = {name: _measured(store, name, device) for name in set(names.values())}
    seen: dict[str, list[float]] = {}
    for key, name in names.items():
        document = found[key]
        rows = [row for row in (document or {}).get("rows", []) if row.get("steps") and row.get("seconds")]
        if rows and document["environment"].get("device", device) == device:
            seen.setdefault(name, []).append(sum(r["seconds"] for r in rows) / sum(r["steps"] for r in rows))
    known = {name: rate for name, rate in rates.items() if rate is not None}
    return known | {name: median(values) for name, values in seen.items()}


def _measured(store: Store, name: str, device: str) -> float | None:
    path = _path(store, name, device)
    return json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.is_file() else None
