"""One page of a whole study: what of it has been run, what that says about the paper, and each run's comparison and figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

from trainflat.reports import curves, files, render
from trainflat.reports import folder as whole
from trainflat.reports.departure import departure
from trainflat.reports.document import command, document, figure, panels, paragraphs, provenance, top
from trainflat.reports.paper import section
from trainflat.reports.paper.overview import Run, in_order, overview, told_with
from trainflat.reports.paper.reference import reference
from trainflat.reports.paper.verdicts import lines, verdicts
from trainflat.reports.sentences import findings
from trainflat.reports.tables import Table

__all__ = ["Run", "overview", "read_back", "report", "said", "summary", "write_all"]

KINDS = (
    "“Ours” are of the paper’s model on the whole of its data: their difference from the paper is a replication’s. A “stand-in” "
    "is another model, a part of the data or another setting, named wherever it appears and drawn dashed: its values cannot "
    "confirm or contradict the paper’s, only its effects can be compared.",
    "An effect is one arm over another. It is “seen” if our 95 % interval excludes 0 on the side where the paper’s effect is, "
    "“opposite” if it excludes 0 on the other side; “cannot tell” is no evidence of absence, with three seeds least of all.",
    "Seeds are paired in ours; the paper’s intervals are Welch’s from its printed means and s.d., rounded as they are. No "
    "interval is corrected for multiplicity: of many, one in twenty excludes 0 by chance.",
)

SMOKE = "A smoke run: its trainings are seconds long, to see that everything runs. It says nothing about the paper."


def report(runs: Sequence[Run], group: str, *, linked: Collection[str] = ()) -> str:
    """The page as HTML.

    Args:
        runs: The runs, in the order in which they are told.
        group: What they have in common: "paper".
        linked: Names of runs that have a folder with a report of their own beside the page.

    Raises:
        ValueError: If there are no runs.
    """
    if not runs:
        raise ValueError(f"nothing of {group} has been run yet; see what there is with: trainflat plan {group}")
    runs = in_order(runs)
    told = {run.name: told_with(run, runs) for run in runs if run.rows}
    sections = [("overview", "What has been run", render.html(overview(runs)))]
    if claims := summary(runs):
        sections.append(("claims", "What we see", "".join(map(render.html, claims))))
    for number, run in enumerate(runs):
        if run.rows:
            inside = _run(run, f"r{number}", told[run.name], run.name in linked)
            sections.append((f"run-{number}", run.name, inside))
    notes = "".join(f"<li>{escape(text)}</li>" for text in (*KINDS, *reference().notes))
    sections.append(("method", "How to read this", f"<ul>{notes}</ul>"))
    return document(group, _top(group), sections, _footer(runs))


def summary(runs: Sequence[Run]) -> list[Table]:
    """A line for each claim of the paper; a table that two runs share is told with the first of its recipes."""
    return verdicts(line for run in in_order(runs) if run.rows for line in lines(run.data, only=told_with(run, runs)))


def said(run: Run, runs: Sequence[Run]) -> list[str]:
    """What one of the runs says about the paper's claims; a table that two runs share is told with the first of its recipes."""
    return section.claims(run.data, only=told_with(run, runs)) if run.rows else []


def write_all(runs: Sequence[Run], group: str, folder: str | Path) -> list[Path]:
    """The page as report.html, overview and claims as table.md, and beside them a folder with the full report of every run.

    `read_back` reads such a folder, from which all of it can be written again.

    Returns:
        The files, report.html first.
    """
    folder = Path(folder)
    written = [path for run in runs if run.rows for path in whole.write_all(run.data, run.header, folder / run.short)]
    names = [run.name for run in runs if run.rows]
    html = report(runs, group, linked=names)
    claims = [f"- {run.name}: {text}" for run in runs if (text := departure(run.header))]
    claims += [f"- {sentence}" for run in runs for sentence in said(run, runs)]
    told = [render.markdown(table) for table in [overview(runs), *summary(runs)]]
    text = "\n".join([*claims, "", *told])
    return [files.write(folder / "report.html", html), files.write(folder / "table.md", text), *written]


def read_back(folder: str | Path) -> list[Run]:
    """The runs of a folder that `write_all` wrote, or of any folder of folders with rows.json and run.json; none if it has none.

    Raises:
        ValueError: If one of the files is damaged.
    """
    found = sorted(path.parent for path in Path(folder).glob("*/rows.json") if (path.parent / "run.json").exists())
    return [Run(*whole.read_back(path)) for path in found]


def _run(run: Run, name: str, only: Collection[str], linked: bool) -> str:
    """One run: what it asked, what it says beside the paper, its curves, its own findings."""
    data = run.data
    asked = "".join(f"<p>{escape(text)}</p>" for text in paragraphs(str(run.header.get("claim") or ""))[:1])
    link = f'<a href="{escape(run.short)}/report.html">The full report of this run</a>' if linked else ""
    known = filter(None, [link, escape(departure(run.header)), SMOKE if run.header.get("smoke") else ""])
    about = "".join(f'<p class="about">{line}</p>' for line in known)
    figures = panels(
        figure(
            f"{task}, {data.family(variant)}",
            curves.describe(data, task, variant),
            curves.svg(data, task, variant, name=f"{name}-c{i}"),
        )
        for i, (task, variant) in enumerate(curves.panels(data))
        if len(data.sparsities(task, variant)) > 1
    )
    told = "".join(f"<li>{escape(f'{finding.task}: {finding}')}</li>" for finding in findings(data))
    own = (
        f'<details><summary>All findings of this run</summary><ul class="claims">{told}</ul></details>' if told else ""
    )
    return f"{asked}{command(run.header)}{about}{section.html(data, name=name, only=only)}{figures}{own}"


def _top(group: str) -> str:
    what = f"Everything of {group}/* that has been run so far, beside the numbers of {reference().cite}."
    return top(group, f'<p class="claim">{escape(what)}</p>')


def _footer(runs: Sequence[Run]) -> str:
    """When each was run, and with what."""
    lines = []
    for run in runs:
        about = run.header.get("environment") or {}
        packages = ", ".join(f"{k} {v}" for k, v in (about.get("packages") or {}).items())
        told = [str(run.header.get("created") or ""), str(about.get("commit") or ""), packages]
        lines.append((run.name, escape(" · ".join(filter(None, told)))))
    return provenance(lines)
