"""What of the paper has been run: its tables and figures, the run that each is told with, and how much of each there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainflat.reports.numbers import MISSING
from trainflat.reports.paper import effects
from trainflat.reports.paper.reference import reference
from trainflat.reports.paper.transfer import maps
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.tables import Table

__all__ = ["Run", "in_order", "overview", "told_with"]


@dataclass(frozen=True)
class Run:
    """One run of a recipe: its rows so far and its header, whose ``stages`` are ``{"done": 3, "of": 8}``."""

    rows: Sequence[Row]
    header: Mapping[str, Any]

    @cached_property
    def data(self) -> Results:
        """The rows, checked and grouped."""
        return results(self.rows)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.header.get("name") or "unnamed")

    @property
    def short(self) -> str:
        """The name without its group."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class _Entry:
    """A table, the maps, or a figure of the paper, and how many of its numbers ours have."""

    key: str
    title: str
    recipes: tuple[str, ...]
    wanted: int = 0


def overview(runs: Sequence[Run]) -> Table:
    """Every table and figure of the paper: whether it has been run, with which seeds, model and data.

    Example:
        >>> from trainflat.reports.paper.example_paper import paper_header, paper_rows
        >>> table = overview([Run(paper_rows("table8-int8"), paper_header("table8-int8"))])
        >>> [row[2:] for row in table.rows if row[0] == "Table 8"]
        [('partly', '16 of 36', '0, 1, 2', 'MiniLM (stand-in)', 'whole', 'paper/table8-int8')]
    """
    found = []
    for entry in _entries():
        run = _home(entry.recipes, runs)
        recipe = run.name if run else next(iter(entry.recipes), "no recipe")
        have = _have(entry, run) if run else 0
        tasks = len({row["task"] for row in run.rows}) if run else 0
        cells = (
            f"{have} of {entry.wanted}" if entry.wanted else f"{tasks} task{'s' * (tasks != 1)}" if tasks else MISSING
        )
        found.append((entry.key, entry.title, _state(entry, run, have), cells, *_what(run), recipe))
    known = {row[-1] for row in found}
    found += [(MISSING, "", _state(None, r, 0), MISSING, *_what(r), r.name) for r in runs if r.name not in known]
    header = ("paper", "of what", "state", "numbers", "seeds", "model", "data", "recipe")
    title = "What of the paper has been run; how many of its numbers have a counterpart of ours"
    return Table(title, header, tuple(found), names=2)


def in_order(runs: Sequence[Run]) -> list[Run]:
    """In the order of what they are about; others after these."""
    homes = [entry.recipes[0] for entry in _entries() if entry.recipes]
    return sorted(
        runs, key=lambda run: [effects.same_recipe(home, run.name) for home in [*homes, run.name]].index(True)
    )


def told_with(run: Run, runs: Sequence[Run]) -> set[str]:
    """The tables that are told with this run, so that two runs that share stages tell none twice; a smoke run tells nothing."""
    if run.header.get("smoke"):
        return set()
    keys = {table.key for table in reference().tables if _home(table.recipes, runs) is run}
    return {*keys, "maps"}


def _entries() -> list[_Entry]:
    known = reference()
    tables = [
        _Entry(t.name, t.title.partition(": ")[2], t.recipes, sum(bool(c.variant) for c in t.cells.values()))
        for t in known.tables
    ]
    of_maps = _Entry("Figures 4 and 13", "Transfer maps", known.maps[0].recipes, sum(len(m.values) for m in known.maps))
    return [*tables, of_maps, *(_Entry(d.key.capitalize(), d.title, d.recipes) for d in known.drawn)]


def _home(recipes: Iterable[str], runs: Sequence[Run]) -> Run | None:
    """The run that an entry is told with: the first of its recipes that has rows, else that was begun."""
    found = [run for recipe in recipes for run in runs if effects.same_recipe(recipe, run.name)]
    return next((run for run in found if run.rows), next(iter(found), None))


def _have(entry: _Entry, run: Run) -> int:
    """How many of an entry's numbers have a counterpart."""
    if not run.rows or not entry.wanted:
        return 0
    if table := next((t for t in reference().tables if t.name == entry.key), None):
        return len({(level.cell.row, level.cell.column) for level in effects.levels(run.data, table)})
    paper_values = {m.key: m.values for m in reference().maps}
    return len({(m.key, at) for m in maps(run.data) for at in m.values if at in paper_values[m.key]})


def _state(entry: _Entry | None, run: Run | None, have: int) -> str:
    if run is None:
        return "not run" if entry and entry.recipes else "no recipe"
    if run.header.get("smoke"):
        return "smoke only"
    stages, changed = run.header.get("stages") or {}, ", changed" if run.header.get("changed") else ""
    if stages and stages["done"] < stages["of"]:
        return f"partly: {stages['done']} of {stages['of']} stages{changed}"
    if entry and entry.wanted and have < entry.wanted:
        return f"{'partly' if have else 'run on other tasks'}{changed}"
    return f"run{changed}"


def _what(run: Run | None) -> tuple[str, str, str]:
    """Seeds, model and data of a run."""
    if run is None or not run.rows:
        return MISSING, MISSING, MISSING
    of = list(dict.fromkeys(effects.origin(row, row["arm"]) for row in run.rows if row.get("model")))
    models = dict.fromkeys(origin.model for origin in of)
    own = reference().model
    called = [effects.MODELS.get(m, m) + ("" if m == own else " (stand-in)") for m in models]
    words = {True: "whole", False: "not whole", None: "not recorded"}
    data = dict.fromkeys(words[origin.official] for origin in of)
    return ", ".join(map(str, run.data.seeds())), ", ".join(called) or MISSING, ", ".join(data) or MISSING
