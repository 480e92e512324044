"""Where the names of a panel's curves stand: where they hide none."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from trainflat.reports.drawing import any_letter

__all__ = ["place", "short"]

CORNERS = ("lower left", "lower right", "upper right", "upper left")
INSIDE = 5
"""With more names no corner is large enough; they stand beside the curves."""

BESIDE = 20
"""Letters of a line there, so that a long name does not take the curves' place."""


def place(axes: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """The names in the first corner of a panel through which no line and no band passes, else beside it.

    Args:
        axes: A panel of matplotlib, with its lines and limits.
        handles: The lines to be named.
        labels: Their names.
    """
    corners = CORNERS if len(labels) <= INSIDE else ()
    if corners:
        with any_letter():
            axes.figure.get_layout_engine().execute(axes.figure)  # the panel lies where it will be drawn
    for corner in corners:
        legend = axes.legend(handles, [short(label) for label in labels], loc=corner)
        if not _hides(axes, legend):
            return
    names = [fill(short(label), BESIDE) for label in labels]
    _literally(axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.0)))


def short(label: str, most: int = 34) -> str:
    """A label that fits into a panel; matplotlib would leave out one that starts with an underscore.

    Example:
        >>> short("Train Flat, Then Compress", most=12)
        'Train Flat,…'
    """
    label = label if len(label) <= most else f"{label[: most - 1]}…"
    return f" {label}" if label.startswith("_") else label


def _hides(axes: Any, legend: Any) -> bool:
    """Whether a line or the band around one passes under the legend."""
    _literally(legend)
    with any_letter():
        box = legend.get_window_extent()
    lines = (line.get_path().transformed(line.get_transform()) for line in axes.lines)
    bands = (path.transformed(band.get_transform()) for band in axes.collections for path in band.get_paths())
    return any(path.intersects_bbox(box, filled=False) for path in lines) or any(
        path.intersects_bbox(box, filled=True) for path in bands
    )


def _literally(legend: Any) -> None:
    """A name may hold a $."""
    for words in legend.get_texts():
        words.set_parse_math(False)
