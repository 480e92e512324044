"""What a smaller model costs and keeps: the metric against the measured latency, and the sizes beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trainflat.reports.curves import COLOURS
from trainflat.reports.drawing import DARK, inline, save, style
from trainflat.reports.rows import Results, Row, measured_at, percent, results
from trainflat.reports.stats import Summary, compare, summary
from trainflat.reports.tables import ALONE, MISSING, Table, axis, bounds, points, signed

__all__ = ["Offer", "describe", "offers", "png", "setting", "svg", "table", "tables", "ways"]

SIZE = (6.2, 3.6)  # inches
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
SHRUNK = (
    "Target: the share of the layers' parameters that was to go; layers: what really went; CoFi: the same as its reference "
    "code counts it; all: of all parameters, embeddings included. Latency is the median over seeds, its ratio to the dense "
    "model of the same arm on the same machine."
)

Setting = tuple[Any, ...]
"""Batch, tokens (or None), threads, device: what a latency was measured at."""


@dataclass(frozen=True)
class Offer:
    """One model that can be had: what was done to it, its metric over the seeds, and the median of its costs.

    ``sizes`` has ``sparsity_layers``, ``sparsity_cofi``, ``sparsity_total`` where the model was shrunk.
    """

    task: str
    arm: str
    variant: str
    sparsity: float
    value: Summary
    latency: float
    parameters: float
    bytes: float
    multiply_adds: float
    sizes: dict[str, float]


def setting(rows: Iterable[Row] | Results) -> Setting | None:
    """The setting at which most models were measured, the smallest batch first; None if fewer than two were."""
    data = results(rows)
    found: dict[Setting, set[Any]] = {}
    for row in data.rows:
        if "cost" in row:
            found.setdefault(measured_at(row), set()).add(_model(data, row))
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
    found: dict[Any, list[Row]] = {}
    for row in data.rows:
        if "cost" in row and measured_at(row) == at:
            found.setdefault(_model(data, row), []).append(row)
    offered = []
    for (task, arm, variant, sparsity), measured in found.items():
        values = data.values(task, arm, variant, sparsity)
        if not values:
            continue
        middle = lambda name, of=measured: median(row["cost"][name] for row in of)
        names = ("sparsity_layers", "sparsity_cofi", "sparsity_total")
        sizes = {name: median(row[name] for row in measured) for name in names if all(name in row for row in measured)}
        costs = [middle(name) for name in ("latency_ms", "parameters", "bytes", "multiply_adds")]
        offered.append(Offer(task, arm, variant, sparsity, summary(values.values()), *costs, sizes))
    return sorted(offered, key=lambda offer: (data.tasks.index(offer.task), data.arms.index(offer.arm), -offer.latency))


def tables(rows: Iterable[Row] | Results, task: str) -> list[Table]:
    """Both tables, as far as the rows know."""
    return [found for found in (table(rows, task), ways(rows, task)) if found is not None]


def table(rows: Iterable[Row] | Results, task: str) -> Table | None:
    """The offers of a task as a table, if any was shrunk: how small, how fast, and what is kept."""
    data = results(rows)
    at = setting(data)
    listed = [offer for offer in offers(data, at) if offer.task == task]
    if at is None or not any("sparsity_layers" in offer.sizes for offer in listed):
        return None
    dense = {offer.arm: offer.latency for offer in listed if offer.variant == "dense"}
    lines = []
    for offer in listed:
        times = f"{dense[offer.arm] / offer.latency:.1f} ×" if offer.arm in dense else MISSING
        shares = [percent(offer.sizes[name]) if name in offer.sizes else MISSING for name in _SHARES]
        value = points(offer.value.mean) + (f" ± {points(offer.value.sd)}" if offer.value.sd is not None else "")
        size = [f"{offer.parameters / 1e6:,.2f}", f"{offer.bytes / 1e6:,.1f}", f"{offer.multiply_adds / 1e6:,.0f}"]
        name = data.title(offer.variant, offer.sparsity)
        lines.append((name, offer.arm, *shares, *size, f"{offer.latency:.2f}", times, value, str(offer.value.n)))
    header = ("model", axis(data), "layers", "CoFi", "all", "parameters (M)", "MB", "multiply-adds (M)", "ms", "faster")
    title = f"Smaller models; {_said(at)}"
    return Table(title, (*header, data.metric(task), "n"), tuple(lines), task, 2, SHRUNK)


def ways(rows: Iterable[Row] | Results, task: str) -> Table | None:
    """CoFi against the plainer cuts of the same size, arm by arm: the difference in points, paired over seeds."""
    data = results(rows)
    lines, found = [], []
    for sparsity in data.sparsities(task, "cofi"):
        for plainer in ("narrow", "shallow"):
            for arm in data.arms:
                ours, plain = (data.values(task, arm, way, sparsity) for way in ("cofi", plainer))
                if ours and plain:
                    d = compare(plain, ours)
                    means = [points(summary(values.values()).mean) for values in (ours, plain)]
                    what = f"cofi − {plainer} at {percent(sparsity)}"
                    lines.append((what, arm, *means, signed(d.mean), bounds(d), str(d.n), d.verdict))
                    found.append(d)
    if not lines:
        return None
    header = ("models", axis(data), "cofi", "plainer", "difference", "95 % CI", "n", "cofi is")
    return Table("Gates against plainer cuts of the same size", header, tuple(lines), task, 2, ALONE, tuple(found))


def svg(rows: Iterable[Row] | Results, task: str, *, name: str = "") -> str:
    """The metric of a task's offers against their latency, as SVG; ``name`` as in `trainflat.reports.curves.svg`."""
    data = results(rows)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), data, task)
        return inline(figure, name)


