"""The front drawn: the metric against latency or size, a step line through what nothing beats, the rest paler.

A colour an arm, a marker a way to get smaller, hollow where quantized; bars are one standard deviation over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat.reports.drawing import COLOURS, DARK, SIZE, inline, save, style
from trainflat.reports.front.offers import Offer, offers, setting, stated
from trainflat.reports.front.pareto import cost, marked, pareto
from trainflat.reports.numbers import points
from trainflat.reports.rows import Results

__all__ = ["MARKERS", "Front", "describe", "figure", "fronts", "panel", "png", "svg"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
PALE = 0.5
UNITS = {"latency": "latency, ms", "bytes": "size, MB", "sparsity": "weights left, %"}
SCALE = {"latency": 1.0, "bytes": 1e-6, "sparsity": 100.0}  # from a cost to the unit of its axis
PANELS = ("latency", "bytes")
"""What is drawn always; by sparsity only where that was what a model was chosen by."""


@dataclass(frozen=True)
class Front:
    """What one panel shows: the offers of a task, one of their costs, and the chosen one.

    Attributes:
        offers: Rising in cost.
        by: One of `trainflat.reports.front.pareto.COSTS`.
        metric: What the models are scored by.
        arms: In the report's order, for colours.
        ways: The ways to get smaller, for markers.
        chosen: One of the offers, or None.
        note: At which setting a latency was measured; what is counted.
    """

    offers: tuple[Offer, ...]
    by: str
    metric: str
    arms: tuple[str, ...]
    ways: tuple[str, ...]
    chosen: Offer | None = None
    note: str = ""

    @property
    def best(self) -> list[Offer]:
        """Those on the front, rising in cost."""
        return pareto(self.offers, self.by)

    @property
    def grids(self) -> str:
        """What a hollow mark means; empty if there is none."""
        quantized = [offer.variant for offer in self.offers if offer.quantized]
        return "" if not quantized else "in int8" if all("int8" in one for one in quantized) else "in int8 or int4"

    def cost(self, offer: Offer) -> float:
        """Where an offer lies: milliseconds, 10^6 bytes, or the weights left in per cent."""
        return SCALE[self.by] * cost(offer, self.by)

    def colour(self, offer: Offer) -> str:
        """Of an offer's arm."""
        return COLOURS[self.arms.index(offer.arm) % len(COLOURS)]

    def marker(self, offer: Offer) -> str:
        """Of an offer's way to get smaller."""
        return MARKERS[self.ways.index(offer.way) % len(MARKERS)]


def fronts(data: Results, task: str, chosen: Mapping[str, Any] | None = None) -> list[Front]:
    """One by latency, one by size, and one by what the model was ``chosen`` for if it was another, ``by``; none if the task has
    fewer than two offers.
    """
    at = setting(data)
    listed = [offer for offer in offers(data, at) if offer.task == task]
    if at is None or len(listed) < 2:
        return []
    arms = tuple(arm for arm in data.arms if any(offer.arm == arm for offer in listed))
    ways = tuple(dict.fromkeys(offer.way for offer in listed))
    wanted = dict.fromkeys((*PANELS, (chosen or {}).get("by") or "latency"))
    rising = {by: tuple(sorted(listed, key=lambda offer, by=by: cost(offer, by))) for by in wanted}
    notes = {"latency": stated(at), "bytes": "of the safetensors file", "sparsity": "neither zero nor cut away"}
    mark = marked(listed, chosen)
    return [Front(rising[by], by, data.metric(task), arms, ways, mark, notes[by]) for by in wanted]


