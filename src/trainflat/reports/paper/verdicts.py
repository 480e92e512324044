"""One line for each claim of the paper: what it reports, what ours show, and the verdict; ours and stand-ins apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from trainflat.reports.numbers import MISSING, with_bounds
from trainflat.reports.paper.effects import Argument, Origin, judged
from trainflat.reports.paper.printed_tables import VERDICTS, reached
from trainflat.reports.paper.reference import PaperTable, reference
from trainflat.reports.paper.transfer import Map, argued, maps, papers
from trainflat.reports.rows import Results
from trainflat.reports.stats import Difference
from trainflat.reports.tables import ALONE, Table

__all__ = ["Line", "lines", "verdicts"]

NOTE = (
    "Means over tasks, one number a seed; the paper’s interval is Welch’s from its s.d., drawn beneath ours. “By task” counts on "
    "how many tasks (for sharpness: in each box) the effect is seen, is the opposite, and cannot be told. The paper’s maps have "
    f"no interval: how many seeds they are of is not stated. {ALONE}"
)


@dataclass(frozen=True)
class Line:
    """One claim: ``paper`` and ``ours`` are None where the tasks have no common scale."""

    where: str
    effect: str
    over: str
    origin: Origin
    paper: Difference | None
    ours: Difference | None
    counts: tuple[int, int, int] | None
    verdict: str


def verdicts(rows: Iterable[Line]) -> list[Table]:
    """The lines as tables, one for each origin.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> [table] = verdicts(lines(results(paper_rows("table8-int8"))))
        >>> table.rows[1][:3], table.rows[1][-1]
        (('Table 8', 'SAM int8 − Adam int8', 'mean of 4'), 'seen here')
    """
    every = list(rows)
    return [
        _table(origin, [x for x in every if x.origin == origin]) for origin in dict.fromkeys(x.origin for x in every)
    ]


def lines(data: Results, *, only: Collection[str] | None = None) -> list[Line]:
    """What rows of one run say about the claims of the tables ``only``, and of the maps ("maps"); default: all."""
    found = []
    for table, _, answers in reached(data, only):
        for origin in dict.fromkeys(a.origin for a in answers):
            for key in dict.fromkeys((a.effect, a.what) for a in answers):
                same = [a for a in answers if (a.effect, a.what) == key and a.origin == origin]
                found += [_of_table(table, key[1], same)] if same else []
    return [*found, *(_of_map(m) for m in maps(data) if only is None or "maps" in only)]


def _of_table(table: PaperTable, what: str, answers: list[Argument]) -> Line:
    singles = [a for a in answers if not a.mean]
    whole = next((a for a in answers if a.mean), singles[0] if len(singles) == 1 else None)
    counts = tuple(sum(a.verdict == word for a in singles) for word in ("seen", "opposite", "cannot tell"))
    assert len(counts) == 3
    origin = answers[0].origin
    if whole is None:
        return Line(table.name, what, "each task", origin, None, None, counts, MISSING)
    return Line(table.name, what, whole.column, origin, whole.paper, whole.ours, counts, whole.verdict)


def _of_map(m: Map) -> Line:
    name, cells = argued(m)
    theirs, d = papers()[m.key].mean(cells), m.test(cells)
    paper = None if theirs is None else Difference(theirs, None, None, 0, "unpaired")
    word = judged(theirs, d) if theirs is not None and d is not None else MISSING
    assert m.origin is not None, "ours have an origin"
    return Line(f"Map {m.key}", _short(m), name, m.origin, paper, d, None, word)


def _short(m: Map) -> str:
    """The map's difference in few words: "mask SAM − Adam, final SAM"."""
    known = next(found for found in reference().maps if found.key == m.key)
    fixed = ", ".join(f"{axis} {label}" for axis, label in known.fixed.items())
    return f"{known.effect.axis} {known.effect}, {fixed}"


def _table(origin: Origin, found: list[Line]) -> Table:
    rows = []
    for x in found:
        shown = [MISSING if d is None else with_bounds(d) for d in (x.paper, x.ours)]
        said = f"{x.verdict} here" if not origin.paper and x.verdict in VERDICTS else x.verdict
        n = str(x.ours.n) if x.ours else MISSING
        counts = " · ".join(map(str, x.counts or [])) or MISSING
        rows.append((x.where, x.effect, x.over, *shown, n, counts, said))
    of = f"ours: {origin}" if origin.paper else f"a stand-in: {origin}"
    header = ("table", "effect", "over", "paper", origin.kind, "n", "by task", "the effect is")
    return Table(
        f"What the paper reports, and {of}; in points with 95 % CI, by task: seen · opposite · cannot tell",
        header,
        tuple(rows),
        names=3,
        note=NOTE,
        differences=tuple(x.ours for x in found),
        others=tuple(x.paper for x in found),
        verdicts=tuple(VERDICTS.get(x.verdict, "cannot tell") for x in found),
        kind="dense" if origin.paper else "dense stand-in",
    )
