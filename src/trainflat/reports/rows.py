"""Rows are what a store hands out: one dict for each measured point. Here they are checked and grouped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from trainflat.reports.numbers import percent

__all__ = [
    "CURVES",
    "Results",
    "Row",
    "compared",
    "measured_at",
    "results",
    "sparsity_of",
    "unique",
    "without_stage",
]

T = TypeVar("T")
Row = Mapping[str, Any]

CURVES = ("pruned", "ticket", "imp", "std")
"""Variants that are drawn against sparsity however few points they have; others from two sparsities on."""

NAMES = {"pruned": "one-shot", "imp": "IMP", "std": "IMP without rewinding", "ticket": "ticket"}
NEEDED = ("task", "variant", "seed", "arm")


def unique(rows: Iterable[Row]) -> list[Row]:
    """The rows in their order without repetitions: same key, sparsity, variant and arm, and both a cost or neither.

    An axis called "sparsity" is left out of the arm: a row's own sparsity says it, and a dense model is that of all labels.

    Raises:
        ValueError: If there are no rows, or one lacks what every row has.
    """
    kept: dict[str, Row] = {}
    for number, row in enumerate(rows):
        missing = [name for name in NEEDED if name not in row]
        if missing or not isinstance(row["arm"], Mapping):
            what = f"no {missing[0]!r}" if missing else f"the arm {row['arm']!r}, which is not a table of labels"
            raise ValueError(f"row {number} of the results has {what}; every row needs {', '.join(NEEDED)}")
        if "sparsity" in row["arm"]:
            row = {**row, "arm": {axis: label for axis, label in row["arm"].items() if axis != "sparsity"}}
        same = [row.get("key", number), row.get("sparsity"), row["variant"], row["arm"], row["seed"], "cost" in row]
        kept.setdefault(json.dumps(same, sort_keys=True), row)
    if not kept:
        raise ValueError("there are no rows to report: no stage of this run is finished yet; run it, then report again")
    return list(kept.values())


def compared(rows: Iterable[Row]) -> tuple[str, ...]:
    """The axes of the sweep whose labels are set against each other: "optimizer" if there, else "mask" and "final" (who found a
    ticket, and who trains it) if both are, else all that do not name the task.

    An axis names the task if it is called so, or if no task has rows under two of its labels (as a sweep over "subset").

    Example:
        >>> compared([{"arm": {"task": "digits", "model": "small", "optimizer": "SAM"}}])
        ('optimizer',)
        >>> compared([{"arm": {"task": "digits", "gradient": "plain"}}])
        ('gradient',)
    """
    labels: dict[str, dict[Any, set[Any]]] = {}
    for row in rows:
        for axis, label in row["arm"].items():
            labels.setdefault(axis, {}).setdefault(label, set()).add(row.get("task"))
    if "optimizer" in labels:
        return ("optimizer",)
    if {"mask", "final"} <= labels.keys():
        return ("mask", "final")
    names = lambda tasks: len(tasks) > 1 and sum(map(len, tasks.values())) == len(set.union(*tasks.values()))
    return tuple(axis for axis, tasks in labels.items() if axis != "task" and not names(tasks))


def measured_at(row: Row) -> tuple[Any, ...] | None:
    """Batch, tokens (None where there are none), threads and device of a row with a cost; None for another row."""
    cost = row.get("cost")
    return tuple(cost.get(name) for name in ("batch", "length", "threads", "device")) if cost is not None else None


def sparsity_of(row: Row) -> float:
    """A row's sparsity up to rounding, so that the one that was asked for is the same for all; 0 where nothing was removed."""
    return round(float(row.get("sparsity") or 0.0), 4)


def without_stage(variant: str) -> str:
    """What was done: "pruned" of "pruned / again"."""
    return variant.partition(" / ")[0]


