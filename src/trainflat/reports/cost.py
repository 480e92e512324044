"""What training and the models cost, told beside what they can do."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from trainflat.reports.numbers import MISSING, percent, plus_minus
from trainflat.reports.rows import Results, Row, measured_at, results, sparsity_of
from trainflat.reports.stats import summary
from trainflat.reports.tables import Table, arm_under_arm, axis, without_repetition

__all__ = ["costs", "models", "training"]

NO_FASTER = (
    "Masked weights are zeros that are still stored and multiplied: sparsity alone makes a model neither smaller on disk "
    "nor faster. Latency is the median of one batch, with its 5th and 95th percentile; across seeds the median of these."
)


def costs(rows: Iterable[Row] | Results) -> list[Table]:
    """Both tables, as far as the rows know.

    Example:
        >>> from trainflat.reports.example import rows
        >>> [table.title.partition(";")[0] for table in costs(rows())]
        ['Cost of training', 'Cost of the models']
    """
    data = results(rows)
    return [table for table in (training(data), models(data)) if table is not None]


def training(data: Results) -> Table | None:
    """What training took: seconds and forward-backward passes a seed, summed over the trainings of a stage (rounds of IMP)."""
    spent: dict[tuple[str, str, str], dict[Any, dict[str, float]]] = {}
    for row in data.rows:
        if "passes" in row:
            variant, sized = data.variant(row), "sparsity_layers" in row
            # each size of a shrunk model is one of its own
            family = data.title(variant, row["sparsity"]) if sized else data.family(variant)
            names = (data.task(row), family, data.arm(row))
            of = spent.setdefault(names, {}).setdefault(row["seed"], {})
            for name in ("seconds", "passes"):
                of[name] = of.get(name, 0.0) + row.get(name, 0.0)
    lines = []
    for (task, family, arm), by_seed in arm_under_arm(data, spent).items():
        passes = summary(of["passes"] for of in by_seed.values()).mean
        reference = spent.get((task, family, data.arms[0]))
        times = f"{passes / summary(of['passes'] for of in reference.values()).mean:.2f}" if reference else MISSING
        seconds = plus_minus([of["seconds"] for of in by_seed.values()], lambda x: f"{x:,.1f}")
        lines.append((task, family, arm, seconds, f"{passes:,.0f}", times, f"n = {len(by_seed)}"))
    if not lines:
        return None
    header = ("task", "trained", axis(data), "seconds", "passes", f"passes / {data.arms[0]}", "seeds")
    note = "A pass is one forward and one backward over a batch; SAM takes two a step. Seconds are wall time."
    title = "Cost of training; means over seeds, seconds ± s.d."
    return without_repetition(Table(title, header, tuple(lines), names=3, note=note))


def models(data: Results) -> Table | None:
    """What the models cost, from the rows that carry a ``cost``."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in data.rows:
        if "cost" in row:
            title = data.title(data.variant(row), sparsity_of(row))
            names = (data.task(row), title, data.arm(row), measured_at(row))
            found.setdefault(names, []).append(row["cost"])
    lines = []
    for (*names, _), measured in arm_under_arm(data, found).items():
        mid = {
            name: median(cost[name] for cost in measured)
            for name in measured[0]
            if isinstance(measured[0][name], (int, float))
        }
        latency = f"{mid['latency_ms']:.2f} [{mid['latency_low_ms']:.2f}, {mid['latency_high_ms']:.2f}]"
        counts = [f"{mid[name]:,.0f}" for name in ("parameters", "nonzeros")]
        size = [f"{mid['bytes'] / 1e6:,.2f}", f"{mid['multiply_adds'] / 1e6:,.1f}", latency]
        threads = f"{mid['threads']:.0f} thread{'s' * (mid['threads'] != 1)}"
        where = f"{measured[0]['device']}, {threads}, batch of {mid['batch']:.0f}{_tokens(mid)}"
        lines.append((*names, *counts, *size, where, f"n = {len(measured)}"))
    if not lines:
        return None
    counted = ("parameters", "non-zeros", "MB on disk", "multiply-adds (M)", "latency, ms")
    header = ("task", "model", axis(data), *counted, "on", "seeds")
    title = "Cost of the models; medians over seeds"
    return without_repetition(Table(title, header, tuple(lines), names=3, note=NO_FASTER))


def _tokens(mid: dict[str, float]) -> str:
    """How long the examples of a batch were, where they are made of tokens."""
    if "length" not in mid:
        return ""
    padding = f", {percent(mid['padding'])} padding" if mid["padding"] else ""
    return f" x {mid['length']:.0f} tokens{padding}"
