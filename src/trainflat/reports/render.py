"""A table written out: Markdown for a README, plain cells for a terminal, HTML for a page."""

from __future__ import annotations

import math
import re
from html import escape

from trainflat.reports.stats import Difference
from trainflat.reports.tables import Table

__all__ = ["html", "markdown", "text"]


def text(table: Table) -> list[list[str]]:
    """The header and the rows, for any printer of tables. The cells are plain: escape them if yours knows markup."""
    return [list(table.header), *(list(row) for row in table.rows)]


def markdown(table: Table) -> str:
    """The title in bold, a table as GitHub reads it, and the note.

    Example:
        >>> print(markdown(Table("points", ("", "dense"), (("Adam", "95.8 ± 0.3"),))))
        **points**
        <BLANKLINE>
        | | dense |
        |:---|---:|
        | Adam | 95.8 ± 0.3 |
        <BLANKLINE>
    """
    align = [":---" if column < table.names else "---:" for column in range(len(table.header))]
    lines = [
        f"**{_cell(table.heading)}**",
        "",
        *map(_line, [table.header]),
        "|" + "|".join(align) + "|",
        *map(_line, table.rows),
        "",
    ]
    return "\n".join([*lines, table.note, ""] if table.note else lines)


def _line(cells: tuple[str, ...]) -> str:
    return "|" + "".join(f" {_cell(cell)} |" if cell else " |" for cell in cells)


def _cell(content: str) -> str:
    """Text that Markdown takes as it is; an underscore inside a word and a bracket that opens no link need no care."""
    content = re.sub(r"([\\|*`<>]|(?<!\w)_|_(?!\w)|\[(?=.*\]\())", r"\\\1", content)
    return " ".join(content.split())


def html(table: Table) -> str:
    """A captioned table in a box of its own that scrolls when the screen is narrow; differences are drawn as well."""
    drawn = bool(table.differences)
    head = "".join(f'<th scope="col"{_kind(table, i)}>{escape(name)}</th>' for i, name in enumerate(table.header))
    head += '<th scope="col" class="drawn">difference and interval, 0 marked</th>' if drawn else ""
    ends = _ends(table)
    body = []
    for number, row in enumerate(table.rows):
        d = table.differences[number] if drawn else None
        cells = "".join(_td(table, i, cell) for i, cell in enumerate(row))
        other = table.others[number] if table.others else None
        inside = f"<div>{interval(d, *ends, other)}</div>" if d else ""
        drawing = f'<td class="drawn">{inside}</td>' if drawn else ""
        verdict = table.verdicts[number] if table.verdicts else d.verdict if d else ""
        body.append(f"<tr{_class(verdict)}>{cells}{drawing}</tr>")
    label = escape(table.heading, quote=True)
    kinds = ["table", "differences" if drawn else "", table.kind]
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<figure class="{" ".join(filter(None, kinds))}"><figcaption>{_caption(table.title)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{note}</figure>"
    )


def _caption(title: str) -> str:
    """What it shows, and smaller what the numbers are."""
    what, _, unit = title.partition("; ")
    return f"{escape(what)} <small>{escape(unit)}</small>" if unit else escape(what)


def _td(table: Table, column: int, content: str) -> str:
    if column < table.names:
        return f'<th scope="row">{escape(content)}</th>'
    value, plus_minus, spread = content.partition(" ± ")
    tail = f" <small>± {escape(spread)}</small>" if plus_minus else ""
    return f"<td>{escape(value)}{tail}</td>"


def _kind(table: Table, column: int) -> str:
    return ' class="name"' if column < table.names else ""


def _class(verdict: str) -> str:
    return f' class="{verdict.replace(" ", "-")}"' if verdict else ""


def interval(d: Difference, left: float, right: float, other: Difference | None = None) -> str:
    """A difference and its interval as a small drawing, zero marked, on a scale that reaches from ``left`` to ``right``.

    Beneath it, thinner, ``other``.
    """
    at = lambda value: round(2 + 96 * (value - left) / (right - left), 2)
    reach = lambda d: [at(d.mean if bound is None else bound) for bound in (d.low, d.high)]
    (low, high), beneath, dot = reach(d), "", ""
    if other is not None:
        beneath = '<path class="beneath" d="M{} 13.5H{}"/>'.format(*reach(other))
        dot = f'<i class="beneath" style="left:{at(other.mean)}%"></i>'
    return (
        '<svg class="interval" viewBox="0 0 100 16" aria-hidden="true" preserveAspectRatio="none">'
        f'<path class="zero" d="M{at(0)} 0V16"/><path class="reach" d="M{low} 8H{high}"/>{beneath}</svg>'
        f'<i style="left:{at(d.mean)}%"></i>{dot}'
    )


def _ends(table: Table) -> tuple[float, float]:
    """Left and right of the scale on which all differences of a table are drawn: zero within."""
    drawn = [d for d in (*table.differences, *table.others) if d is not None]
    known = [b for d in drawn for b in (d.mean, d.low, d.high) if b is not None and math.isfinite(b)]
    left, right = min([*known, 0.0]), max([*known, 0.0])
    return (left, right) if left < right else (-1.0, 1.0)
