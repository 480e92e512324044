"""A line a rule: what its training costs, how far its model can be pruned, and whether the dense model is as good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainflat.reports.curves import COLOURS
from trainflat.reports.drawing import DARK, named, plain, save, style
from trainflat.reports.family import is_family, kept, passes, ranked
from trainflat.reports.numbers import percent
from trainflat.reports.reach import Reach, reach
from trainflat.reports.rows import Results
from trainflat.reports.stats import paired, summary

__all__ = ["ABOUT", "CAPTION", "describe", "drawn", "png", "svg"]

WIDE, LINE = 8.6, 0.21  # inches: of the figure, and of a line
CLOSE = 0.005
CHEAP = ((1.05, "as cheap as {}"), (1.25, "up to a quarter more"), (2.05, "up to twice"), (float("inf"), "more"))
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
    return [task for task in data.tasks if _arms(data, task)] if is_family(data) else []


def svg(data: Results, task: str, *, name: str = "") -> str:
    """As SVG; ``name`` as in `trainflat.reports.curves.svg`."""
    if (key := ("family", task)) not in data.drawings:
        with style():
            data.drawings[key] = plain(_figure(data, task))
    return named(data.drawings[key], name)


def png(data: Results, path: str | Path, task: str, *, dpi: int = 160) -> Path:
    """As PNG on white."""
    with style(DARK):
        figure = _figure(data, task)
        figure.set_facecolor("white")
        return save(figure, path, dpi)


def describe(data: Results, task: str) -> str:
    """The figure in words."""
    told = []
    for arm, cost, _ in _arms(data, task):
        first, second = (said.value for said in _numbers(data, task, arm))
        told.append(
            f"{arm} keeps {100 * first:.1f} and can be pruned by {percent(round(second, 3))} at {cost:.2f} passes"
        )
    return f"What each rule’s model keeps under one-shot pruning of {task}: {'; '.join(told)}."


def _arms(data: Results, task: str) -> list[tuple[str, float, bool]]:
    """Arm, passes, and whether the dense model is as good as the first arm's; the one that keeps least first."""
    reference = data.values(task, data.arms[0], "dense", 0.0)
    found = []
    for arm in reversed(ranked(data, task)):
        cost = passes(data, task, arm)
        if cost is not None and reference and reach(data, task, arm):
            dense = summary(data.values(task, arm, "dense", 0.0).values()).mean
            found.append((arm, cost, dense >= summary(reference.values()).mean - CLOSE))
    return found


def _numbers(data: Results, task: str, arm: str) -> tuple[Reach, Reach]:
    """What is kept, and how far it goes, each with its interval."""
    values = kept(data, task, arm)
    d = paired(dict.fromkeys(values, 0.0), values)
    far = reach(data, task, arm)
    assert far is not None  # `_arms` lists only those that have it
    return Reach(d.mean, d.low, d.high, d.n), far


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

    listed = _arms(data, task)
    figure = Figure(figsize=(WIDE, 1.4 + LINE * len(listed)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    kinds = [next(i for i, (most, _) in enumerate(CHEAP) if cost <= most) for _, cost, _ in listed]
    numbers = zip(*(_numbers(data, task, arm) for arm, *_ in listed), strict=True)
    for panel, (axes, of, label) in enumerate(zip(both, numbers, PANELS, strict=True)):
        left = _left(panel, list(of))
        for y, ((arm, _, close), kind, said) in enumerate(zip(listed, kinds, of, strict=True)):
            ends = [100 * min(max(said.value if end is None else end, 0.0), 1.0) for end in (said.low, said.high)]
            if 100 * said.value < left:
                axes.annotate(f"◂ {100 * said.value:.1f}", (left, y), color=COLOURS[kind], va="center", fontsize=8.5)
                continue
            axes.plot(ends, [y, y], color=COLOURS[kind], alpha=0.4, linewidth=1.6, zorder=2)
            face = COLOURS[kind] if close else "none"
            axes.plot([100 * said.value], [y], "o", color=COLOURS[kind], markerfacecolor=face, markersize=5.5, zorder=3)
            if arm in data.arms[:2]:
                axes.axvline(100 * said.value, linewidth=0.9, linestyle=(0, (1.5, 2)), color=COLOURS[-1])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.16, linewidth=0.7)
        axes.set_xlabel(label)
        axes.set_xlim(left=left)
    both[0].set_ylim(-0.7, len(listed) - 0.3)
    both[0].set_title(task, loc="left")
    both[0].set_yticks(range(len(listed)), [f"{arm}  {cost:.2f}" for arm, cost, _ in listed])
    for words, (arm, *_) in zip(both[0].get_yticklabels(), listed, strict=True):
        words.set_parse_math(False)
        words.set_fontweight("bold" if arm in data.arms[:2] else "normal")
    marks = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[kind], markersize=5.5) for kind in sorted(set(kinds))
    ]
    named = [CHEAP[kind][1].format(data.arms[0]) for kind in sorted(set(kinds))]
    figure.legend(marks, named, title="passes", loc="outside lower center", ncols=len(named), title_fontsize=9.5)
    return figure
