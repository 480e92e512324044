"""The paper's tables with our numbers in them, and in sentences which of its claims they show.

Where ours are of a stand-in every title, label and drawing says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from trainflat.reports.numbers import MISSING, bounds, counted, plus_minus, signed, with_bounds
from trainflat.reports.paper.effects import Argument, Level, Origin, arguments, concerned, levels
from trainflat.reports.paper.reference import PaperTable, reference
from trainflat.reports.rows import Results
from trainflat.reports.tables import ALONE, Table

__all__ = ["VERDICTS", "besides", "claims", "reached"]

RAISED = "¹²³⁴⁵⁶⁷⁸⁹"
VERDICTS = {"seen": "better", "opposite": "worse"}  # as the style sheet colours them
WELCH = (
    "Welch’s interval from mean, s.d. and n of both sides; none where a side has no s.d. (one seed, or none printed)."
)
ROUNDED = "The paper’s numbers are rounded as printed."
NO_REPLICATION = (
    "Not a replication: the stand-in is {}, the paper’s own is {}. Its differences are those of two models, "
    "data sets or settings."
)
PAIRS = "The paper’s interval is Welch’s from its s.d., ours is paired over seeds; ours is drawn above the paper’s. {}"
SEEN = "“Seen”: our interval excludes 0 on the paper’s side; “opposite”: on the other."

PAPERS = Origin(reference().model, official=True)


def besides(data: Results, *, only: Collection[str] | None = None) -> list[Table]:
    """The effects, then the levels, of every table of the paper that the rows' recipes are about and that they reach.

    ``only`` are the keys of the tables to tell about; default: all.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> for table in besides(results(paper_rows("table8-int8"))):
        ...     print(table.title.partition(";")[0])
        Table 8, effects beside those of a stand-in: MiniLM, data whole
        Table 8, values beside those of a stand-in: MiniLM, data whole
    """
    tables = []
    for table, found, answers in reached(data, only):
        for origin in dict.fromkeys(level.origin for level in found):
            tables += [_effects(table, [a for a in answers if a.origin == origin], origin)]
            tables += [_levels(table, [x for x in found if x.origin == origin and not x.cell.hidden], origin)]
    return [table for table in tables if table is not None]


def claims(data: Results, *, only: Collection[str] | None = None) -> list[str]:
    """A sentence for each table, effect and origin: how many of the paper's effects ours show.

    ``only`` as for `besides`.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.paper.example_paper import paper_rows
        >>> print(claims(results(paper_rows("table8-int8", seeds=[0])))[0])
        Table 8, SAM − Adam, on a stand-in (MiniLM, data whole): of the paper’s 8 effects we see 0, the opposite of 0, and \
cannot tell 8; of the 1 that exclude 0 in the paper itself we see 0. One seed tells nothing.
    """
    return [
        _claim(table, [a for a in answers if str(a.effect) == effect and a.origin == origin and a.effect.axis == axis])
        for table, found, answers in reached(data, only)
        for origin in dict.fromkeys(level.origin for level in found)
        for axis, effect in dict.fromkeys((a.effect.axis, str(a.effect)) for a in answers if a.origin == origin)
    ]


def reached(data: Results, only: Collection[str] | None) -> list[tuple[PaperTable, list[Level], list[Argument]]]:
    """The tables that the rows' recipes are about and that the rows reach, each with what was found."""
    tables = concerned({str(row.get("recipe") or "") for row in data.rows})
    found = [(table, levels(data, table)) for table in tables if only is None or table.key in only]
    return [(table, of, arguments(of, table)) for table, of in found if of]


def _claim(table: PaperTable, answers: Sequence[Argument]) -> str:
    singles = [a for a in answers if not a.mean]
    origin, effect = answers[0].origin, answers[0].effect
    where = "" if origin.paper else f", on a stand-in ({origin})"
    axis = "" if effect.axis == "optimizer" else f" ({effect.axis})"
    counts = {word: sum(a.verdict == word for a in singles) for word in ("seen", "opposite", "cannot tell")}
    own = [a for a in singles if a.paper.verdict != "cannot tell"]
    clear = (
        f"; of the {len(own)} that exclude 0 in the paper itself we see {sum(a.verdict == 'seen' for a in own)}"
        if own
        else ""
    )
    said = (
        f"{table.name}, {effect}{axis}{where}: of the paper’s {len(singles)} effects we see {counts['seen']}, the opposite of "
        f"{counts['opposite']}, and cannot tell {counts['cannot tell']}{clear}."
    )
    return said + (" One seed tells nothing." if {a.ours.n for a in singles} == {1} else "")


