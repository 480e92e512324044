"""The metric against sparsity, one line an arm: what survives, and from where on it does not.

Lines are means over seeds, shaded by one standard deviation; the dense models are a horizontal band of the same kind.
An SVG takes the colour of the text around it, so that one drawing serves light and dark pages; the same rows give the
same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainflat.reports.drawing import COLOURS, DARK, MARKERS, SIZE, named, plain, save, style
from trainflat.reports.family import leading
from trainflat.reports.legend import place, short
from trainflat.reports.numbers import percent
from trainflat.reports.rows import Results, Row, results, without_stage
from trainflat.reports.stats import summary

__all__ = ["describe", "drawn", "panels", "png", "svg"]

DASHES = ("-", "--", ":")


def panels(data: Results) -> list[tuple[str, str]]:
    """Every (task, variant) that has a curve.

    Example:
        >>> from trainflat.reports import example
        >>> panels(results(example.rows()))
        [('digits', 'pruned'), ('digits', 'imp'), ('docstrings', 'pruned'), ('docstrings', 'imp')]
    """
    return [(task, variant) for task in data.tasks for variant in drawn(data, task)]


def drawn(data: Results, task: str) -> list[str]:
    """The variants of a task that make a curve: from two sparsities on, or one beside the dense models."""
    dense = any(data.values(task, arm, "dense", 0.0) for arm in data.arms)
    return [variant for variant in data.curves(task) if dense or len(data.sparsities(task, variant)) > 1]


def svg(rows: Iterable[Row] | Results, task: str, variant: str, *, name: str = "") -> str:
    """One of `panels` as SVG with a transparent ground; ``name`` as for `trainflat.reports.drawing.named`."""
    data = results(rows)

    def draw() -> str:
        with style():
            from matplotlib.figure import Figure

            figure = Figure(figsize=SIZE, layout="constrained")
            _draw(figure.subplots(), data, task, variant)
            return plain(figure)

    return named(data.once(("curves", task, variant), draw), name)


def png(
    rows: Iterable[Row] | Results, path: str | Path, *, only: Sequence[tuple[str, str]] | None = None, dpi: int = 160
) -> Path:
    """Panels as one picture on white, a row for each task: for a README.

    Args:
        path: Where to; replaced as a whole.
        only: Some of `panels`; default: all.
        dpi: Pixels an inch; 160 is sharp at half its size.

    Raises:
        ValueError: If there is no curve to draw.
    """
    data = results(rows)
    wanted = panels(data) if only is None else list(only)
    if not wanted:
        raise ValueError("there is no curve in these rows; a curve needs a variant that was measured at some sparsity")
    tasks = list(dict.fromkeys(task for task, _ in wanted))
    across = max(sum(of == task for of, _ in wanted) for task in tasks)
    with style(DARK):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * len(tasks)), layout="constrained", facecolor="white")
        grid = figure.subplots(len(tasks), across, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for task, line in zip(tasks, grid, strict=True):
            for axes, (_, variant) in zip(line, [one for one in wanted if one[0] == task]):
                axes.set_visible(True)
                _draw(axes, data, task, variant, title=f"{task}, {data.family(variant)}")
        return save(figure, path, dpi)


def describe(data: Results, task: str, variant: str) -> str:
    """The panel in words, for those who do not see it."""
    lines = []
    for arm in data.arms:
        found = [
            (s, summary(v.values()).mean)
            for s in data.sparsities(task, variant)
            if (v := data.values(task, arm, variant, s))
        ]
        if found:
            ends = " and ".join(f"{100 * mean:.1f} at {percent(s)}" for s, mean in dict.fromkeys([found[0], found[-1]]))
            lines.append(f"{arm} has {ends}")
    return f"{data.metric(task)} of {task} against sparsity, {data.family(variant)}: {'; '.join(lines)}."


def _draw(axes: Any, data: Results, task: str, variant: str, title: str = "") -> None:
    """One panel. The dense models start a one-shot curve: they are what it prunes."""
    handles, labels, points = [], [], []
    for i, arm in enumerate(leading(data, task)):
        colour = COLOURS[i % len(COLOURS)]
        dense = [100 * value for value in data.values(task, arm, "dense", 0.0).values()]
        curve = {100 * s: list(data.values(task, arm, variant, s).values()) for s in data.sparsities(task, variant)}
        curve = {s: summary(100 * value for value in values) for s, values in curve.items() if values}
        if dense:
            level = summary(dense)
            axes.axhline(level.mean, color=colour, linewidth=0.9, linestyle=(0, (1.5, 2)), zorder=1)
            axes.axhspan(
                level.mean - (level.sd or 0),
                level.mean + (level.sd or 0),
                color=colour,
                alpha=0.13,
                linewidth=0,
                zorder=0,
            )
            if without_stage(variant) == "pruned":
                curve = {0.0: level, **curve}
        if not curve:
            continue
        x, mean = list(curve), [s.mean for s in curve.values()]
        low, high = ([s.mean + sign * (s.sd or 0) for s in curve.values()] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
        dash = DASHES[i // len(COLOURS) % len(DASHES)]
        handles += axes.plot(
            x, mean, dash, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=3.8, linewidth=1.7, zorder=3 + i
        )
        labels.append(arm)
        points += [value for value in [*low, *high, *dense] if math.isfinite(value)]
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", alpha=0.16, linewidth=0.7)
    shrunk = any("sparsity_layers" in row for row in data.rows if data.variant(row) == variant)
    axes.set_xlabel(f"share of {'the layers’ parameters' if shrunk else 'prunable weights'} removed, %")
    axes.set_ylabel(short(f"{data.metric(task)}, points"))
    axes.set_title(short(title, 48), loc="left")
    axes.margins(x=0.03)
    if points:
        room = 0.06 * (max(points) - min(points)) or 1.0
        axes.set_ylim(min(points) - room, max(points) + room)
    for words in (axes.title, axes._left_title, axes.yaxis.label, axes.xaxis.label):
        words.set_parse_math(False)
    place(axes, handles, labels)
