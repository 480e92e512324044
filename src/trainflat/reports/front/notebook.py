"""What a notebook shows of a search: what was chosen and why, the front as a table, and its picture on white."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from trainflat.reports.drawing import DARK, style
from trainflat.reports.front import front_figure
from trainflat.reports.front.offers import Offer
from trainflat.reports.front.pareto import marked
from trainflat.reports.numbers import percent, plus_minus
from trainflat.reports.rows import Results, Row, results

__all__ = ["figure", "html"]

CELL = ' style="text-align:{}"'


def html(
    rows: Iterable[Row] | Results, task: str, front: Sequence[Offer], chosen: Mapping[str, Any] | None, said: str
) -> str:
    """Self-contained HTML, without a script and without a style sheet, so that it shows alike in every notebook.

    Args:
        task: One of theirs.
        front: The offers that the table lists.
        chosen: As a report's header has it.
        said: The sentence on top.

    Example:
        >>> from trainflat.reports.front import example_front
        >>> made, chosen = example_front.offers(), example_front.header()["chosen"]
        >>> html(example_front.rows(), "reviews", made[:2], chosen, "Chosen: a & b.")[:53]
        '<div><p>Chosen: a &amp; b.</p><table><thead><tr><th s'
    """
    data = results(rows)
    names = ("model", data.metric(task), "ms", "MB", "weights gone")
    head = "".join(f"<th{_align(i)}>{escape(name)}</th>" for i, name in enumerate(names))
    best = marked(front, chosen)
    body = "".join(f"<tr>{''.join(_cells(offer, offer == best))}</tr>" for offer in front)
    return (
        f"<div><p>{escape(said)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{_picture(data, task, chosen)}</div>"
    )


def figure(rows: Iterable[Row] | Results, task: str, chosen: Mapping[str, Any] | None = None) -> Any:
    """The front as a figure of matplotlib, dark on white, the chosen model marked.

    Raises:
        ValueError: If fewer than two models have both a metric and a measured cost.
    """
    with style(DARK):
        return front_figure.figure(front_figure.fronts(results(rows), task, chosen), facecolor="white")


def _picture(data: Results, task: str, chosen: Mapping[str, Any] | None) -> str:
    if not (drawn := front_figure.fronts(data, task, chosen)):
        return ""
    raw = io.BytesIO()
    with style(DARK):
        made = front_figure.figure(drawn, facecolor="white")
        made.savefig(raw, format="png", dpi=110, metadata={"Software": None})
    coded = base64.b64encode(raw.getvalue()).decode()
    told = "; ".join(map(front_figure.describe, drawn))
    return f'<img alt="{escape(told)}" src="data:image/png;base64,{coded}" style="max-width:100%">'


def _cells(offer: Offer, chosen: bool) -> list[str]:
    numbers = [plus_minus(offer.values.values()), f"{offer.latency:.2f}", f"{offer.bytes / 1e6:,.1f}"]
    name = f"<b>{escape(offer.name)}</b>, chosen" if chosen else escape(offer.name)
    return [f"<td{_align(i)}>{cell}</td>" for i, cell in enumerate([name, *numbers, percent(offer.gone)])]


def _align(column: int) -> str:
    return CELL.format("right" if column else "left")
