"""One report.html that needs nothing but itself: it opens from disk, light or dark, on a phone, on paper, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from trainflat.reports import (
    contours,
    curves,
    family,
    family_figure,
    files,
    front_page,
    mistakes,
    paper,
    predicts,
    render,
    smaller,
    tables,
)
from trainflat.reports.cost import costs
from trainflat.reports.departure import departure
from trainflat.reports.flatness import how_flat
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.sentences import RULE, Finding, findings
from trainflat.reports.tables import ALONE, signed

__all__ = ["Header", "document", "paragraphs", "report", "write"]

Header = Mapping[str, Any]

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # a browser loads nothing, whatever a label says
)
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
        rows: The rows.
        header: ``name``, ``claim``, ``command``, ``created`` (ISO 8601), ``seconds``, ``environment`` (a dict); none of them
            has to be there.
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
    sections = [("findings", "Findings", _findings(data))]
    if told := paper.section(data):
        sections.append(("paper", "Beside the paper", told))
    sections += [(f"task-{i}", task, _task(data, header, task, f"p{i}")) for i, task in enumerate(data.tasks)]
    if told := how_flat(data):
        sections.append(("flatness", "Flatness", "".join(map(render.html, told))))
    if told := predicts.tables(data):
        sections.append(("predictors", "What predicts what survives", "".join(map(render.html, told))))
    if maps := contours.panels(data):
        sections.append(("maps", "Loss maps", _loss_maps(maps)))
    if told := costs(data):
        sections.append(("costs", "Costs", "".join(map(render.html, told))))
    sections.append(("method", "How to read this", _method()))
    return document(name, _top(data, header, name), sections, _footer(data, header, beside))


def document(name: str, top: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """A page that needs nothing but itself: what is on top, a list of contents, the sections (key, title, HTML), the footer."""
    style = resources.files("trainflat.reports").joinpath("page.css").read_text(encoding="utf-8")
    contents = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" class="{key.split("-")[0]}"><h2>{escape(title)}</h2>{inside}</section>'
        for key, title, inside in sections
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(name)} · trainflat</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<style>\n{style}</style>\n</head>\n'
        f'<body>\n{top}\n<nav aria-label="Contents"><ul>{contents}</ul></nav>\n'
        f"<main>\n{body}\n</main>\n{footer}\n</body>\n</html>\n"
    )


def write(rows: Iterable[Row] | Results, header: Header, path: str | Path, *, beside: Sequence[str] = ()) -> Path:
    """Write `report` to a file, whole or not at all."""
    return files.write(path, report(rows, header, beside=beside))


def _top(data: Results, header: Header, name: str) -> str:
    said = [escape(text) for text in paragraphs(str(header.get("claim") or ""))]
    claim = "".join([f'<p class="claim">{text}</p>' for text in said[:1]] + [f"<p>{text}</p>" for text in said[1:]])
    command = header.get("command")
    code = f'<p class="command"><code>{escape(str(command))}</code></p>' if command else ""
    if said := departure(header):
        code += f'<p class="about">{_words(said)}</p>'
    ran = [_day(header.get("created")), _duration(header.get("seconds")), _seeds(data)]
    return (
        f'<header><p class="kind">trainflat report</p><h1>{escape(name)}</h1>{claim}{code}'
        f'<p class="when">{escape(" · ".join(filter(None, ran)))}</p></header>'
    )


def _findings(data: Results) -> str:
    parts = []
    found = findings(data)
    for task in data.tasks:
        of_task = [finding for finding in found if finding.task == task]
        lines = "".join(_finding(finding, before) for before, finding in zip([None, *of_task], of_task))
        title = f"<h3>{escape(task)} <small>{escape(data.metric(task))}</small></h3>"
        parts.append(f"<div>{title}<ul>{lines}</ul></div>" if lines else "")
    compared = ", then ".join(f"{b} − {a}" for a, b in tables.pairs(data.arms))
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
    figures = "".join(
        f"<figure><figcaption>{escape(CAPTIONS.get(variant, data.family(variant)))}</figcaption>"
        f'<div role="img" aria-label="{escape(curves.describe(data, task, variant))}">'
        f"{curves.svg(data, task, variant, name=f'{prefix}-{i}')}</div></figure>"
        for i, variant in enumerate(curves.drawn(data, task))
    )
    words = escape(" ".join([*notes, *about]))
    panels = f'<div class="panels">{figures}</div>' if figures else ""
    front = front_page.section(data, header, task, f"{prefix}-front")
    of_family = _family(data, task, f"{prefix}-family")
    listed = [*family.tables(data, only=task), *smaller.tables(data, task), *tables.every(data)]
    of_task = [table for table in listed if table.task == task]
    told = "".join(map(render.html, of_task)) + mistakes.html(data, task, header.get("chosen"))
    return f'<p class="about">{words}</p>{of_family}{front}{panels}{told}'


def _family(data: Results, task: str, name: str) -> str:
    """The figure of cost against compressibility, where many rules compete."""
    if task not in family_figure.drawn(data):
        return ""
    drawing = family_figure.svg(data, task, name=name)
    return (
        f"<figure><figcaption>{escape(family_figure.CAPTION)}</figcaption>"
        f'<div role="img" aria-label="{escape(family_figure.describe(data, task))}">{drawing}</div>'
        f'<p class="about">{escape(family_figure.ABOUT)}</p></figure>'
    )


def _loss_maps(maps: Sequence[tuple[Row, int]]) -> str:
    figures = [
        f"<figure><figcaption>{escape(contours.caption(row, head))}</figcaption>"
        f'<div role="img" aria-label="{escape(contours.describe(row, head))}">'
        f"{contours.svg(row, head, name=f'map{i}')}</div></figure>"
        for i, (row, head) in enumerate(maps)
    ]
    return f'<p class="about">{escape(contours.ABOUT)}</p><div class="panels">{"".join(figures)}</div>'


def _method() -> str:
    return "<ul>" + "".join(f"<li>{_words(text)}</li>" for text in METHOD) + "</ul>"


def _footer(data: Results, header: Header, beside: Sequence[str]) -> str:
    facts = {"recipe": header.get("name"), "created": header.get("created"), "seeds": _seeds(data).partition(" ")[2]}
    facts |= _flat(header.get("environment") or {})
    if beside:
        facts["files"] = None
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in beside)
    lines = [
        f"<dt>{escape(str(k))}</dt><dd>{escape(str(v)) if k != 'files' else links}</dd>"
        for k, v in facts.items()
        if v or k == "files"
    ]
    return f"<footer><h2>Provenance</h2><dl>{''.join(lines)}</dl></footer>"


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """Inner tables as one line: "torch 2.13.0, numpy 2.4.0"."""
    inner = lambda value: ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return {name: inner(value) for name, value in environment.items() if value is not None}


def paragraphs(text: str) -> list[str]:
    """A comment's text without its line breaks, but for blank lines, a first line that is a sentence of its own, and lines
    that start an entry ("Cost: ...", "- ...").
    """
    found: list[str] = []
    fresh = True
    for line in map(str.strip, text.splitlines()):
        if not line:
            fresh = True
        elif fresh or not found or re.match(r"[-*•] |[A-Z][\w ]{0,24}: ", line):
            found, fresh = [*found, line], False
        else:
            found[-1] += f" {line}"
        fresh = fresh or (found == [line] and line.endswith((".", "?", "!")))
    return found


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
