"""``trainflat plan``: what a recipe, or a study, would cost, or the Slurm script that runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainflat.cli.asked import Asked
from trainflat.cli.options import (
    DEFAULT_STORE,
    AsJson,
    DataPath,
    Debug,
    DeviceName,
    Overrides,
    Seeds,
    Smoke,
    StorePath,
)
from trainflat.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from trainflat.experiments.plan import Plan
    from trainflat.experiments.store import Store

__all__ = ["plan"]


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe as for `run`, or a group of shipped ones, such as paper.")],
    store: StorePath = DEFAULT_STORE,
    seeds: Seeds = None,
    overrides: Overrides = None,
    smoke: Smoke = False,
    data: DataPath = None,
    measure: Annotated[bool, typer.Option(help="Train 20 steps of every setting whose rate is not known yet.")] = False,
    device: DeviceName = "auto",
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a Slurm array script that runs it.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a recipe, or a whole study, and say what is cached, what would run and how long, without running anything."""
    if slurm and as_json:
        raise ValueError("--slurm prints a script and --json a document; ask for one of them")
    from trainflat.experiments.recipe import group
    from trainflat.experiments.resolve import sentence

    every = [Asked(name, seeds, overrides or [], smoke, data) for name in group(recipe)]
    plans, wrong = [], []
    for asked in every:
        try:
            plans.append(asked.plan())
        except (LookupError, ValueError, OSError, ImportError) as error:
            if len(every) == 1:
                raise
            wrong.append(f"{asked.recipe} cannot be planned: {sentence(error)}")
    from trainflat.experiments import preview, runner
    from trainflat.experiments.store import Store

    if slurm:
        if wrong:
            raise LookupError("; ".join(wrong))
        _print_script(plans, plans[0].recipe.name if len(every) == 1 else recipe, every, store, device)
        return
    kept, where = Store(store), runner.pick_device(device)
    if measure:
        _measure(plans, kept, where)
    about = preview.document(plans, kept, where)
    if as_json:
        print_json(about if len(every) > 1 else about["recipes"][0])
    elif plans:
        print_table(*(preview.study_table(about) if len(every) > 1 else preview.recipe_table(about["recipes"][0])))
    for text in wrong:
        print(f"error: {text}", file=sys.stderr)
    if wrong:
        raise typer.Exit(2)


def _print_script(plans: Sequence[Plan], title: str, every: Sequence[Asked], store: Path, device: str) -> None:
    from trainflat.experiments import slurm
    from trainflat.experiments.store import Store

    commands = [asked.everywhere(store, device) for asked in every]
    print(slurm.script(title, commands, [job for one in plans for job in one.jobs], Store(store)), end="")


def _measure(plans: Sequence[Plan], kept: Store, where: str) -> None:
    """Train a little of what has no rate yet; the store remembers it."""
    from trainflat.experiments import estimate

    jobs = [job for planned in plans for job in planned.jobs]
    for job in estimate.missing(estimate.estimate(jobs, kept, where)):
        rate = estimate.measure(job, kept, where)
        print(f"{rate:.3f} s a step: {job.stage.task}, {job.stage.gradient}", file=sys.stderr)
