"""``trainflat run``: a recipe, to its report."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainflat.cli.asked import Asked
from trainflat.cli.options import (
    DEFAULT_STORE,
    AsJson,
    DataPath,
    Debug,
    DeviceName,
    Overrides,
    RecipeName,
    Seeds,
    Smoke,
    StorePath,
)
from trainflat.cli.printing import print_json
from trainflat.cli.report import report_run

__all__ = ["run"]


def run(
    recipe: RecipeName,
    store: StorePath = DEFAULT_STORE,
    seeds: Seeds = None,
    overrides: Overrides = None,
    smoke: Smoke = False,
    data: DataPath = None,
    device: DeviceName = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads; 0 leaves torch's choice.")] = 0,
    on: Annotated[
        str | None,
        typer.Option(help="ray: a worker a core of this machine; ray:HOST:PORT, ray://HOST:PORT: a cluster."),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Whether to wait for stages that other runs with this store are at."),
    ] = True,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a recipe: what is done is found again, what was interrupted goes on, and a report is written."""
    if threads < 0:
        raise ValueError(f"--threads takes a number of threads, or 0 for torch's choice; got {threads}")
    asked = Asked(recipe, seeds, overrides or [], smoke, data)
    planned = asked.plan()
    from trainflat.experiments import cluster, progress, runner
    from trainflat.experiments.store import Store

    if threads and not on:
        import torch

        torch.set_num_threads(threads)
    kept = Store(store)
    with progress.shown(planned, to=sys.stderr if as_json else sys.stdout) as say:
        about = {"command": asked.command(), "smoke": smoke}
        if on:
            print(f"Asking the machines of {cluster.address(on)} …", file=sys.stderr)  # may take a quarter of a minute
            cluster.run(planned, kept, on=on, say=say, device=device, threads=threads, **about)
        else:
            runner.run(planned, kept, say=say, device=device, wait=wait, **about)
    if not wait and any(kept.done(job.key) is None for job in planned.jobs):
        print("All that is left is at work in other runs; the last one writes the report.", file=sys.stderr)
        if as_json:
            name = planned.recipe.name
            print_json({"recipe": name, "rows": kept.rows(kept.read_run(name)), "report": None})
        return
    report_run(kept, planned.recipe.name, as_json)
