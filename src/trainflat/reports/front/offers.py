"""What can be had: every model whose metric and whose cost were both measured, at one setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from trainflat.reports.rows import Results, Row, measured_at, results, sparsity_of
from trainflat.reports.stats import Summary, summary

__all__ = ["Offer", "Setting", "model", "named", "offers", "setting", "stated"]

Setting = tuple[Any, ...]
"""Batch, tokens (or None), threads, device: what a latency was measured at."""

SIZES = ("sparsity_layers", "sparsity_cofi", "sparsity_total")
COSTS = ("latency_ms", "parameters", "bytes", "multiply_adds")
GRIDS = ("int8", "static_int8", "weight_only", "torchao_weights")
"""How the names of quantized variants, or their last parts, begin."""

ZEROS = "pruned"
"""The variant whose zeros stay where they were: it costs what the dense model of its arm costs."""


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
        sizes: ``sparsity_layers``, ``sparsity_cofi``, ``sparsity_total``, as far as the rows say them.
        made: ``recipe``, ``stage`` and ``command`` of the row that holds the metric, where it says them.
        device: On which the latency is: ``"cpu"``, or the name of the GPU.
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
    device: str = "cpu"

    @cached_property
    def value(self) -> Summary:
        """The metric's mean and spread."""
        return summary(self.values.values())

    @property
    def name(self) -> str:
        """How a reader calls it: "cofi 60 %, int8 per channel from SAM"."""
        return named(self.arm, self.variant, self.sparsity)

    @property
    def gone(self) -> float:
        """The share of all parameters, in [0, 1], that are zero or cut away: the sparsity in which pruned and shrunk compare."""
        return self.sizes.get("sparsity_total", self.sparsity)

    @property
    def way(self) -> str:
        """How it got smaller, its grid aside, as a reader calls it: "cofi", "one-shot"; "dense" if it did not."""
        return Results.family(", ".join(part for part in self.variant.split(", ") if not _is_grid(part)) or "dense")

    @property
    def quantized(self) -> bool:
        """Whether its weights are on a grid of few bits."""
        return any(map(_is_grid, self.variant.split(", ")))


def _is_grid(part: str) -> bool:
    """Whether this part of a variant's name is a quantizer's.

    >>> _is_grid("static_int8 per_channel"), _is_grid("cofi")
    (True, False)
    """
    return part.split(" ")[0] in GRIDS


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

    A model that was pruned one-shot has the tensors of the dense one, zeros among them, which are stored and multiplied as any
    number is: where its own cost was not measured, it is the dense model's of the same arm.

    Example:
        >>> from trainflat.reports.example import rows
        >>> [(offer.arm, offer.variant) for offer in offers(rows()) if offer.variant != "pruned"][:3]
        [('Adam', 'dense'), ('Adam', 'int8 per_channel'), ('SAM', 'dense')]
    """
    data = results(rows)
    at = at or setting(data)
    measured: dict[tuple[str, str, str, float], list[Row]] = {}
    scored: dict[Any, list[Row]] = {}
    for row in data.rows:
        if "cost" in row and measured_at(row) == at:
            measured.setdefault(model(data, row), []).append(row)
        elif row.get("value") is not None:
            scored.setdefault(model(data, row), []).append(row)
    for key in scored:
        if key[2] == ZEROS and (dense := measured.get((*key[:2], "dense", 0.0))):
            measured.setdefault(key, dense)
    found = []
    for key, of in measured.items():
        if values := data.values(*key):
            costs = (median(row["cost"][name] for row in of) for name in COSTS)
            about = scored[key] if key[2] == ZEROS else of
            sizes = {name: median(row[name] for row in about) for name in SIZES if all(name in row for row in about)}
            first = scored[key][0]
            made = {name: str(first[name]) for name in ("recipe", "stage", "command") if first.get(name)}
            device = of[0]["cost"].get("device") or "cpu"
            found.append(Offer(*key, values, *costs, device=device, sizes=sizes, made=made))
    return sorted(found, key=lambda offer: (data.tasks.index(offer.task), data.arms.index(offer.arm), -offer.latency))


def model(data: Results, row: Row) -> tuple[str, str, str, float]:
    """Of which model a row is: task, arm, variant, sparsity."""
    return data.task(row), data.arm(row), row["variant"], sparsity_of(row)


def named(arm: str, variant: str, sparsity: float) -> str:
    """How a reader calls a model.

    >>> named("SAM", "cofi, int8 per_channel", 0.6), named("all", "dense", 0.0)
    ('cofi 60 %, int8 per channel from SAM', 'dense')
    """
    title = Results.title(variant, sparsity)
    return title if arm == "all" else f"{title} from {arm}"


def stated(at: Setting) -> str:
    """A setting in words.

    >>> stated((1, 128, 1, "cpu"))
    'cpu, 1 thread, batch of 1 x 128 tokens'
    """
    batch, length, threads, device = at
    tokens = f" x {length} tokens" if length else ""
    return f"{device}, {threads} thread{'s' * (threads != 1)}, batch of {batch}{tokens}"
