"""Our rows beside the paper's numbers: how far apart they are, and which of its effects we see.

Two things that must not be confused: rows of the paper's model on the whole of its data, whose difference from the paper is a
replication's, and rows of a stand-in (another model, a part of the data, another setting), whose difference says only how unlike
they are. What a stand-in can answer is whether the paper's *effect*, one arm over another, is there as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainflat.reports.paper.reference import Cell, Effect, PaperTable, reference
from trainflat.reports.rows import Results, Row
from trainflat.reports.stats import Difference, Summary, between, combination, compare, summary

__all__ = ["Argument", "Level", "Origin", "arguments", "concerned", "judged", "levels", "origin", "same_recipe"]

MODELS = {
    "bert-base-uncased": "BERT-base",
    "bert-large-uncased": "BERT-large",
    "roberta-base": "RoBERTa-base",
    "minilm": "MiniLM",
}
NAMING = ("task", "target")  # axes that say which task it is
CLOSE = 5e-3  # a mask has whole weights, and a structured one whole neurons: sparsities are met, not hit


@dataclass(frozen=True)
class Origin:
    """What measured rows are of.

    Attributes:
        model: As the rows name it.
        official: Whether the data is whole; None if the rows do not say.
        variation: Labels of axes that the paper does not have, and the options that changed its recipe: such rows are a variation
            of it.
    """

    model: str
    official: bool | None
    variation: tuple[str, ...] = ()

    @property
    def paper(self) -> bool:
        """Whether model, data and settings are the paper's."""
        return self.model == reference().model and self.official is True and not self.variation

    @property
    def kind(self) -> str:
        """In one word."""
        return "ours" if self.paper else "stand-in"

    def __str__(self) -> str:
        """
        >>> str(Origin("minilm", True)), str(Origin("bert-base-uncased", None))
        ('MiniLM, data whole', 'BERT-base, data not recorded')
        """
        data = {True: "data whole", False: "data not whole", None: "data not recorded"}[self.official]
        return ", ".join([MODELS.get(self.model, self.model), data, *self.variation])


@dataclass(frozen=True)
class Level:
    """One number of the paper and the same of ours, by seed, as shares."""

    cell: Cell
    origin: Origin
    values: Mapping[Any, float]

    @property
    def difference(self) -> Difference:
        """Ours minus the paper's; without interval where either has no s.d."""
        return between(self.cell.share, summary(self.values.values()))


@dataclass(frozen=True)
class Argument:
    """An effect that the paper reports, and the same of ours.

    Attributes:
        effect: Which arm over which.
        what: Between which rows of the table.
        column: The task; or over how many it is the mean.
        origin: What ours are of.
        paper: The paper's effect; Welch's interval, as the paper pairs nothing.
        ours: Ours, paired over seeds where they are shared.
        notes: Footnotes of either cell.
    """

    effect: Effect
    what: str
    column: str
    origin: Origin
    paper: Difference
    ours: Difference
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "seen" if our interval excludes 0 on the paper's side, "opposite" if on the other; else "cannot tell"."""
        return judged(self.paper.mean, self.ours)

    @property
    def mean(self) -> bool:
        """Whether it is the mean over tasks."""
        return self.column.startswith("mean of")


def judged(paper: float, ours: Difference) -> str:
    """Whether ours shows an effect of the paper's sign.

    >>> judged(0.02, Difference(0.01, 0.005, 0.015, 3, "paired")), judged(-0.02, Difference(0.01, 0.005, 0.015, 3, "paired"))
    ('seen', 'opposite')
    """
    if abs(paper) < 1e-9:
        return "none in the paper"
    if ours.verdict == "cannot tell":
        return "cannot tell"
    return "seen" if ours.mean * paper > 0 else "opposite"


def same_recipe(one: str, other: str) -> bool:
    """Whether two recipes are one study's, whoever's: paper/table1-imp and mylab/table1-imp.

    >>> same_recipe("paper/table1-imp", "mylab/table1-imp"), same_recipe("paper/table1-imp", "paper/fig9-std")
    (True, False)
    """
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def concerned(recipes: Iterable[str]) -> list[PaperTable]:
    """The tables that these recipes are about."""
    recipes = list(recipes)
    return [t for t in reference().tables if any(same_recipe(a, b) for a in recipes for b in t.recipes)]


def levels(data: Results, table: PaperTable) -> list[Level]:
    """Every number of the table that rows of ours correspond to, once for each origin of these rows.

    Example:
        >>> from trainflat.reports import results
        >>> row = {"task": "rte", "variant": "dense", "seed": 0, "arm": {"optimizer": "SAM"}, "model": "minilm", "official": True}
        >>> [level] = levels(results([{**row, "metrics": {"accuracy": 0.7}}]), reference().tables[1])
        >>> str(level.cell), level.origin.kind, level.difference.low is None          # one seed: no interval
        ('67.0 ± 0.8', 'stand-in', True)
    """
    by_point: dict[tuple[str, str], list[Row]] = {}
    for row in data.rows:
        by_point.setdefault((row["task"], row["variant"]), []).append(row)
    found = []
    for cell in table.cells.values():
        values: dict[Origin, dict[Any, float]] = {}
        for row in by_point.get((cell.task, cell.variant), ()):
            if (value := _value(row, cell)) is not None:
                values.setdefault(origin(row, cell.labels), {}).setdefault(row["seed"], value)
        found += [Level(cell, of, by_seed) for of, by_seed in values.items()]
    return found


