"""Run all that a search tries, as stages of a store: stopped, it goes on; asked for more, it repeats nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainflat.deploy.command import wishing
from trainflat.deploy.smaller import Smaller
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.runner import Say
from trainflat.experiments.store import Store
from trainflat.experiments.trials import Trials
from trainflat.reports.front.pareto import check_wish

__all__ = ["planned", "search"]


def planned(trials: Trials, store: Store) -> planning.Plan:
    """The plan of a search; its recipe is written into the store, from where anybody can run, change and extend it.

    Raises:
        ValueError, LookupError, FileNotFoundError: If something in it cannot be, the data for instance.
    """
    path = store.root / "recipes" / f"{trials.name}.toml"
    aside = path.with_name(f".{path.name}")  # what was there stays until the new one is known to be sound
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        aside.write_text(trials.recipe(), encoding="utf-8")
        plan = planning.plan(read(str(aside)))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return plan


def search(
    trials: Trials,
    store: str | Path | Store = ".trainflat",
    *,
    plan: planning.Plan | None = None,
    say: Say = lambda event, job, about: None,
    device: str = "auto",
    command: Sequence[str] = (),
    **wanted: Any,
) -> Smaller:
    """Try everything, and choose.

    Args:
        trials: What to try.
        store: Where every stage's result is kept.
        plan: As `planned` made it. Default: it is made here.
        say: Told what happens, as `trainflat.experiments.runner.run` tells.
        device: "auto", "cpu" or "cuda".
        command: The words of the command that makes this search, without a wish; see `trainflat.deploy.command`. Default: the
            recipe is run.
        wanted: ``budget_ms``, ``budget_mb``, ``max_drop`` (points), ``by``: see `trainflat.reports.front.pareto.choose`; or
            ``offer``, the name of one.

    Raises:
        ValueError, LookupError, FileNotFoundError: As `planned`, before anything runs.
    """
    check_wish(**{name: value for name, value in wanted.items() if name != "offer" and value is not None})
    kept = store if isinstance(store, Store) else Store(store)
    plan = plan or planned(trials, kept)
    whole = shlex.join([*command, *wishing(wanted)]) if command else f"trainflat run {trials.name}.toml"
    document = runner.run(plan, kept, say=say, device=device, command=whole)
    return Smaller(plan, kept, document, recipe=trials.recipe(), command=command, **wanted)
