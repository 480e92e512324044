"""A recipe as it was asked for: the plan that it makes, and the commands that ask for the same again."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainflat.cli.options import parse_overrides, parse_seeds, read_data_from

if TYPE_CHECKING:
    from trainflat.experiments.plan import Plan

__all__ = ["Asked"]


@dataclass(frozen=True)
class Asked:
    """What `run` and `plan` are given alike, as it was typed."""

    recipe: str
    seeds: str | None = None
    overrides: list[str] = field(default_factory=list)
    smoke: bool = False
    data: Path | None = None

    def plan(self) -> Plan:
        """Its plan, checked; from now on this process reads its data from the folder that was given.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError, LookupError: As `trainflat.experiments.plan.plan`.
        """
        read_data_from(self.data)
        from trainflat.experiments import plan as planning
        from trainflat.experiments.recipe import read

        recipe = read(self.recipe)
        overrides = parse_overrides(self.overrides)
        seeds = None if self.seeds is None else parse_seeds(self.seeds)
        return planning.plan(recipe, overrides=overrides, seeds=seeds, smoke=self.smoke)

    def command(self) -> str:
        """The command without what cannot change a result: store, data folder, device, threads.

        Example:
            >>> Asked("quickstart", seeds="0-4", overrides=["train.steps=5"]).command()
            'trainflat run quickstart --seeds 0-4 --set train.steps=5'
        """
        seeds = ["--seeds", self.seeds] if self.seeds else []
        sets = [word for text in self.overrides for word in ("--set", text)]
        return shlex.join(["trainflat", "run", self.recipe, *seeds, *sets, *["--smoke"] * self.smoke])

    def everywhere(self, store: Path, device: str) -> list[str]:
        """The command that runs it on any machine that sees our folders, beside others that do the same."""
        recipe = str(Path(self.recipe).resolve()) if self.recipe.endswith(".toml") else self.recipe
        words = [sys.executable, "-m", "trainflat", *shlex.split(replace(self, recipe=recipe).command())[1:]]
        words += ["--store", str(store.resolve()), "--no-wait", "--device", device]
        return [*words, *(["--data", str(self.data.resolve())] if self.data else [])]