@dataclass(frozen=True)
class Results:
    """Rows in the order in which a report tells them: task by task, variant by variant, arm against arm.

    Attributes:
        rows: The rows, each once.
        tasks: What stands for itself: the task, with the labels on which it has alternatives that are not compared.
        arms: The labels that are compared, the first being the reference.
    """

    rows: list[Row]

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The compared axes."""
        return compared(self.rows)

    @cached_property
    def tasks(self) -> list[str]:
        """Every task, once."""
        return list(dict.fromkeys(self.task(row) for row in self.rows))

    @cached_property
    def arms(self) -> list[str]:
        """Every arm, once."""
        return list(dict.fromkeys(self.arm(row) for row in self.rows))

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def once(self, name: Any, make: Callable[[], T]) -> T:
        """What ``make()`` gives, or gave before under this name: page and files show the same drawings and tables."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def arm(self, row: Row) -> str:
        """The label under which a row is compared."""
        return ", ".join(str(row["arm"][axis]) for axis in self.axes if axis in row["arm"]) or "all"

    def task(self, row: Row) -> str:
        """The heading under which a row is told: the task, and the labels that tell its alternatives apart."""
        varying = self._varying[row["task"]]
        name = str(row["arm"].get("task", row["task"]) if "task" in varying else row["task"])
        named = {*self.axes, "task"}
        if {"source", "target"} <= row["arm"].keys():  # a ticket of one task, trained on another
            name, named = f"{name}, ticket of {row['arm']['source']}", {*named, "source", "target"}
        rest = [str(label) for axis, label in row["arm"].items() if axis in varying and axis not in named]
        return ", ".join([name, *rest])

    @cached_property
    def _varying(self) -> dict[str, set[str]]:
        """The axes on which a task has several labels, as two sizes of one model."""
        labels: dict[str, dict[str, set[Any]]] = {}
        for row in self.rows:
            of_task = labels.setdefault(row["task"], {})
            for axis, label in row["arm"].items():
                of_task.setdefault(axis, set()).add(label)
        return {task: {axis for axis, found in axes.items() if len(found) > 1} for task, axes in labels.items()}

    @cached_property
    def _ambiguous(self) -> set[tuple[str, bool]]:
        """Variants that two stages of one kind produced for the same point, such as two fine-tunings: told apart by stage."""
        seen: dict[tuple, set[Any]] = {}
        for row in self.rows:
            same = (
                self.task(row),
                self.arm(row),
                row["variant"],
                sparsity_of(row),
                row["seed"],
                row.get("kind"),
                measured_at(row),
            )
            seen.setdefault(same, set()).add(row.get("stage"))
        return {(same[2], same[-1] is not None) for same, stages in seen.items() if len(stages) > 1}

    def variant(self, row: Row) -> str:
        """What was done to the model, with the stage where two stages did the same."""
        told_apart = (row["variant"], "cost" in row) in self._ambiguous and row.get("stage")
        return f"{row['variant']} / {row['stage']}" if told_apart else row["variant"]

    @cached_property
    def _measured(self) -> dict[tuple[str, str, str, float], list[Row]]:
        """The rows with a value by task, arm, variant and sparsity."""
        table: dict[tuple[str, str, str, float], list[Row]] = {}
        for row in self.rows:
            if row.get("value") is not None:
                point = (self.task(row), self.arm(row), self.variant(row), sparsity_of(row))
                table.setdefault(point, []).append(row)
        return table

    @cached_property
    def _values(self) -> dict[tuple[str, str, str, float], dict[Any, float]]:
        table: dict[tuple[str, str, str, float], dict[Any, float]] = {}
        for point, rows in self._measured.items():
            for row in rows:
                table.setdefault(point, {}).setdefault(row["seed"], float(row["value"]))
        return table

    def values(self, task: str, arm: str, variant: str, sparsity: float) -> dict[Any, float]:
        """The main metric by seed; empty if it was not measured."""
        return self._values.get((task, arm, variant, sparsity), {})

    def shared(self, task: str, variant: str, sparsity: float, first: str, second: str) -> bool:
        """Whether two arms have the very same models there, found by one stage: then there is nothing to compare."""
        found = (self._measured.get((task, arm, variant, sparsity), [{}]) for arm in (first, second))
        keys, others = ({row.get("key") for row in rows} for rows in found)
        return keys == others and None not in keys

    @cached_property
    def spent(self) -> dict[tuple[str, str], list[float]]:
        """By task and arm, the forward-backward passes of each training of a dense model that says them."""
        table: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            if self.variant(row) == "dense" and "passes" in row:
                table.setdefault((self.task(row), self.arm(row)), []).append(float(row["passes"]))
        return table

    def sparsities(self, task: str, variant: str) -> list[float]:
        """The sparsities at which a variant was measured, rising."""
        return sorted({key[3] for key in self._values if (key[0], key[2]) == (task, variant)})

    def variants(self, task: str) -> list[str]:
        """What was done to the models of a task: "dense" first, then in the order of the rows."""
        found = list(dict.fromkeys(key[2] for key in self._values if key[0] == task))
        return sorted(found, key=lambda variant: without_stage(variant) != "dense")

    def curves(self, task: str) -> list[str]:
        """The variants to be drawn against sparsity."""
        return [v for v in self.variants(task) if without_stage(v) in CURVES or len(self.sparsities(task, v)) > 1]

    def points(self, task: str) -> list[tuple[str, float]]:
        """Every measured (variant, sparsity) of a task."""
        return [(variant, sparsity) for variant in self.variants(task) for sparsity in self.sparsities(task, variant)]

    def metric(self, task: str) -> str:
        """The name of a task's main metric."""
        return next((str(row["metric"]) for row in self.rows if self.task(row) == task and row.get("metric")), "metric")

    def seeds(self) -> list[Any]:
        """Every seed, once."""
        return sorted({row["seed"] for row in self.rows})

    @staticmethod
    def title(variant: str, sparsity: float = 0.0) -> str:
        """How a reader calls a point: "one-shot 60 %", "cofi 60 %, int8 per channel"."""
        name, _, stage = variant.partition(" / ")
        first, *more = name.split(", ")
        words = " / ".join(filter(None, [NAMES.get(first, first), stage]))
        if sparsity or name in CURVES:
            words += f" {percent(sparsity)}"
        return ", ".join([words, *more]).replace("_", " ")

    @staticmethod
    def family(variant: str) -> str:
        """How a reader calls a curve: "one-shot"."""
        return Results.title(variant, 0.5).replace(f" {percent(0.5)}", "", 1)


def results(rows: Iterable[Row] | Results) -> Results:
    """Rows checked, each once, ready for tables and curves."""
    return rows if isinstance(rows, Results) else Results(unique(rows))
