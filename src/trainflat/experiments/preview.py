"""What `trainflat plan` shows: every stage of one recipe, or one line for each recipe of a whole study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from trainflat.experiments.estimate import Estimate, duration, estimate, total
from trainflat.experiments.plan import Plan
from trainflat.experiments.store import Store

__all__ = ["document", "recipe_table", "study_table"]

NOTE = "Time is that of the optimizer steps, at the rate measured on this device; evaluation is not in it."


def document(plans: Sequence[Plan], store: Store, device: str) -> dict[str, Any]:
    """Everything, for ``--json``: recipes with their stages and totals, and the total of them all, shared stages once."""
    recipes, every = [], []
    for plan in plans:
        estimates = estimate(plan.jobs, store, device)
        every += estimates
        arms: dict[str, list[dict[str, str]]] = {}
        for point in plan.points:
            arms.setdefault(point["key"], []).append(point["arm"])
        stages = [_stage(one, arms[one.job.key]) for one in estimates]
        recipes.append({"recipe": plan.recipe.name, **_totals(estimates), "stages": stages})
    return {"device": device, "recipes": recipes, "total": _totals(every)}


def recipe_table(about: dict[str, Any]) -> tuple[str, list[str], list[list[str]], str]:
    """Title, header, lines and note of one recipe's plan."""
    header = ["stage", "seed", "of", "steps", "state", "key"]
    lines = [
        [
            one["stage"],
            str(one["seed"]),
            _arms(one["arms"]),
            f"{one['steps']:,}" if one["steps"] else "",
            _state(one),
            one["key"],
        ]
        for one in about["stages"]
    ]
    left = about["stages_left"]
    title = f"{about['recipe']}: {len(lines)} stages, {left} to run" + (f", {about['left']}" if left else "")
    return title, header, lines, NOTE


def study_table(whole: dict[str, Any]) -> tuple[str, list[str], list[list[str]], str]:
    """Title, header, lines and note of a study: a line a recipe, and their total."""
    header = ["recipe", "stages", "done", "steps to run", f"time on this {whole['device']}"]
    lines = [_line(about["recipe"], about) for about in whole["recipes"]]
    lines.append(_line("together, shared stages once", whole["total"]))
    more = f" {whole['total']['unknown']} stages have a rate that is not known; --measure finds it in 20 steps each."
    return "The study", header, lines, NOTE + (more if whole["total"]["unknown"] else "")


def _line(name: str, about: dict[str, Any]) -> list[str]:
    return [name, f"{about['stage_count']:,}", f"{about['done']:,}", f"{about['steps_left']:,}", about["left"]]


def _totals(estimates: Sequence[Estimate]) -> dict[str, Any]:
    sums = total(estimates)
    return {**dataclasses.asdict(sums), "left": sums.left}


def _stage(one: Estimate, arms: list[dict[str, str]]) -> dict[str, Any]:
    job = one.job
    about = {"stage": job.name, "kind": job.kind, "seed": job.seed, "key": job.key, "arms": arms}
    return {**about, "done": one.done, "steps": one.steps, "seconds": one.seconds}


def _arms(arms: list[dict[str, str]]) -> str:
    return "; ".join(dict.fromkeys(", ".join(arm.values()) for arm in arms))


def _state(one: dict[str, Any]) -> str:
    if one["done"]:
        return f"done ({duration(one['seconds'])})"
    return "to run" if one["seconds"] is None else f"to run, {duration(one['seconds'])}"