def png(rows: Iterable[Row] | Results, path: str | Path, task: str, dpi: int = 160) -> Path:
    """The same as a picture on white."""
    data = results(rows)
    with style(DARK):
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
        _draw(figure.subplots(), data, task, title=task)
        return save(figure, path, dpi)


def describe(rows: Iterable[Row] | Results, task: str) -> str:
    """The figure in words, for those who do not see it."""
    data = results(rows)
    told = [
        f"{data.title(offer.variant, offer.sparsity)} from {offer.arm} has {points(offer.value.mean)} at {offer.latency:.2f} ms"
        for offer in offers(data)
        if offer.task == task
    ]
    return f"{data.metric(task)} of {task} against latency: {'; '.join(told)}."


_SHARES = ("sparsity_layers", "sparsity_cofi", "sparsity_total")


def _draw(axes: Any, data: Results, task: str, title: str = "") -> None:
    """A colour an arm, a marker a way to get smaller, hollow where in int8; a line joins the sizes of one way."""
    from matplotlib.lines import Line2D

    listed = [offer for offer in offers(data) if offer.task == task]
    ways = list(dict.fromkeys(offer.variant.partition(", int8")[0].partition("int8")[0] or "dense" for offer in listed))
    for offer_arm, offer_variant in dict.fromkeys((offer.arm, offer.variant) for offer in listed):
        of = [offer for offer in listed if (offer.arm, offer.variant) == (offer_arm, offer_variant)]
        way = offer_variant.partition(", int8")[0].partition("int8")[0] or "dense"
        colour = COLOURS[data.arms.index(offer_arm) % len(COLOURS)]
        hollow = {"markerfacecolor": "none"} if "int8" in offer_variant else {}
        axes.errorbar(
            [offer.latency for offer in of],
            [100 * offer.value.mean for offer in of],
            yerr=[100 * (offer.value.sd or 0) for offer in of],
            color=colour,
            marker=MARKERS[ways.index(way) % len(MARKERS)],
            markersize=5,
            linewidth=1.1,
            linestyle="--" if hollow else "-",
            elinewidth=0.8,
            **hollow,
        )
    at = setting(data)
    axes.set_xscale("log")
    axes.set_xlabel(f"latency, ms ({_said(at)})" if at else "latency, ms")
    axes.set_ylabel(f"{data.metric(task)}, points")
    axes.set_title(title, loc="left")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if str(x)[0] in "25" else "")
    axes.grid(alpha=0.16, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    ink = axes.xaxis.label.get_color()
    lines = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=arm) for i, arm in enumerate(data.arms)]
    marks = [
        Line2D([], [], color=ink, linestyle="", marker=MARKERS[i % len(MARKERS)], markersize=5, label=way)
        for i, way in enumerate(ways)
    ]
    hollow = [
        Line2D([], [], color=ink, linestyle="--", marker="o", markerfacecolor="none", markersize=5, label="in int8")
    ]
    in_int8 = any("int8" in offer.variant for offer in listed)
    axes.legend(handles=[*lines, *marks, *(hollow if in_int8 else [])], loc="center left", bbox_to_anchor=(1.0, 0.5))


def _model(data: Results, row: Row) -> tuple[str, str, str, float]:
    return data.task(row), data.arm(row), row["variant"], round(float(row.get("sparsity") or 0.0), 4)


def _said(at: Setting) -> str:
    batch, length, threads, device = at
    tokens = f" x {length} tokens" if length else ""
    return f"{device}, {threads} thread{'s' * (threads != 1)}, batch of {batch}{tokens}"
