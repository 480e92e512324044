"""From rows to tables: what each arm keeps, and by how much the arms differ.

Values are points, a metric times 100. A table is plain text in rows and columns; `markdown`, `text` and `html` write it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from trainflat.reports.numbers import MISSING, Show, bounds, counted, percent, plus_minus, points, signed
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.stats import Difference, compare, means

__all__ = [
    "MANY",
    "Table",
    "against_dense",
    "arm_under_arm",
    "axis",
    "curve",
    "difference",
    "differences",
    "every",
    "metrics",
    "others",
    "pairing",
    "pairs",
    "thin",
    "without_repetition",
]

V = TypeVar("V")
MOST = 6  # columns of sparsities that a table shows
MANY = 8
"""Arms that are still set against each other one by one; a figure tells so many curves apart."""

OWN_UNIT = ("rmse", "mae")  # errors, in the unit of what is predicted
SCALE = "mean ± s.d. over seeds, in points (metric × 100)"
ALONE = "Each interval stands for itself: no correction for multiplicity."


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        title: What it shows, then after a semicolon what its numbers are.
        header: One label a column.
        rows: The cells.
        task: The task that it is about; empty if about all.
        names: How many leading columns hold names; the others hold numbers.
        note: What has to be said about it.
        differences: One for each row where rows are differences, for drawing; None where there is nothing to draw.
        others: What is drawn beneath each difference, such as another's; None for nothing.
        verdicts: What each difference means where its sign alone does not say: "better", "worse" or "cannot tell".
        kind: Words for the style sheet: "stand-in".
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    task: str = ""
    names: int = 1
    note: str = ""
    differences: tuple[Difference | None, ...] = field(default=(), repr=False)
    others: tuple[Difference | None, ...] = field(default=(), repr=False)
    verdicts: tuple[str, ...] = ()
    kind: str = ""

    @property
    def heading(self) -> str:
        """The title for a table that stands alone: with its task."""
        return f"{self.task}: {self.title}" if self.task else self.title


def every(rows: Iterable[Row] | Results) -> list[Table]:
    """All tables about what the models can do, task by task; `trainflat.reports.cost` has those about what they took.

    Example:
        >>> from trainflat.reports.example import rows
        >>> len(every(rows())), every(rows())[1].header
        (10, ('optimizer', 'dense', '10 %', '30 %', '40 %', '60 %', '70 %', '90 %'))
    """
    data = results(rows)
    tables: list[Table | None] = []
    for task in data.tasks:
        tables += [others(data, task)]
        tables += [curve(data, task, variant) for variant in data.curves(task)]
        tables += [differences(data, task, first, second) for first, second in pairs(data.arms)]
        tables += [metrics(data, task)]
    return [table for table in tables if table is not None]


def curve(data: Results, task: str, variant: str) -> Table | None:
    """One row an arm, dense and up to six of the sparsities at which a variant was measured."""
    columns = [("dense", 0.0), *((variant, sparsity) for sparsity in thin(data.sparsities(task, variant)))]
    header = ["dense", *(percent(sparsity) for _, sparsity in columns[1:])]
    return _by_arm(data, task, "One-shot pruning" if variant == "pruned" else data.family(variant), columns, header)


def others(data: Results, task: str) -> Table | None:
    """One row an arm: dense, and every variant that is no curve (int8, say) with its change against the same seed's dense."""
    measured = [point for point in data.points(task) if point[0] not in data.curves(task) and point[0] != "dense"]
    table = _by_arm(data, task, "Dense and quantized" if measured else "Dense", [("dense", 0.0), *measured])
    if table is None or not measured:
        return table
    header, lines = list(table.header[:2]), [list(line[:2]) for line in table.rows]
    for column, (variant, sparsity) in enumerate(measured, start=2):
        header += [table.header[column], "change"]
        for line, full in zip(lines, table.rows, strict=True):
            dense = data.values(task, full[0], "dense", 0.0)
            after = data.values(task, full[0], variant, sparsity)
            line += [full[column], against_dense(dense, after)]
    return Table(table.title, tuple(header), tuple(map(tuple, lines)), task)


def against_dense(dense: Mapping[Any, float], after: Mapping[Any, float]) -> str:
    """What became of the same seeds' dense models: the mean difference with its spread, in points."""
    changes = [after[seed] - dense[seed] for seed in after if seed in dense]
    return plus_minus(changes, signed, points) if changes else MISSING


def metrics(data: Results, task: str) -> Table | None:
    """Every metric of the dense models, where a task has more than one."""
    found: dict[str, dict[str, dict[Any, float]]] = {arm: {} for arm in data.arms}
    for row in data.rows:
        if data.task(row) == task and data.variant(row) == "dense":
            for name, value in row.get("metrics", {}).items():
                found[data.arm(row)].setdefault(name, {}).setdefault(row["seed"], value)
    names = list(dict.fromkeys(name for of_arm in found.values() for name in of_arm))
    if len(names) < 2:
        return None
    lines = [
        (arm, *(plus_minus(of[name].values(), _shown(name)) if name in of else MISSING for name in names))
        for arm, of in found.items()
        if of
    ]
    own = [name for name in names if name in OWN_UNIT]
    unit = f"; {' and '.join(own)} in the labels' unit" if own else ""
    return Table(f"All metrics, dense; {SCALE}{unit}", (axis(data), *names), tuple(lines), task)


def pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are set against each other, the reference first: all pairs of up to three, else each against the first; more
    than `MANY` are told in a table of their own, see `trainflat.reports.family`.

    >>> pairs(["Adam", "SAM", "Adam 2x"])
    [('Adam', 'SAM'), ('Adam', 'Adam 2x'), ('SAM', 'Adam 2x')]
    """
    if len(arms) > MANY:
        return []
    return [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :] if i == 0 or len(arms) <= 3]


def difference(data: Results, task: str, variant: str, sparsity: float, first: str, second: str) -> Difference | None:
    """Arm ``second`` minus arm ``first`` at one point; None if either was not measured there."""
    values = [data.values(task, arm, variant, sparsity) for arm in (first, second)]
    return compare(*values) if all(values) else None


def differences(data: Results, task: str, first: str, second: str) -> Table | None:
    """One row a point: both arms' means over the seeds compared, their difference with its 95 % interval, n, a plain word."""
    lines, found = [], []
    for variant, sparsity in data.points(task):
        if (d := difference(data, task, variant, sparsity, first, second)) is None:
            continue
        below, above = means(*(data.values(task, arm, variant, sparsity) for arm in (first, second)))
        shown = (points(above), points(below))
        lines.append((data.title(variant, sparsity), *shown, signed(d.mean), bounds(d), counted(d), d.verdict))
        found.append(d)
    if not lines:
        return None
    header = ("model", second, first, "difference", "95 % CI", "n", f"{second} is")
    return Table(f"{second} − {first}; in points, {pairing(found)}", header, tuple(lines), task, 1, ALONE, tuple(found))


def pairing(found: Iterable[Difference]) -> str:
    """How the differences of a table are found; see `trainflat.reports.numbers.counted`."""
    return "paired over seeds" if all(d.method == "paired" for d in found) else "paired over seeds unless marked"


def thin(values: Sequence[float], most: int = MOST) -> list[float]:
    """At most so many values, evenly chosen, first and last among them.

    >>> thin([0.1, 0.2, 0.3, 0.4, 0.5], most=3)
    [0.1, 0.3, 0.5]
    """
    if len(values) <= most:
        return list(values)
    return [values[i] for i in dict.fromkeys(np.linspace(0, len(values) - 1, most).round().astype(int).tolist())]


def _by_arm(
    data: Results, task: str, what: str, columns: Sequence[tuple[str, float]], header: Sequence[str] = ()
) -> Table | None:
    """One row an arm, one column a point; n in the title if it is the same everywhere, else in the cells."""
    columns_of = {arm: [list(data.values(task, arm, *point).values()) for point in columns] for arm in data.arms}
    columns_of = {arm: cells for arm, cells in columns_of.items() if any(cells)}
    if not columns_of:
        return None
    counts = {len(cell) for cells in columns_of.values() for cell in cells if cell}
    same = len(counts) == 1
    lines = [
        (arm, *((plus_minus(cell) + ("" if same else f" (n = {len(cell)})")) if cell else MISSING for cell in cells))
        for arm, cells in columns_of.items()
    ]
    title = f"{what}, {data.metric(task)}; {SCALE}" + (f", n = {counts.pop()}" if same else "")
    return Table(title, (axis(data), *(header or [data.title(*point) for point in columns])), tuple(lines), task)


def axis(data: Results) -> str:
    """What the column of arms is called."""
    return ", ".join(data.axes) or "arm"


def arm_under_arm(data: Results, found: Mapping[tuple[Any, ...], V]) -> dict[tuple[Any, ...], V]:
    """What was found by task, by what was done, by arm and more, in this order."""
    done = list(dict.fromkeys(key[1] for key in found))
    rank = lambda key: (data.tasks.index(key[0]), done.index(key[1]), data.arms.index(key[2]))
    return {key: found[key] for key in sorted(found, key=rank)}


def without_repetition(table: Table) -> Table:
    """A last column, of seeds or of where it was measured, that says the same in every row goes into the title."""
    title, header, lines = table.title, table.header, table.rows
    while header[-1] in ("seeds", "on") and len({line[-1] for line in lines}) == 1:
        title, header, lines = f"{title}, {lines[0][-1]}", header[:-1], tuple(line[:-1] for line in lines)
    return replace(table, title=title, header=header, rows=lines)


def _shown(metric: str) -> Show:
    """How a metric is written: in points, or as it is where it has a unit of its own."""
    return (lambda value: f"{value:.3g}") if metric in OWN_UNIT else points