def origin(row: Row, labels: Iterable[str]) -> Origin:
    """What a row is of; ``labels`` are the axes that the paper has.

    Example:
        >>> row = {"arm": {"optimizer": "SAM"}, "model": "bert-base-uncased", "official": True}
        >>> origin(row, ["optimizer"]).paper, origin({**row, "changed": "--set imp.epochs=3"}, ["optimizer"]).paper
        (True, False)
    """
    rest = tuple(str(label) for axis, label in row["arm"].items() if axis not in (*NAMING, *labels))
    changed = (str(row["changed"]),) if row.get("changed") else ()
    return Origin(str(row.get("model") or "unnamed model"), row.get("official"), (*rest, *changed))


def arguments(found: Sequence[Level], table: PaperTable) -> list[Argument]:
    """The table's effects, each on every task that ours have, and then the mean over these tasks.

    The mean is one number a seed, of the seeds that have all tasks; tasks whose columns are a second metric do not count
    twice. There is none for sharpness, which has a scale of its own on every task.
    """
    at = {(level.cell.row, level.cell.column, level.origin): level for level in found}
    answers = []
    for effect in table.effects:
        for above, below in _pairs(table, effect):
            for of in dict.fromkeys(level.origin for level in found):
                both = [
                    (at[above, column, of], at[below, column, of])
                    for column in dict.fromkeys(column for _, column in table.cells)
                    if (above, column, of) in at and (below, column, of) in at
                ]
                what = f"{_bracketed(above)} − {_bracketed(below)}"
                answers += [_single(effect, what, of, *pair) for pair in both]
                tasks = [pair for pair in both if pair[0].cell.column == pair[0].cell.task]
                if len(tasks) > 1 and table.unit == "points":
                    answers += _mean(effect, what, of, tasks)
    return answers


def _single(effect: Effect, what: str, of: Origin, above: Level, below: Level) -> Argument:
    paper = between(below.cell.share, above.cell.share)
    paper = Difference(round(paper.mean, 9), paper.low, paper.high, paper.n, paper.method)
    notes = tuple(dict.fromkeys([*above.cell.notes, *below.cell.notes]))
    return Argument(effect, what, above.cell.column, of, paper, compare(below.values, above.values), notes)


def _mean(effect: Effect, what: str, of: Origin, pairs: Sequence[tuple[Level, Level]]) -> list[Argument]:
    seeds = set.intersection(*(set(level.values) for pair in pairs for level in pair))
    if not seeds:
        return []
    share = 1 / len(pairs)
    terms: list[tuple[float, Summary]] = [(share, above.cell.share) for above, _ in pairs]
    paper = combination([*terms, *((-share, below.cell.share) for _, below in pairs)])
    sides = [{seed: share * sum(pair[i].values[seed] for pair in pairs) for seed in sorted(seeds)} for i in (0, 1)]
    return [Argument(effect, what, f"mean of {len(pairs)}", of, paper, compare(sides[1], sides[0]))]


def _pairs(table: PaperTable, effect: Effect) -> list[tuple[str, str]]:
    """Rows of the table that differ in the effect's axis alone."""
    arms: dict[tuple, dict[str, str]] = {}
    for cell in table.cells.values():
        if cell.variant and effect.axis in cell.labels:
            fixed = sorted((axis, label) for axis, label in cell.labels.items() if axis != effect.axis)
            point = (cell.column, cell.variant, cell.sparsity, cell.metric, *fixed)
            arms.setdefault(point, {})[cell.labels[effect.axis]] = cell.row
    found = [
        (rows[effect.arm], rows[effect.over]) for rows in arms.values() if {effect.arm, effect.over} <= rows.keys()
    ]
    return list(dict.fromkeys(found))


def _bracketed(row: str) -> str:
    return f"({row})" if "→" in row else row


def _value(row: Row, cell: Cell) -> float | None:
    """What a row says about a cell, as a share; None if it is about something else."""
    elsewhere = abs(float(row.get("sparsity") or 0.0) - cell.sparsity) > CLOSE
    if elsewhere or any(str(row["arm"].get(axis)) != label for axis, label in cell.labels.items()):
        return None
    if (phi := row.get("sharpness", {}).get(cell.metric)) is not None:
        return phi / 100  # the measure is a percentage
    value = row.get("metrics", {}).get(cell.metric)
    return row.get("value") if value is None and row.get("metric") == cell.metric else value
