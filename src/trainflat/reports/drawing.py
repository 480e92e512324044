"""How every figure is drawn: in the colour of the text around it, and the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainflat.reports.files import write

__all__ = ["COLOURS", "DARK", "INK", "MARKERS", "SIZE", "any_letter", "inline", "named", "plain", "save", "style"]

INK = "#010203"
"""Stands for the colour of the text around, until the SVG is written."""

DARK = "#1c1e21"
"""The ink of a picture on white."""

COLOURS = ("#d0690f", "#2f7fd6", "#1a9a68", "#a463d6", "#d6457f", "#7f858d")
"""At least 3.3 : 1 against white and against near-black, and told apart by the colour-blind with the help of the markers."""

MARKERS = ("o", "s", "^", "D", "v", "P")
SIZE = (4.5, 3.1)  # inches of a panel; as wide as a phone shows it without making the letters small

STANDALONE = (
    "<style>svg{color:#1c1e21;font-family:sans-serif}@media(prefers-color-scheme:dark){svg{color:#e4e6e9}}</style>"
)


def inline(figure: Any, name: str = "") -> str:
    """A matplotlib figure, drawn within `style`, as SVG with a transparent ground; ``name`` as for `named`."""
    return named(plain(figure), name)


def plain(figure: Any) -> str:
    """A matplotlib figure, drawn within `style`, as SVG that is neither of a page nor of a file yet: for `named`."""
    raw = io.StringIO()
    with any_letter():
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = raw.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' (width|height)="[\d.]+pt"', "", drawing, count=2).replace(
        "<svg ", '<svg stroke-linejoin="round" ', 1
    )
    drawing = re.sub(r"font-family: [^;\"]*; ", "", drawing).replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    return drawing.replace("xlink:href=", "href=")


def named(drawing: str, name: str = "") -> str:
    """An SVG of `plain` for a page, or as a file.

    Args:
        drawing: The SVG.
        name: Prefix of every id in it, so that several can stand in one page, whose text colour it then takes. Without one it
            is a file of its own, dark on light or light on dark as the reader prefers.
    """
    if not name:
        return drawing.replace(">", f">{STANDALONE}", 1)
    drawing = drawing.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    return re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", drawing)


def save(figure: Any, path: str | Path, dpi: int = 160) -> Path:
    """A matplotlib figure as PNG, whole or not at all."""
    raw = io.BytesIO()
    with any_letter():
        figure.savefig(raw, format="png", dpi=dpi, metadata={"Software": None})
    return write(path, raw.getvalue())


@contextmanager
def style(ink: str = INK) -> Iterator[None]:
    """Matplotlib's settings for our figures, and its own again afterwards."""
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
        all_of_them: Any = {**sizes, **inked, **lines, **fixed, **title}
        matplotlib.rcParams.update(all_of_them)
        yield


@contextmanager
def any_letter() -> Iterator[None]:
    """A letter that matplotlib's font lacks is measured as a box; in SVG the reader's own font draws it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
