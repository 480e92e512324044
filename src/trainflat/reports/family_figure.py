"""A line a rule: what its training costs, how far its model can be pruned, and whether the dense model is as good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflat.reports.drawing import COLOURS, DARK, named, plain, save, style
from trainflat.reports.family import is_family, kept, passes
from trainflat.reports.numbers import percent
from trainflat.reports.reach import Reach, reach
from trainflat.reports.rows import Results
from trainflat.reports.stats import paired, summary

__all__ = ["ABOUT", "CAPTION", "describe", "drawn", "png", "svg"]

WIDE, LINE = 8.6, 0.21  # inches: of the figure, and of a line
CLOSE = 0.005
PRICES = ((1.05, "as cheap as {}"), (1.25, "up to a quarter more"), (2.05, "up to twice"), (float("inf"), "more"))
"""Passes at most, and what the legend calls them."""
CAPTION = "Cost and compressibility"
ABOUT = (
    "What each rule’s model keeps under one-shot pruning: on average over all sparsities, and how far it can be pruned until a "
    "point is lost. Dots are means over seeds, bars 95 % intervals, dotted lines the first two arms; numbers are passes over the "
    "data; hollow where the dense model is more than half a point below the first arm’s."
)
PANELS = ("kept on average, points", "pruned until a point is lost, %")


def drawn(data: Results) -> list[str]:
    """The tasks that have such a figure: those of a family whose rows say what a training cost."""
    return [task for task in data.tasks if _lines(data, task)] if is_family(data) else []


def svg(data: Results, task: str, *, name: str = "") -> str:
    """As SVG; ``name`` as for `trainflat.reports.drawing.named`."""

    def draw() -> str:
        with style():
            return plain(_figure(data, task))

    return named(data.once(("family", task), draw), name)


def png(data: Results, path: str | Path, task: str) -> Path:
    """As PNG on white."""
    with style(DARK):
        figure = _figure(data, task)
        figure.set_facecolor("white")
        return save(figure, path)


def describe(data: Results, task: str) -> str:
    """The figure in words."""
    told = (
        f"{line.arm} keeps {100 * line.kept.value:.1f} and can be pruned by {percent(round(line.far.value, 3))} "
        f"at {line.passes:.2f} passes"
        for line in _lines(data, task)
    )
    return f"What each rule’s model keeps under one-shot pruning of {task}: {'; '.join(told)}."


@dataclass(frozen=True)
class _Line:
    """What the figure shows of an arm: its passes beside the first arm's, what it keeps, how far it goes, and whether its dense
    model is as good as the first arm's.
    """

    arm: str
    passes: float
    kept: Reach
    far: Reach
    close: bool


def _lines(data: Results, task: str) -> list[_Line]:
    """One for each arm whose numbers are all known, the one that keeps least first."""
    found = []
    for arm, values in reversed(kept(data, task).items()):
        cost, far = passes(data, task, arm), reach(data, task, arm)
        if cost is not None and far is not None:
            d = paired(dict.fromkeys(values, 0.0), values)
            dense, reference = (summary(data.values(task, one, "dense", 0.0).values()) for one in (arm, data.arms[0]))
            found.append(_Line(arm, cost, Reach(d.mean, d.low, d.high, d.n), far, dense.mean >= reference.mean - CLOSE))
    return found


def _left(panel: int, numbers: list[Reach]) -> float:
    """Where an axis begins: below all but those that failed to train, which keep less than half of what the best one keeps."""
    means = [100 * said.value for said in numbers]
    lows = [100 * said.low for said in numbers if said.low is not None]
    if panel == 1:
        return max(min([*means, *lows], default=0.0), 0.0) - 2
    within = [value for value in (*means, *lows) if value >= max(means) / 2]
    return min(within) - 0.06 * (max(means) - min(within)) - 0.5


def _figure(data: Results, task: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    listed = _lines(data, task)
    figure = Figure(figsize=(WIDE, 1.4 + LINE * len(listed)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    kinds = [next(i for i, (most, _) in enumerate(PRICES) if line.passes <= most) for line in listed]
    numbers = [line.kept for line in listed], [line.far for line in listed]
    for panel, (axes, of, label) in enumerate(zip(both, numbers, PANELS, strict=True)):
        left = _left(panel, of)
        for y, (line, kind, said) in enumerate(zip(listed, kinds, of, strict=True)):
            ends = [100 * min(max(said.value if end is None else end, 0.0), 1.0) for end in (said.low, said.high)]
            if 100 * said.value < left:
                axes.annotate(f"◂ {100 * said.value:.1f}", (left, y), color=COLOURS[kind], va="center", fontsize=8.5)
                continue
            axes.plot(ends, [y, y], color=COLOURS[kind], alpha=0.4, linewidth=1.6, zorder=2)
            face = COLOURS[kind] if line.close else "none"
            axes.plot([100 * said.value], [y], "o", color=COLOURS[kind], markerfacecolor=face, markersize=5.5, zorder=3)
            if line.arm in data.arms[:2]:
                axes.axvline(100 * said.value, linewidth=0.9, linestyle=(0, (1.5, 2)), color=COLOURS[-1])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.16, linewidth=0.7)
        axes.set_xlabel(label)
        axes.set_xlim(left=left)
    both[0].set_ylim(-0.7, len(listed) - 0.3)
    both[0].set_title(task, loc="left")
    both[0].set_yticks(range(len(listed)), [f"{line.arm}  {line.passes:.2f}" for line in listed])
    for words, line in zip(both[0].get_yticklabels(), listed, strict=True):
        words.set_parse_math(False)
        words.set_fontweight("bold" if line.arm in data.arms[:2] else "normal")
    marks = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[kind], markersize=5.5) for kind in sorted(set(kinds))
    ]
    named = [PRICES[kind][1].format(data.arms[0]) for kind in sorted(set(kinds))]
    figure.legend(marks, named, title="passes", loc="outside lower center", ncols=len(named), title_fontsize=9.5)
    return figure
