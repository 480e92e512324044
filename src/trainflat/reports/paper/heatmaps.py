"""The four transfer maps, drawn with their numbers in the cells and told in tables; the paper's beside ours.

Blue is above 0, orange below, the ground 0; the scale is the same in all maps and symmetric about 0, so a pale map is a map
of small differences. Colours are laid over the ground, which makes one drawing serve light and dark pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainflat.reports.drawing import COLOURS, DARK, INK, inline, save, style
from trainflat.reports.numbers import MISSING, bounds, signed
from trainflat.reports.paper.transfer import Map, cells_of, maps, margins, papers
from trainflat.reports.rows import Results
from trainflat.reports.tables import ALONE, Table

__all__ = ["describe", "heat_tables", "kind", "png", "shown", "svg", "whose"]

FULL = 0.05
"""The difference, 5 points, at which a colour is full: beyond it the number tells."""

BELOW, ABOVE = COLOURS[0], COLOURS[1]
STRONGEST = 0.7  # of a colour over the ground: text keeps 4.5 : 1 on it, light and dark
ONE_SEED = "One seed: no interval, and nothing can be told."


def svg(m: Map, *, name: str = "") -> str:
    """One map as SVG; ``name`` as for `trainflat.reports.drawing.named`.

    Example:
        >>> svg(papers()["A"]).count("10.5")
        1
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=_size(m), layout="constrained")
        _draw(figure.subplots(), m, INK)
        return inline(figure, name)


def png(data: Results, path: str | Path) -> Path:
    """All maps as one picture on white, ours left, the paper's right.

    Raises:
        ValueError: If the rows hold no map.
    """
    found = maps(data)
    if not found:
        raise ValueError(
            "there is no map in these rows; a map needs tickets whose arm has source, target, mask and final"
        )
    with style(DARK):
        from matplotlib.figure import Figure

        paper = papers()
        sides = [_size(found[0]), _size(paper["A"])]
        size = sum(width for width, _ in sides), max(height for _, height in sides) * len(found)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        for line, ours in zip(figure.subplots(len(found), 2, squeeze=False), found, strict=True):
            for axes, m in zip(line, (ours, paper[ours.key]), strict=True):
                _draw(axes, m, DARK)
                axes.set_box_aspect(0.31 * axes.get_ylim()[0] / 4)  # fewer tasks: a smaller map, not taller cells
                axes.set_anchor("N")
                axes.set_title(f"{m.key}. {m.title}\n{whose(m)}" if m is ours else whose(m), loc="left", fontsize=9)
        return save(figure, path)


def whose(m: Map) -> str:
    """Whose map it is, and over how many seeds.

    >>> whose(papers()["A"])
    'the paper: BERT-base, seeds not stated'
    """
    if m.origin is None:
        return "the paper: BERT-base, seeds not stated"
    counts = sorted({len(by) for by in m.seeds.values()})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{m.origin.kind}: {m.origin}, n = {n}"


def describe(m: Map) -> str:
    """The map in words, for those who do not see it."""
    cells = cells_of(m)
    told = [f"{signed(mean)} over {name}" for name, of in cells.items() if (mean := m.mean(of)) is not None]
    return f"{m.title}, {whose(m)}: {', '.join(told)}; in points."


def heat_tables(data: Results) -> list[Table]:
    """Each of our maps as a table of numbers and as a table of tested means beside the paper's.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> numbers, means, *_ = heat_tables(results(paper_rows("fig13-transfer")))
        >>> numbers.header, means.rows[0][0]
        (('ticket of', 'stsb', 'mrpc', 'rte', 'cola', 'mean'), 'all cells')
    """
    return [table for m in maps(data) for table in (_numbers(m), _means(m))]


