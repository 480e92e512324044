"""The far side of `cluster`: what runs on its machines, which is one stage at a time, and the news of it.

Both ways go plain texts, numbers and tables. A worker makes the plan again from the recipe, so that it cannot compute a stage
under a wrong name: with other data or another version of trainflat its keys are others, and it says so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflat.experiments.resolve import sentence

if TYPE_CHECKING:
    from trainflat.experiments.plan import Job, Plan
    from trainflat.experiments.store import Store

__all__ = ["Mail", "look", "request", "work"]

NEWS_SECONDS = 0.25  # between two letters about the same stage
PATIENCE = 10.0  # seconds that a network folder may take to show a new file


class Mail:
    """The letter box: workers drop news of their stages, whoever shows them takes all of it."""

    def __init__(self) -> None:
        self.news: dict[str, dict[str, Any]] = {}

    def drop(self, key: str, about: dict[str, Any]) -> None:
        """The latest news of a stage; older news of it that nobody took are lost."""
        self.news[key] = about

    def take(self) -> dict[str, dict[str, Any]]:
        """All news since the last time."""
        news, self.news = self.news, {}
        return news


def request(plan: Plan, store: Store, created: str, device: str, threads: int, checkpoint_seconds: float) -> str:
    """All that a worker has to know of a run, as JSON."""
    recipe = {"name": plan.recipe.name, "claim": plan.recipe.claim, "document": plan.recipe.document}
    data = os.environ.get("TRAINFLAT_DATA")
    folders = [str(Path(folder or ".").resolve()) for folder in sys.path]
    here = {
        "path": [folder for folder in folders if not folder.startswith((sys.prefix, sys.base_prefix))],
        "data": str(Path(data).resolve()) if data else None,
    }
    run = {"store": str(store.root), "created": created, "keys": [job.key for job in plan.jobs]}
    settings = {"device": device, "threads": threads, "checkpoint_seconds": checkpoint_seconds}
    return json.dumps({"recipe": recipe, "asked": plan.asked, **here, **run, **settings})


@lru_cache(maxsize=1)
def _opened(text: str) -> tuple[dict[str, Any], dict[str, Job], Store]:
    """The request, its plan and its store, as this machine sees them."""
    asked = json.loads(text)
    sys.path += [folder for folder in asked["path"] if folder not in sys.path]  # where a plug-in's module may lie
    if asked["data"]:
        os.environ["TRAINFLAT_DATA"] = asked["data"]
    from trainflat.experiments import plan as planning
    from trainflat.experiments.recipe import Recipe
    from trainflat.experiments.store import Store

    plan = planning.plan(Recipe(**asked["recipe"]), **asked["asked"])
    return asked, {job.key: job for job in plan.jobs}, Store(asked["store"])


def look(text: str) -> str | None:
    """Whether this machine can do the stages of a run: None, or the reason why not."""
    name = platform.node()
    try:
        asked, jobs, store = _opened(text)
    except Exception as error:
        return f"{name} cannot plan this recipe: {sentence(error)}"
    if others := set(asked["keys"]) - jobs.keys():
        return (
            f"{name} would run other stages than this machine, {len(others)} of {len(asked['keys'])} differ: "
            f"its trainflat or its data files are not the same"
        )
    deadline = time.monotonic() + PATIENCE
    while not _sees(store, asked):
        if time.monotonic() > deadline:
            return (
                f"{name} does not find this run in {store.root}; "
                f"give --store a folder that all machines of the cluster share, under the same path"
            )
        time.sleep(0.5)
    return None


def _sees(store: Store, asked: dict[str, Any]) -> bool:
    try:
        return store.read_run(asked["recipe"]["name"])["created"] == asked["created"]
    except (OSError, LookupError, ValueError):
        return False


def work(text: str, key: str, mail: Any) -> dict[str, Any]:
    """Run one stage: ``{"event", "document"}``, ``{"busy"}`` if another process is at it, ``{"stopped", "began"}`` if it
    was asked to stop, after it had begun or before, or ``{"failed"}``."""
    try:
        import torch

        from trainflat.experiments.runner import Settings, pick_device, run_stage, stoppable
        from trainflat.experiments.work import Interrupted

        asked, jobs, store = _opened(text)
        torch.set_num_threads(asked["threads"] or jobs[key].resources.cpus)
        said, told = "", 0.0

        def say(event: str, job: Job, about: dict[str, Any]) -> None:
            nonlocal said, told
            said = event
            if event == "started" or (event == "step" and time.monotonic() - told >= NEWS_SECONDS):
                told = time.monotonic()
                mail.drop.remote(key, about)

        try:
            with stoppable() as stop:
                settings = Settings(stop, pick_device(asked["device"]), asked["checkpoint_seconds"])
                document = run_stage(jobs[key], store, say, settings)
        except Interrupted:
            return {"stopped": platform.node(), "began": bool(said)}
        return {"event": said, "document": document} if document else {"busy": platform.node()}
    except Exception as error:
        return {"failed": sentence(error), "trace": traceback.format_exc()}
