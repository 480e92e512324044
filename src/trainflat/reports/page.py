"""One report.html that needs nothing but itself: it opens from disk, light or dark, on a phone, on paper, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trainflat.reports import contours, curves, family_figure, files, render
from trainflat.reports.contents import contents
from trainflat.reports.departure import departure
from trainflat.reports.document import command, document, figure, panels, paragraphs, provenance, top
from trainflat.reports.front import front_page, mistakes
from trainflat.reports.numbers import signed
from trainflat.reports.paper import section
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.sentences import RULE, Finding, findings
from trainflat.reports.tables import ALONE, pairs

__all__ = ["Header", "report", "write"]

Header = Mapping[str, Any]

CAPTIONS = {"pruned": "One-shot pruning, nothing trained afterwards", "imp": "IMP: train, prune, rewind, again"}
METHOD = (
    "Lines and bands in the figures are means and one s.d. over seeds; dotted lines are the dense models.",
    "Points are the metric times 100; s.d. is the sample standard deviation over seeds (n − 1).",
    "A difference is paired over the seeds that both arms have; its 95 % interval is Student’s t with n − 1 degrees of freedom. "
    "Where fewer than two seeds are shared it is Welch’s and marked “unpaired”.",
    "“Better” and “worse” mean that the interval excludes 0, “cannot tell” that it does not: with three seeds "
    "(t = 4.30) intervals are wide, and that is not evidence of no difference. " + ALONE,
    "One-shot: global pruning of the trained weights, without training afterwards. IMP: iterative magnitude pruning, "
    "train, prune, rewind the weights, again; a value belongs to the mask that was trained with.",
    "Sparsity is the share of prunable weights that are zero, not of all weights. " + RULE,
)


def report(rows: Iterable[Row] | Results, header: Header, *, beside: Sequence[str] = ()) -> str:
    """The report as HTML: findings, then figures and tables task by task, costs, method, and where it was run.

    Args:
        header: ``name``, ``claim``, ``command``, ``created`` (ISO 8601), ``seconds``, ``environment`` (a dict), and of a search
            ``chosen`` and what is ``said`` of it; none of them has to be there.
        beside: Files in the same folder to point at.

    Raises:
        ValueError: If there are no rows, or one lacks what every row has.

    Example:
        >>> from trainflat.reports import example
        >>> report(example.rows(), example.header()).startswith("<!doctype html>")
        True
    """
    data = results(rows)
    name = str(header.get("name") or "report")
    sections = [("findings", "Findings", _findings(data)), ("paper", "Beside the paper", section.html(data))]
    sections += [(f"task-{i}", task, _task(data, header, task, f"p{i}")) for i, task in enumerate(data.tasks)]
    tables = lambda part: "".join(map(render.html, contents(data)[part]))
    sections += [
        ("flatness", "Flatness", tables("flatness")),
        ("predictors", "What predicts what survives", tables("predictors")),
        ("maps", "Loss maps", _loss_maps(data)),
        ("costs", "Costs", tables("costs")),
        ("method", "How to read this", _method()),
    ]
    shown = [section for section in sections if section[-1]]
    return document(name, _top(data, header, name), shown, _footer(data, header, beside))


def write(rows: Iterable[Row] | Results, header: Header, path: str | Path, *, beside: Sequence[str] = ()) -> Path:
    """Write `report` to a file, whole or not at all."""
    return files.write(path, report(rows, header, beside=beside))


def _top(data: Results, header: Header, name: str) -> str:
    said = [escape(text) for text in paragraphs(str(header.get("claim") or ""))]
    claim = "".join([f'<p class="claim">{text}</p>' for text in said[:1]] + [f"<p>{text}</p>" for text in said[1:]])
    code = command(header)
    if departs := departure(header):
        code += f'<p class="about">{_words(departs)}</p>'
    ran = [_day(header.get("created")), _duration(header.get("seconds")), _seeds(data)]
    return top(name, f'{claim}{code}<p class="when">{escape(" · ".join(filter(None, ran)))}</p>')


def _findings(data: Results) -> str:
    parts = []
    found = findings(data)
    for task in data.tasks:
        of_task = [finding for finding in found if finding.task == task]
        lines = "".join(_finding(finding, before) for before, finding in zip([None, *of_task], of_task))
        title = f"<h3>{escape(task)} <small>{escape(data.metric(task))}</small></h3>"
        parts.append(f"<div>{title}<ul>{lines}</ul></div>" if lines else "")
    compared = ", then ".join(f"{b} − {a}" for a, b in pairs(data.arms))
    about = f'<p class="about">Differences are {escape(compared)}, in points.</p>' if compared else ""
    return f'{about}<div class="tasks">{"".join(parts)}</div>'


def _finding(finding: Finding, before: Finding | None) -> str:
    """One line; what the line before has said of the point is not said again."""
    d = finding.difference
    if d is None:
        return f"<li><b></b><span>{_words(str(finding))}</span></li>"
    verdict, again = d.verdict.replace(" ", "-"), before is not None and before.where == finding.where
    said = finding.what if again else f"{finding.where} {finding.what}"
    return (
        f'<li class="{verdict}{" more" if again else ""}"><b>{signed(d.mean)}</b><span>{_words(said)}'
        f"<small><em>{d.verdict}</em> · {_words(finding.interval)}</small></span></li>"
    )


def _words(text: str) -> str:
    """Escaped, and no line ends between a number and its sign."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\b[nt]) (?==)|(?<==) (?=\d)", "&nbsp;", escape(text))


