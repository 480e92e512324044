"""What a report about a recipe of the paper says more: the paper's tables with our numbers in them, and its heat maps."""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from pathlib import Path

from trainflat.reports import render
from trainflat.reports.numbers import with_bounds
from trainflat.reports.paper import heatmaps, printed_tables
from trainflat.reports.paper.effects import judged
from trainflat.reports.paper.transfer import Map, argued, cells_of, maps, papers
from trainflat.reports.rows import Results
from trainflat.reports.tables import Table

__all__ = ["claims", "html", "pictures", "tables"]

COLOURS = "Blue is above 0, orange below; the colour is full at 5 points, in all maps alike. The numbers are points."


def claims(data: Results, *, only: Collection[str] | None = None) -> list[str]:
    """What ours say about the paper's claims, in sentences; of the tables ``only``, and of the maps ("maps").

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> print(claims(results(paper_rows("fig13-transfer")))[0])
        Map A, SAM ticket − Adam ticket, fine-tuned with SAM, on a stand-in (MiniLM, data whole): off the diagonal paper +0.4, \
on our tasks +0.7; stand-in +0.4 [0.3, 0.5], n = 3: seen.
    """
    of_maps = [_claim(m) for m in maps(data)] if only is None or "maps" in only else []
    return [*printed_tables.claims(data, only=only), *of_maps]


def tables(data: Results, *, only: Collection[str] | None = None) -> list[Table]:
    """The comparisons and the maps as tables; ``only`` as for `claims`."""
    of_maps = heatmaps.heat_tables(data) if only is None or "maps" in only else []
    return [*printed_tables.besides(data, only=only), *of_maps]


def html(data: Results, *, name: str = "paper", only: Collection[str] | None = None) -> str:
    """HTML: the sentences, the maps, the tables. Empty if the rows have nothing to do with the paper.

    ``name`` is the prefix of every id in it; ``only`` as for `claims`.
    """
    told = "".join(f"<li>{escape(said)}</li>" for said in claims(data, only=only))
    panels = "".join(_panels(m, name, i) for i, m in enumerate(maps(data))) if only is None or "maps" in only else ""
    panels += f'<p class="note">{COLOURS}</p>' if panels else ""
    inside = f"{panels}{''.join(map(render.html, tables(data, only=only)))}"
    return f'<ul class="claims">{told}</ul>{inside}' if told else inside


def pictures(data: Results, folder: Path) -> list[Path]:
    """The maps as maps.png, if there are any."""
    return [heatmaps.png(data, folder / "maps.png")] if maps(data) else []


def _panels(ours: Map, name: str, number: int) -> str:
    """Our map, and the paper's beside it."""
    sides = (("a", heatmaps.kind(ours), ours), ("b", "the-paper", papers()[ours.key]))
    figures = "".join(
        f'<figure class="{kind}"><figcaption>{escape(m.title)} <small>{escape(heatmaps.whose(m))}</small></figcaption>'
        f'<div role="img" aria-label="{escape(heatmaps.describe(m))}">'
        f"{heatmaps.svg(m, name=f'{name}-{number}{side}')}</div></figure>"
        for side, kind, m in sides
    )
    return f'<div class="panels maps">{figures}</div>'


def _claim(m: Map) -> str:
    origin, paper = m.origin, papers()[m.key]
    assert origin is not None, "ours have an origin"
    name, cells = argued(m)
    where = "" if origin.paper else f", on a stand-in ({origin})"
    theirs, same = paper.mean(cells_of(paper)[name]), paper.mean(cells)
    ours_only = ", which has none of our tasks" if same is None else f", on our tasks {heatmaps.shown(same)}"
    shown = f"paper {heatmaps.shown(theirs)}{ours_only}"
    d = m.test(cells)
    if d is None:
        said = "no seed has all of these cells"
    else:
        word = "" if same is None else f": {judged(same, d)}"
        said = f"{with_bounds(d, '(no interval)')}, n = {d.n}{word}"
    return f"Map {m.key}, {m.title}{where}: {name} {shown}; {origin.kind} {said}."
