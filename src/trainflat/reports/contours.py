"""The loss in the plane through three models, as a map: the three are marked, and distances are those of weight space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainflat.reports.drawing import COLOURS, DARK, INK, MARKERS, SIZE, inline, save, style
from trainflat.reports.rows import Results, Row

__all__ = ["caption", "describe", "panels", "png", "svg"]

LEVELS = 12
ABOUT = (
    "Lines of equal held-out loss in the plane through three models, as figure 6 of Na et al. 2022: the encoder moves in the "
    "plane, the head is fixed to one of the two. The stronger the colour, the lower the loss; levels are the same for both heads."
)
WIDEST = 3.0  # a map longer than so many times its width is drawn with unequal scales


def panels(data: Results) -> list[tuple[Row, int]]:
    """Every (row, head) that has a map; two heads a row.

    Example:
        >>> from trainflat.reports import results
        >>> drawn = {"heads": [{"head": "adam"}, {"head": "sam"}]}
        >>> rows = [{"task": "qqp", "variant": "contours", "seed": 0, "arm": {}, "contours": drawn}]
        >>> [(row["seed"], head) for row, head in panels(results(rows))]
        [(0, 0), (0, 1)]
    """
    found = [row for row in data.rows if "contours" in row]
    return [(row, head) for row in found for head in range(len(row["contours"]["heads"]))]


def caption(row: Row, head: int) -> str:
    """What the map is of: "qqp, head of adam, seed 0"."""
    return f"{row['task']}, head of {row['contours']['heads'][head]['head']}, seed {row['seed']}"


def svg(row: Row, head: int, *, name: str = "") -> str:
    """One map as SVG with a transparent ground; ``name`` as for `trainflat.reports.drawing.named`."""
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(SIZE[0], SIZE[0] * 0.9), layout="constrained")
        _draw(figure.subplots(), row["contours"], head, INK)
        return inline(figure, name)


def png(row: Row, path: str | Path, head: int) -> Path:
    """One map as a picture on white."""
    with style(DARK):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(SIZE[0], SIZE[0] * 0.95), layout="constrained", facecolor="white")
        _draw(figure.subplots(), row["contours"], head, DARK, title=caption(row, head))
        return save(figure, path)


def describe(row: Row, head: int) -> str:
    """The map in words, for those who do not see it."""
    drawn = row["contours"]
    at = ", ".join(
        f"{value:.3g} at {label}" for label, value in zip(drawn["labels"], drawn["heads"][head]["points"], strict=True)
    )
    apart = np.hypot(*np.subtract(drawn["points"][2], drawn["points"][1]))
    lowest = float(np.min(drawn["heads"][head]["losses"]))
    ends = " and ".join(drawn["labels"][1:])
    return f"Loss map of {caption(row, head)}: {at}; lowest on the grid {lowest:.3g}; {ends} are {apart:.3g} apart."


def _draw(axes: Any, drawn: Mapping[str, Any], head: int, ink: str, title: str = "") -> None:
    """Lines of equal loss, the same levels for every head; the lower, the stronger the colour."""
    levels = _levels(np.concatenate([np.ravel(one["losses"]) for one in drawn["heads"]]))
    x, y, losses = drawn["x"], drawn["y"], np.asarray(drawn["heads"][head]["losses"])
    red, green, blue = (int(COLOURS[1][i : i + 2], 16) / 255 for i in (1, 3, 5))
    shades = [(red, green, blue, alpha) for alpha in np.linspace(0.55, 0.0, LEVELS - 1)]
    axes.contourf(x, y, losses, levels=levels, colors=shades)
    lines = axes.contour(x, y, losses, levels=levels[1:-1], colors=ink, linewidths=0.6, alpha=0.55)
    axes.clabel(lines, fmt=_short(levels), fontsize=7.5, colors=ink)
    looks = [(ink, "X"), *zip(COLOURS, MARKERS, strict=True)]
    for (px, py), label, (colour, marker) in zip(drawn["points"], drawn["labels"], looks):
        axes.plot(
            [px], [py], marker, color=colour, markersize=8, markeredgecolor="white", markeredgewidth=0.8, zorder=5
        )
        words = axes.annotate(label, (px, py), (7, 6), textcoords="offset points", fontweight="bold", zorder=6)
        words.set_parse_math(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if 1 / WIDEST <= (x[-1] - x[0]) / (y[-1] - y[0]) <= WIDEST:
        axes.set_aspect("equal")
    axes.set_xlabel("distance in weight space")
    axes.set_ylabel("distance")
    axes.set_title(title, loc="left")
    axes._left_title.set_parse_math(False)


def _levels(losses: np.ndarray) -> np.ndarray:
    """From the lowest to the highest at equal ratios if that is half as much again, else at equal steps."""
    low, high = float(losses.min()), float(losses.max())
    return np.geomspace(low, high, LEVELS) if 0 < 1.5 * low < high else np.linspace(low, max(high, low + 1e-9), LEVELS)


def _short(levels: np.ndarray) -> Callable[[float], str]:
    """Writes a level with as few digits as tell all of them apart.

    >>> _short(np.array([2.41, 2.42]))(2.41), _short(np.array([0.5, 1.0]))(0.5)
    ('2.41', '0.5')
    """
    digits = next((d for d in range(1, 8) if len({f"{level:.{d}g}" for level in levels}) == len(levels)), 8)
    return lambda level: f"{level:.{digits}g}"
