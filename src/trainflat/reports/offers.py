"""What can be had: every model whose metric and whose cost were both measured, at one setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from trainflat.reports.rows import Results, Row, measured_at, results
from trainflat.reports.stats import Summary, summary

__all__ = ["Offer", "Setting", "model", "offers", "setting", "stated"]

Setting = tuple[Any, ...]
"""Batch, tokens (or None), threads, device: what a latency was measured at."""

SIZES = ("sparsity_layers", "sparsity_cofi", "sparsity_total")


@dataclass(frozen=True)
class Offer:
    """One model that can be had: what was done to it, its metric over the seeds, and the median of its costs.

    Attributes:
        task: As a report heads it.
        arm: As a report compares it; "all" where nothing is compared.
        variant: What was done: "dense", "cofi, int8 per_channel".
        sparsity: The target; 0 if nothing was removed.
        values: The metric by seed, higher is better, never a percentage.
        latency: Milliseconds for one batch.
        parameters: How many.
        bytes: On disk.
        multiply_adds: Of one batch.
        sizes: ``sparsity_layers``, ``sparsity_cofi``, ``sparsity_total`` where the model was shrunk.
        made: ``recipe``, ``stage`` and ``command`` of the row that holds the metric, where it says them.
    """

    task: str
    arm: str
    variant: str
    sparsity: float
    values: dict[Any, float]
    latency: float
    parameters: float
    bytes: float
    multiply_adds: float
    sizes: dict[str, float] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)

    @cached_property
    def value(self) -> Summary:
        """The metric's mean and spread."""
        return summary(self.values.values())

    @property
    def name(self) -> str:
        """How a reader calls it: "cofi 60 %, int8 per channel from SAM"."""
        title = Results([]).title(self.variant, self.sparsity)
        return title if self.arm == "all" else f"{title} from {self.arm}"

    @property
    def way(self) -> str:
        """How it got smaller, int8 aside, as a reader calls it: "cofi", "one-shot"; "dense" if it did not."""
        return Results([]).family(self.variant.partition(", int8")[0].partition("int8")[0] or "dense")


def setting(rows: Iterable[Row] | Results) -> Setting | None:
    """The setting at which most models were measured, the smallest batch first; None if fewer than two were."""
    data = results(rows)
    found: dict[Setting, set[Any]] = {}
    for row in data.rows:
        if (at := measured_at(row)) is not None:
            found.setdefault(at, set()).add(model(data, row))
    best = max(found, key=lambda one: (len(found[one]), -one[0], one[1] or 0), default=None)
    return best if best is not None and len(found[best]) > 1 else None


def offers(rows: Iterable[Row] | Results, at: Setting | None = None) -> list[Offer]:
    """Every model whose metric and whose cost at a setting (default: `setting`'s) were both measured.

    Example:
        >>> from trainflat.reports.example import rows
        >>> [(offer.arm, offer.variant) for offer in offers(rows())][:3]
        [('Adam', 'dense'), ('Adam', 'int8 per_channel'), ('SAM', 'dense')]
    """
    data = results(rows)
    at = at or setting(data)
    measured: dict[tuple[str, str, str, float], list[Row]] = {}
    scored: dict[Any, Row] = {}
    for row in data.rows:
        if "cost" in row and measured_at(row) == at:
            measured.setdefault(model(data, row), []).append(row)
        elif row.get("value") is not None:
            scored.setdefault(model(data, row), row)
    found = []
    for key, of in measured.items():
        task, arm, variant, sparsity = key
        if values := data.values(task, arm, variant, sparsity):
            latency, parameters, size, work = (
                median(row["cost"][name] for row in of)
                for name in ("latency_ms", "parameters", "bytes", "multiply_adds")
            )
            sizes = {name: median(row[name] for row in of) for name in SIZES if all(name in row for row in of)}
            made = {name: str(scored[key][name]) for name in ("recipe", "stage", "command") if scored[key].get(name)}
            costs = (latency, parameters, size, work)
            found.append(Offer(task, arm, variant, sparsity, values, *costs, sizes, made))
    return sorted(found, key=lambda offer: (data.tasks.index(offer.task), data.arms.index(offer.arm), -offer.latency))


def model(data: Results, row: Row) -> tuple[str, str, str, float]:
    """Of which model a row is: task, arm, variant, sparsity."""
    return data.task(row), data.arm(row), row["variant"], round(float(row.get("sparsity") or 0.0), 4)


def stated(at: Setting) -> str:
    """A setting in words.

    >>> stated((1, 128, 1, "cpu"))
    'cpu, 1 thread, batch of 1 x 128 tokens'
    """
    batch, length, threads, device = at
    tokens = f" x {length} tokens" if length else ""
    return f"{device}, {threads} thread{'s' * (threads != 1)}, batch of {batch}{tokens}"
