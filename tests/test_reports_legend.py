"""The names of a panel's curves hide none of them, wherever they pass."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from trainflat.reports import legend
from trainflat.reports.drawing import style

BLOCKS = {  # where a line goes from and to, as shares of the panel
    "lower left": [(0.0, 0.3), (0.3, 0.0)],
    "lower right": [(0.7, 0.0), (1.0, 0.3)],
    "upper right": [(0.7, 1.0), (1.0, 0.7)],
    "upper left": [(0.0, 0.7), (0.3, 1.0)],
}


def panel(lines, names=None):
    """A panel with these lines, its legend placed, and the legend's box as shares of the panel."""
    with style():
        figure = Figure(figsize=(4.5, 3.1), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        handles = [axes.plot(*zip(*line))[0] for line in lines]
        legend.place(axes, handles, names or [f"arm {i}" for i in range(len(lines))])
        figure.draw_without_rendering()
        box = axes.get_legend().get_window_extent().transformed(axes.transAxes.inverted())
    return box


def hidden(box, line):
    """By brute force: whether one of ten thousand points of a line lies in the box."""
    x, y = np.array(line).T
    at = np.linspace(0, len(x) - 1, 10_001)
    x, y = np.interp(at, range(len(x)), x), np.interp(at, range(len(y)), y)
    return bool(np.any((box.x0 <= x) & (x <= box.x1) & (box.y0 <= y) & (y <= box.y1)))


@pytest.mark.parametrize("free", [*BLOCKS, None])
def test_the_names_stand_in_the_corner_that_is_free_and_else_beside(free):
    box = panel([line for corner, line in BLOCKS.items() if corner != free])
    if free is None:
        assert box.x0 > 1
    else:
        down, side = free.split()
        assert (box.y1 < 0.5) == (down == "lower")
        assert (box.x1 < 0.5) == (side == "left")


@pytest.mark.parametrize("seed", range(12))
def test_no_line_passes_under_the_names(seed):
    random = np.random.default_rng(seed)
    x = np.linspace(0, 1, 6)
    lines = [list(zip(x, 0.5 + random.uniform(-0.5, 0.5) + 0.3 * random.normal(size=6) * x)) for _ in range(3)]
    box = panel(lines, ["Adam", "SAM", "a name that takes a little more room"])
    assert not any(hidden(box, line) for line in lines)


def test_nor_does_a_band():
    with style():
        axes = Figure(figsize=(4.5, 3.1), layout="constrained").subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        (line,) = axes.plot([0, 1], [0.5, 0.5])
        axes.fill_between([0, 1], [0, 0.4], [0.6, 0.6])  # over the lower left, not over the lower right
        legend.place(axes, [line], ["Adam"])
        axes.figure.draw_without_rendering()
        box = axes.get_legend().get_window_extent().transformed(axes.transAxes.inverted())
    assert box.x0 > 0.5
    assert box.y1 < 0.5


def test_many_names_stand_beside_however_free_the_panel_is():
    assert panel([[(0.4, 0.5), (0.6, 0.5)]] * legend.INSIDE).x1 < 1
    assert panel([[(0.4, 0.5), (0.6, 0.5)]] * (legend.INSIDE + 1)).x0 > 1


def test_names_that_matplotlib_would_read_otherwise_are_measured_as_they_are():
    box = panel([[(0.4, 0.5), (0.6, 0.5)]], ["costs $5, not $^"])
    assert 0 < box.x0 < box.x1 < 1
