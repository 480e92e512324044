"""The metric against sparsity, one line an arm: what survives, and from where on it does not.

Lines are means over seeds, shaded by one standard deviation; the dense models are a horizontal band of the same kind.
An SVG takes the colour of the text around it, so that one drawing serves light and dark pages; the same rows give the
same bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainflat.reports.files import write
from trainflat.reports.rows import Results, Row, percent, results
from trainflat.reports.stats import summary

__all__ = ["COLOURS", "MARKERS", "describe", "panels", "png", "svg"]

COLOURS = ("#d0690f", "#2f7fd6", "#1a9a68", "#a463d6", "#d6457f", "#7f858d")
"""At least 3.3 : 1 against white and against near-black, and told apart by the colour-blind with the help of the markers."""

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":")
INK = "#010203"  # stands for the colour of the text around, until the SVG is written
SIZE = (4.5, 3.1)  # inches; as wide as a phone shows it without making the letters small
STANDALONE = (
    "<style>svg{color:#1c1e21;font-family:sans-serif}@media(prefers-color-scheme:dark){svg{color:#e4e6e9}}</style>"
)


def panels(rows: Iterable[Row] | Results) -> list[tuple[str, str]]:
    """Every (task, variant) that has a curve.

    Example:
        >>> from trainflat.reports.example import rows
        >>> panels(rows())
        [('digits', 'pruned'), ('digits', 'imp'), ('docstrings', 'pruned'), ('docstrings', 'imp')]
    """
    data = results(rows)
    return [(task, variant) for task in data.tasks for variant in data.curves(task)]


def svg(rows: Iterable[Row] | Results, task: str, variant: str, *, name: str = "") -> str:
    """One panel as SVG with a transparent ground.

    Args:
        rows: The rows.
        task: As in `panels`.
        variant: As in `panels`.
        name: Prefix of every id in it, so that several can stand in one page, whose text colour it then takes. Without one it
            is a file of its own, dark on light or light on dark as the reader prefers.
    """
    data = results(rows)
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), data, task, variant)
        raw = io.StringIO()
        with _any_letter():
            figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = raw.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' (width|height)="[\d.]+pt"', "", drawing, count=2).replace(
        "<svg ", '<svg stroke-linejoin="round" ', 1
    )
    drawing = re.sub(r"font-family: [^;\"]*; ", "", drawing).replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    drawing = drawing.replace("xlink:href=", "href=")
    if not name:
        return drawing.replace(">", f">{STANDALONE}", 1)
    drawing = drawing.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    return re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", drawing)


def png(
    rows: Iterable[Row] | Results, path: str | Path, *, only: Sequence[tuple[str, str]] | None = None, dpi: int = 160
) -> Path:
    """Panels as one picture on white, a row for each task: for a README.

    Args:
        rows: The rows.
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
    with _style("#1c1e21"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * len(tasks)), layout="constrained", facecolor="white")
        grid = figure.subplots(len(tasks), across, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for task, line in zip(tasks, grid, strict=True):
            for axes, (_, variant) in zip(line, [one for one in wanted if one[0] == task]):
                axes.set_visible(True)
                _draw(axes, data, task, variant, title=f"{task}, {data.family(variant)}")
        raw = io.BytesIO()
        with _any_letter():
            figure.savefig(raw, format="png", dpi=dpi, metadata={"Software": None})
    return write(path, raw.getvalue())


def describe(rows: Iterable[Row] | Results, task: str, variant: str) -> str:
    """The panel in words, for those who do not see it."""
    data = results(rows)
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
    for i, arm in enumerate(data.arms):
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
            if variant.partition(" / ")[0] == "pruned":
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
    axes.set_xlabel("share of prunable weights removed, %")
    axes.set_ylabel(_short(f"{data.metric(task)}, points"))
    axes.set_title(_short(title, 48), loc="left")
    axes.margins(x=0.03)
    if points:
        room = 0.06 * (max(points) - min(points)) or 1.0
        axes.set_ylim(min(points) - room, max(points) + room)
    legend = axes.legend(handles, [_short(label) for label in labels], loc="lower left")
    for words in [*legend.get_texts(), axes.title, axes._left_title, axes.yaxis.label, axes.xaxis.label]:
        words.set_parse_math(False)


def _short(label: str, most: int = 34) -> str:
    """A label that fits into a panel; matplotlib would leave out one that starts with an underscore."""
    label = label if len(label) <= most else f"{label[: most - 1]}…"
    return f" {label}" if label.startswith("_") else label


@contextmanager
def _style(ink: str = INK) -> Iterator[None]:
    import matplotlib

    sizes = {
        "font.size": 9.5,
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9.5,
    }
    inked = dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"], ink
    )
    lines = {
        "axes.linewidth": 0.7,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
    }
    fixed = {"svg.hashsalt": "trainflat", "svg.fonttype": "none", "font.family": "DejaVu Sans", "legend.frameon": False}
    title = {"axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlecolor": ink}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        style: Any = {**sizes, **inked, **lines, **fixed, **title}
        matplotlib.rcParams.update(style)
        yield


@contextmanager
def _any_letter() -> Iterator[None]:
    """A letter that matplotlib's font lacks is measured as a box; in SVG the reader's own font draws it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