def _effects(table: PaperTable, answers: Sequence[Argument], origin: Origin) -> Table | None:
    """A line an effect and task; the paper's drawn beneath ours."""
    if not answers:
        return None
    notes = _Notes()
    lines = []
    for a in answers:
        paper = signed(a.paper.mean) + notes.marks(a.notes)
        said = f"{a.verdict} here" if not origin.paper and a.verdict in VERDICTS else a.verdict
        ours = (signed(a.ours.mean), bounds(a.ours), counted(a.ours))
        lines.append((a.what, a.column, paper, bounds(a.paper), *ours, said))
    header = ("effect", "task", "paper", "its 95 % CI", origin.kind, "its 95 % CI", "n", "the paper’s effect is")
    title = f"{table.name}, effects beside {_whose(origin)}; {_unit(table)}"
    hidden = "The paper’s are of the test server, ours of the validation set." if _hidden(table, answers) else ""
    told = " ".join(filter(None, [f"Claim: {table.claim}" if table.claim else "", hidden, SEEN, PAIRS.format(ALONE)]))
    return Table(
        title,
        header,
        tuple(lines),
        names=2,
        note=f"{told}{notes}",
        differences=tuple(a.ours for a in answers),
        others=tuple(a.paper for a in answers),
        verdicts=tuple(VERDICTS.get(a.verdict, "cannot tell") for a in answers),
        kind="dense" if origin.paper else "dense stand-in",
    )


def _levels(table: PaperTable, found: Sequence[Level], origin: Origin) -> Table | None:
    """As the paper prints it, ours beneath each line, and the difference beneath ours."""
    if not found:
        return None
    notes = _Notes()
    at = {(level.cell.row, level.cell.column): level for level in found}
    columns = [c for c in dict.fromkeys(column for _, column in table.cells) if any(c == column for _, column in at)]
    counts = {len(level.values) for level in found}
    lines = []
    for row in dict.fromkeys(level.cell.row for level in found):
        cells = [at.get((row, column)) for column in columns]
        paper = [table.cells.get((row, column)) for column in columns]
        lines += [
            (row, "paper", *(f"{cell}{notes.marks(cell.notes)}" if cell else MISSING for cell in paper)),
            ("", origin.kind, *(_measured(level, len(counts) > 1) for level in cells)),
            ("", f"{origin.kind} − paper", *(_apart(level) for level in cells)),
        ]
    n = f", n = {counts.pop()} ({origin.kind})" if len(counts) == 1 else ""
    title = f"{table.name}, values beside {_whose(origin)}; mean ± s.d. and difference [95 % CI], {_unit(table)}{n}"
    whole = "" if origin.paper else NO_REPLICATION.format(origin, PAPERS) + " "
    kind = "beside" if origin.paper else "beside stand-in"
    return Table(title, ("", "", *columns), tuple(lines), names=2, note=f"{whole}{WELCH} {ROUNDED}{notes}", kind=kind)


class _Notes:
    """Footnotes of one table in the order in which its cells need them."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def marks(self, notes: Iterable[str]) -> str:
        """The raised numbers of some footnotes."""
        self.texts += [note for note in notes if note not in self.texts]
        return "".join(RAISED[i] for i, text in enumerate(self.texts) if text in notes)

    def __str__(self) -> str:
        return "".join(f" {RAISED[i]} {text}" for i, text in enumerate(self.texts))


def _whose(origin: Origin) -> str:
    return f"ours: {origin}" if origin.paper else f"those of a stand-in: {origin}"


def _unit(table: PaperTable) -> str:
    return "in points" if table.unit == "points" else "sharpness, lower is flatter"


def _hidden(table: PaperTable, answers: Sequence[Argument]) -> bool:
    columns = {a.column for a in answers}
    return any(cell.hidden for cell in table.cells.values() if cell.column in columns)


def _measured(level: Level | None, counted: bool) -> str:
    if level is None:
        return MISSING
    return plus_minus(level.values.values()) + (f" (n = {len(level.values)})" if counted else "")


def _apart(level: Level | None) -> str:
    if level is None:
        return MISSING
    return with_bounds(level.difference, "(no interval)")