def _task(data: Results, header: Header, task: str, prefix: str) -> str:
    of_task = [row for row in data.rows if data.task(row) == task]
    models = dict.fromkeys(str(row["model"]) for row in of_task if row.get("model"))
    notes = dict.fromkeys(str(row["note"]) for row in of_task if row.get("note"))
    about = [f"Model: {', '.join(models)}."] if models else []
    figures = panels(
        figure(
            CAPTIONS.get(variant, data.family(variant)),
            curves.describe(data, task, variant),
            curves.svg(data, task, variant, name=f"{prefix}-{i}"),
        )
        for i, variant in enumerate(curves.drawn(data, task))
    )
    words = escape(" ".join([*(f"{note.rstrip('.')}." for note in notes), *about]))
    front = front_page.section(data, header, task, f"{prefix}-front") or front_page.remark(header)
    of_family = _family(data, task, f"{prefix}-family")
    told = "".join(render.html(table) for table in contents(data)["tasks"] if table.task == task)
    told += mistakes.html(data, task, header.get("chosen"))
    return f'<p class="about">{words}</p>{of_family}{front}{figures}{told}'


def _family(data: Results, task: str, name: str) -> str:
    """The figure of cost against compressibility, where many rules compete."""
    if task not in family_figure.drawn(data):
        return ""
    drawing = family_figure.svg(data, task, name=name)
    return figure(family_figure.CAPTION, family_figure.describe(data, task), drawing, family_figure.ABOUT)


def _loss_maps(data: Results) -> str:
    figures = panels(
        figure(contours.caption(row, head), contours.describe(row, head), contours.svg(row, head, name=f"map{i}"))
        for i, (row, head) in enumerate(contours.panels(data))
    )
    return f'<p class="about">{escape(contours.ABOUT)}</p>{figures}' if figures else ""


def _method() -> str:
    return "<ul>" + "".join(f"<li>{_words(text)}</li>" for text in METHOD) + "</ul>"


def _footer(data: Results, header: Header, beside: Sequence[str]) -> str:
    facts = {"recipe": header.get("name"), "created": header.get("created"), "seeds": _seeds(data).partition(" ")[2]}
    facts |= _flat(header.get("environment") or {})
    told = [(name, escape(str(fact))) for name, fact in facts.items() if fact]
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in beside)
    return provenance([*told, ("files", links)] if links else told)


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """Inner tables as one line: "torch 2.13.0, numpy 2.4.0"."""
    inner = lambda value: ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return {name: inner(value) for name, value in environment.items() if value is not None}


def _day(created: Any) -> str:
    return str(created or "").partition("T")[0]


def _duration(seconds: Any) -> str:
    """How a reader says it.

    >>> _duration(151.2), _duration(8000), _duration(None)
    ('2 min 31 s', '2 h 13 min', '')
    """
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _seeds(data: Results) -> str:
    seeds = data.seeds()
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
