"""Tickets of one task on another: signed maps of differences, source by target, and tests of their means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from trainflat.reports.paper.effects import Origin, origin
from trainflat.reports.paper.reference import PaperMap, reference
from trainflat.reports.rows import Results
from trainflat.reports.stats import Difference, paired

__all__ = ["Map", "argued", "cells_of", "maps", "margins", "papers"]

At = tuple[str, str]  # source, target


@dataclass(frozen=True)
class Map:
    """Differences of a metric, as shares, by (source, target).

    Attributes:
        key: "A" to "D", as in paper.toml.
        title: Of what it is the difference.
        sources: The rows.
        targets: The columns.
        values: The mean over seeds of each cell.
        seeds: Each cell by seed; empty for the paper's, whose seeds are not known.
        origin: What it is of; None for the paper's own.
        averages: The mean of each row where it was printed, from cells with more decimals.
    """

    key: str
    title: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: Mapping[At, float]
    seeds: Mapping[At, Mapping[Any, float]]
    origin: Origin | None = None
    averages: Mapping[str, float] = field(default_factory=dict)

    def row(self, source: str) -> float | None:
        """The mean of a row: as printed, else of its cells."""
        return self.averages.get(source, self.mean((source, target) for target in self.targets))

    def mean(self, cells: Iterable[At]) -> float | None:
        """The mean of those of the cells that there are."""
        found = [self.values[at] for at in cells if at in self.values]
        return fmean(found) if found else None

    def test(self, cells: Iterable[At]) -> Difference | None:
        """The mean over cells with its interval over seeds: one number a seed, of the seeds that have all of the cells.

        Student's t with n - 1 degrees of freedom; one seed has no interval. None if no seed has them all.
        """
        present = [at for at in cells if at in self.values]
        shared = set.intersection(*(set(self.seeds.get(at, ())) for at in present)) if present else set()
        means = {seed: fmean(self.seeds[at][seed] for at in present) for seed in sorted(shared)}
        return paired(dict.fromkeys(means, 0.0), means) if means else None


def papers() -> dict[str, Map]:
    """The paper's four maps.

    Example:
        >>> a = papers()["A"]
        >>> [round(100 * a.mean(cells_of(a)[name]), 2) for name in ("all cells", "the diagonal", "off the diagonal")]
        [0.58, 1.55, 0.44]
    """
    return {m.key: _shares(m) for m in reference().maps}


def _shares(m: PaperMap) -> Map:
    values = {at: value / 100 for at, value in m.values.items()}
    averages = {source: value / 100 for source, value in m.averages.items()}
    return Map(m.key, m.title, m.tasks, m.tasks, values, {}, averages=averages)


def maps(data: Results) -> list[Map]:
    """Ours, as far as rows of tickets have a source, a target, a mask and a final optimizer; one set for each model.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> [(m.key, len(m.values), m.origin.kind) for m in maps(results(paper_rows("fig13-transfer")))][:2]
        [('A', 16, 'stand-in'), ('B', 16, 'stand-in')]
    """
    values: dict[tuple, dict[Any, float]] = {}
    whole: dict[tuple, set[bool | None]] = {}
    for row in data.rows:
        arm = row["arm"]
        if (
            row["variant"] == "ticket"
            and row.get("value") is not None
            and {"source", "target", "mask", "final"} <= arm.keys()
        ):
            of = origin(row, ("source", "mask", "final"))
            whole.setdefault((of.model, of.variation), set()).add(of.official)
            at = (of.model, of.variation, str(arm["mask"]), str(arm["final"]), str(arm["source"]), str(arm["target"]))
            values.setdefault(at, {}).setdefault(row["seed"], float(row["value"]))
    found = []
    for (model, variation), official in whole.items():
        official_all = official.pop() if len(official) == 1 else False
        of = Origin(model, official_all, variation)
        found += [_ours(m, values, of) for m in reference().maps]
    return [m for m in found if m.values]


def _ours(m: PaperMap, values: Mapping[tuple, Mapping[Any, float]], of: Origin) -> Map:
    seeds: dict[At, dict[Any, float]] = {}
    for at, above in values.items():
        labels, cell = {"mask": at[2], "final": at[3]}, (at[4], at[5])
        wanted = {**m.fixed, m.effect.axis: m.effect.arm}
        if at[:2] == (of.model, of.variation) and labels == wanted:
            other = {**labels, m.effect.axis: m.effect.over}
            below = values.get((*at[:2], other["mask"], other["final"], *cell), {})
            if shared := {seed: above[seed] - below[seed] for seed in above if seed in below}:
                seeds[cell] = shared
    sources, targets = (_ordered(cell[i] for cell in seeds) for i in (0, 1))
    return Map(m.key, m.title, sources, targets, {at: fmean(by.values()) for at, by in seeds.items()}, seeds, of)


def _ordered(tasks: Iterable[str]) -> tuple[str, ...]:
    """In the paper's order, others after these."""
    known = reference().maps[0].tasks
    found = list(dict.fromkeys(tasks))
    return (*(task for task in known if task in found), *(task for task in found if task not in known))


def margins(m: Map) -> dict[str, list[At]]:
    """The cells of every row and column by a reader's name for it.

    >>> list(margins(papers()["A"]))[7:9]
    ['tickets of cola', 'onto mnli']
    """
    rows = {f"tickets of {s}": [(s, t) for t in m.targets if (s, t) in m.values] for s in m.sources}
    columns = {f"onto {t}": [(s, t) for s in m.sources if (s, t) in m.values] for t in m.targets}
    return {**rows, **columns}


def cells_of(m: Map) -> dict[str, list[At]]:
    """All cells, those of a task's ticket on the task itself, and the others, which alone are transfer."""
    own, others = ([at for at in m.values if (at[0] == at[1]) is same] for same in (True, False))
    return {"all cells": list(m.values), "the diagonal": own, "off the diagonal": others}


def argued(m: Map) -> tuple[str, list[At]]:
    """The cells that a map argues with and what they are called: off the diagonal, which alone is transfer, or else on it."""
    cells = cells_of(m)
    name = "off the diagonal" if cells["off the diagonal"] else "the diagonal"
    return name, cells[name]