def _numbers(m: Map) -> Table:
    at = margins(m)
    lines = []
    for source in m.sources:
        cells = [shown(m.values.get((source, target))) for target in m.targets]
        lines.append((source, *cells, shown(m.row(source))))
    columns = [shown(m.mean(at[f"onto {target}"])) for target in m.targets]
    lines.append(("mean", *columns, shown(m.mean(m.values))))
    title = f"Map {m.key}, {m.title}; {whose(m)}, in points, columns are the targets"
    return Table(title, ("ticket of", *m.targets, "mean"), tuple(lines), kind=kind(m))


def _means(m: Map) -> Table:
    """Overall, on and off the diagonal, by source and by target: the paper's, the paper's where ours are, ours with interval."""
    paper, lines, found = papers()[m.key], [], []
    groups = {**cells_of(m), **margins(m)}
    whole = {**cells_of(paper), **margins(paper)}
    for name, cells in groups.items():
        if (d := m.test(cells)) is None:
            continue
        source = name.removeprefix("tickets of ")
        theirs = shown(paper.averages.get(source, paper.mean(whole.get(name, ()))))
        same = shown(paper.mean(cells)) if all(at in paper.values for at in cells) else MISSING
        lines.append((name, theirs, same, signed(d.mean), bounds(d), str(d.n), d.verdict))
        found.append(d)
    header = (
        "mean over",
        "paper, all its tasks",
        "paper, our tasks",
        m.origin.kind if m.origin else "paper",
        "95 % CI",
        "n",
        f"{_arm(m)} is",
    )
    note = f"One number a seed, Student’s t over seeds. The paper’s have no interval: its seeds are not stated. {ALONE}"
    if found and all(d.n == 1 for d in found):
        note += f" {ONE_SEED}"
    title = f"Map {m.key}, tested means; {whose(m)}, in points"
    return Table(title, header, tuple(lines), note=note, differences=tuple(found), kind=kind(m))


def _arm(m: Map) -> str:
    return "a SAM ticket" if m.key in "AB" else "training with SAM"


def kind(m: Map) -> str:
    """The style sheet's word for whose map it is."""
    return "" if m.origin is None or m.origin.paper else "stand-in"


def shown(share: float | None) -> str:
    """A difference in points, a dash for none."""
    return MISSING if share is None else signed(share)


def _size(m: Map) -> tuple[float, float]:
    """Inches; a cell is wide enough for "−10.5" on a phone."""
    return 4.5, 0.75 + 0.31 * (len(m.sources) + 1.3)


def _draw(axes: Any, m: Map, ink: str) -> None:
    """Cells, and a little apart from them the means of rows and columns."""
    from matplotlib.patches import Rectangle

    rows, columns, gap = len(m.sources), len(m.targets), 0.25
    at = margins(m)
    boxes: dict[tuple[float, float], float | None]
    boxes = {(j, i): m.values.get((s, t)) for i, s in enumerate(m.sources) for j, t in enumerate(m.targets)}
    boxes |= {(columns + gap, i): m.row(s) for i, s in enumerate(m.sources)}
    boxes |= {(j, rows + gap): m.mean(at[f"onto {t}"]) for j, t in enumerate(m.targets)}
    boxes[columns + gap, rows + gap] = m.mean(m.values)
    for (x, y), share in boxes.items():
        if share is None:
            continue
        colour = ABOVE if share > 0 else BELOW
        alpha = STRONGEST * min(abs(share) / FULL, 1.0)
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
        axes.text(x + 0.5, y + 0.53, signed(share).lstrip("+"), ha="center", va="center", fontsize=8, color=ink)
    axes.set_xlim(0, columns + gap + 1)
    axes.set_ylim(rows + gap + 1, 0)
    axes.set_xticks([*(j + 0.5 for j in range(columns)), columns + gap + 0.5], [*m.targets, "mean"])
    axes.set_yticks([*(i + 0.5 for i in range(rows)), rows + gap + 0.5], [*m.sources, "mean"])
    axes.tick_params(length=0, labelsize=8.5, labeltop=True, labelbottom=False)
    axes.set_ylabel("ticket of")
    for side in axes.spines.values():
        side.set_visible(False)