def panel(front: Front, name: str) -> tuple[str, list[tuple[float, float]]]:
    """One panel as SVG for a page, and where each of ``front.offers`` lies: shares of its width and height, from top left."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, dpi=72, layout="constrained")
        axes = figure.subplots()
        _draw(axes, front)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # as it lies now, so that the places are those of the drawing
        width, height = figure.bbox.size
        at = axes.transData.transform([(front.cost(o), 100 * o.value.mean) for o in front.offers])
        return inline(figure, name), [(float(x / width), float(1 - y / height)) for x, y in at]


def svg(data: Results, task: str, chosen: Mapping[str, Any] | None = None, *, name: str = "") -> str:
    """The panels of a task side by side, with a legend, as SVG; ``name`` as for `trainflat.reports.drawing.named`."""
    with style():
        return inline(figure(fronts(data, task, chosen)), name)


def png(data: Results, path: str | Path, task: str, chosen: Mapping[str, Any] | None = None) -> Path:
    """The same as a picture on white."""
    with style(DARK):
        return save(figure(fronts(data, task, chosen), facecolor="white", title=task), path)


def describe(front: Front) -> str:
    """The panel in words, for those who do not see it: the front; the rest is in the table."""
    unit = UNITS[front.by].rpartition(" ")[2]
    told = "; ".join(f"{o.name} has {points(o.value.mean)} at {front.cost(o):.4g} {unit}" for o in front.best)
    chosen = f" Chosen: {front.chosen.name}." if front.chosen else ""
    others = len(front.offers) - len(front.best)
    return f"{front.metric} against {UNITS[front.by]}. On the front: {told}. Beaten by these: {others} more.{chosen}"


def figure(drawn: Sequence[Front], title: str = "", **more: Any) -> Any:
    """The panels side by side, with a legend, as a figure of matplotlib; to be called within `trainflat.reports.drawing.style`.

    Raises:
        ValueError: If there is no panel.
    """
    from matplotlib.figure import Figure

    if not drawn:
        raise ValueError("there is no front in these rows; it needs two models with both a metric and a measured cost")
    made = Figure(figsize=(len(drawn) * SIZE[0], SIZE[1] + 0.5), layout="constrained", **more)
    for axes, front in zip(made.subplots(1, len(drawn)), drawn, strict=True):
        _draw(axes, front)
    head = made.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    legend = made.legend(handles=_legend(drawn[0]), loc="outside lower center", ncols=6)
    for words in (head, *legend.get_texts()):
        words.set_parse_math(False)
    return made


def _draw(axes: Any, front: Front) -> None:
    """One panel."""
    ink = axes.xaxis.label.get_color()
    best = front.best
    high = max(front.cost(offer) for offer in front.offers) * 1.12
    x = [*map(front.cost, best), high]
    y = [100 * offer.value.mean for offer in (*best, best[-1])]
    axes.plot(x, y, drawstyle="steps-post", color=ink, linewidth=1.1, alpha=0.55, zorder=2)
    for offer in front.offers:
        on_front, colour = offer in best, front.colour(offer)
        at = front.cost(offer), 100 * offer.value.mean
        strength = 1.0 if on_front or offer == front.chosen else PALE
        if offer.value.sd:
            axes.errorbar(*at, yerr=100 * offer.value.sd, color=colour, elinewidth=0.9, alpha=strength, zorder=3)
        face = "none" if offer.quantized else colour
        axes.plot(
            *at,
            front.marker(offer),
            color=colour,
            markerfacecolor=face,
            markersize=5.5,
            markeredgewidth=1.2,
            alpha=strength,
            zorder=4 + on_front,
        )
    if front.chosen:
        at = front.cost(front.chosen), 100 * front.chosen.value.mean
        axes.plot(*at, "o", color=ink, markerfacecolor="none", markersize=13, markeredgewidth=1.3, zorder=6)
    _scale(axes, front)
    if front.chosen:
        at = front.cost(front.chosen), 100 * front.chosen.value.mean
        left = axes.transLimits.transform(axes.transScale.transform(at))[0] < 0.25  # no room before the axis
        beside = {"xytext": (7 if left else -7, 7), "ha": "left" if left else "right"}
        axes.annotate("chosen", at, **beside, textcoords="offset points", va="bottom", color=ink, zorder=6)


def _scale(axes: Any, front: Front) -> None:
    costs = [front.cost(offer) for offer in front.offers]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.12, max(costs) * 1.12)
    axes.set_xticks(_ticks(min(costs) / 1.12, max(costs) * 1.12))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_xlabel(UNITS[front.by])
    axes.set_ylabel(f"{front.metric}, points")
    axes.grid(alpha=0.16, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for words in (axes.xaxis.label, axes.yaxis.label):
        words.set_parse_math(False)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high`` for a logarithmic axis, at most a handful.

    >>> _ticks(2.3, 46), _ticks(0.6, 0.9)
    ([5.0, 10.0, 20.0], [0.6, 0.7, 0.8, 0.9])
    """
    from matplotlib.ticker import MaxNLocator

    steps = [float(f"{digit}e{power}") for power in range(-6, 10) for digit in (1, 2, 5)]
    within = [step for step in steps if low <= step <= high]
    if len(within) > 6:
        within = [step for step in within if f"{step:e}".startswith("1")]
    if len(within) >= 3:
        return within
    return [
        float(f"{tick:.6g}")
        for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
        if low <= tick <= high
    ]


def _legend(front: Front) -> list[Any]:
    from matplotlib import rcParams
    from matplotlib.lines import Line2D

    ink = rcParams["text.color"]
    arms = [Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=3, label=arm) for i, arm in enumerate(front.arms)]
    mark = lambda marker, label, **more: Line2D(
        [], [], color=ink, linestyle="", marker=marker, markersize=5.5, label=f" {label}", **more
    )
    ways = [mark(MARKERS[i % len(MARKERS)], way) for i, way in enumerate(front.ways)]
    hollow = [mark("o", front.grids, markerfacecolor="none")] if front.grids else []
    line = Line2D([], [], color=ink, linewidth=1.1, alpha=0.55, label=" nothing beats these")
    return [*(arms if len(front.arms) > 1 else []), *ways, *hollow, line]
