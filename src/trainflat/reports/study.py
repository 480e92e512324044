"""One page of a whole study: what of it has been run, what that says about the paper, and each run's comparison and figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from trainflat.reports import beside, curves, files, paper, render
from trainflat.reports import folder as whole
from trainflat.reports.departure import departure
from trainflat.reports.document import document, figure, panels, paragraphs, provenance, top
from trainflat.reports.reference import reference
from trainflat.reports.rows import Row, results
from trainflat.reports.sentences import findings
from trainflat.reports.tables import MISSING, Table
from trainflat.reports.transfer import maps
from trainflat.reports.verdicts import lines, verdicts

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


@dataclass(frozen=True)
class Run:
    """One run of a recipe: its rows so far and its header, whose ``stages`` are ``{"done": 3, "of": 8}``."""

    rows: Sequence[Row]
    header: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.header.get("name") or "unnamed")

    @property
    def short(self) -> str:
        """The name without its group."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class _Entry:
    """A table, the maps, or a figure of the paper, and how many of its numbers ours have."""

    key: str
    title: str
    recipes: tuple[str, ...]
    wanted: int = 0


def overview(runs: Sequence[Run]) -> Table:
    """Every table and figure of the paper: whether it has been run, with which seeds, model and data.

    Example:
        >>> from trainflat.reports.example_paper import paper_header, paper_rows
        >>> table = overview([Run(paper_rows("table8-int8"), paper_header("table8-int8"))])
        >>> [row[2:] for row in table.rows if row[0] == "Table 8"]
        [('partly', '16 of 36', '0, 1, 2', 'MiniLM (stand-in)', 'whole', 'paper/table8-int8')]
    """
    found = []
    for entry in _entries():
        run = _home(entry.recipes, runs)
        recipe = run.name if run else next(iter(entry.recipes), "no recipe")
        have = _have(entry, run) if run else 0
        tasks = len({row["task"] for row in run.rows}) if run else 0
        cells = (
            f"{have} of {entry.wanted}" if entry.wanted else f"{tasks} task{'s' * (tasks != 1)}" if tasks else MISSING
        )
        found.append((entry.key, entry.title, _state(entry, run, have), cells, *_what(run), recipe))
    known = {row[-1] for row in found}
    found += [(MISSING, "", _state(None, r, 0), MISSING, *_what(r), r.name) for r in runs if r.name not in known]
    header = ("paper", "of what", "state", "numbers", "seeds", "model", "data", "recipe")
    title = "What of the paper has been run; how many of its numbers have a counterpart of ours"
    return Table(title, header, tuple(found), names=2)


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
    runs = _in_order(runs)
    told = {run.name: _keys(run, runs) for run in runs if run.rows}
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
    return verdicts(line for run in _in_order(runs) if run.rows for line in lines(run.rows, only=_keys(run, runs)))


def said(run: Run, runs: Sequence[Run]) -> list[str]:
    """What one of the runs says about the paper's claims; a table that two runs share is told with the first of its recipes."""
    return paper.claims(run.rows, only=_keys(run, runs)) if run.rows else []


def write_all(runs: Sequence[Run], group: str, folder: str | Path) -> list[Path]:
    """The page as report.html, overview and claims as table.md, and beside them a folder with the full report of every run.

    `read_back` reads such a folder, from which all of it can be written again.

    Returns:
        The files, report.html first.
    """
    folder = Path(folder)
    written = [path for run in runs if run.rows for path in whole.write_all(run.rows, run.header, folder / run.short)]
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


def _entries() -> list[_Entry]:
    known = reference()
    tables = [
        _Entry(t.name, t.title.partition(": ")[2], t.recipes, sum(bool(c.variant) for c in t.cells.values()))
        for t in known.tables
    ]
    of_maps = _Entry("Figures 4 and 13", "Transfer maps", known.maps[0].recipes, sum(len(m.values) for m in known.maps))
    return [*tables, of_maps, *(_Entry(d.key.capitalize(), d.title, d.recipes) for d in known.drawn)]


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """In the order of what they are about; others after these."""
    homes = [entry.recipes[0] for entry in _entries() if entry.recipes]
    return sorted(runs, key=lambda run: [beside.same_recipe(home, run.name) for home in [*homes, run.name]].index(True))


def _home(recipes: Iterable[str], runs: Sequence[Run]) -> Run | None:
    """The run that an entry is told with: the first of its recipes that has rows, else that was begun."""
    found = [run for recipe in recipes for run in runs if beside.same_recipe(recipe, run.name)]
    return next((run for run in found if run.rows), next(iter(found), None))


def _keys(run: Run, runs: Sequence[Run]) -> set[str]:
    """The tables that are told with this run, so that two runs that share stages tell none twice; a smoke run tells nothing."""
    if run.header.get("smoke"):
        return set()
    keys = {table.key for table in reference().tables if _home(table.recipes, runs) is run}
    return {*keys, "maps"}


def _have(entry: _Entry, run: Run) -> int:
    """How many of an entry's numbers have a counterpart."""
    if not run.rows or not entry.wanted:
        return 0
    if table := next((t for t in reference().tables if t.name == entry.key), None):
        return len({(level.cell.row, level.cell.column) for level in beside.levels(run.rows, table)})
    paper_values = {m.key: m.values for m in reference().maps}
    return len({(m.key, at) for m in maps(run.rows) for at in m.values if at in paper_values[m.key]})


def _state(entry: _Entry | None, run: Run | None, have: int) -> str:
    if run is None:
        return "not run" if entry and entry.recipes else "no recipe"
    if run.header.get("smoke"):
        return "smoke only"
    stages, changed = run.header.get("stages") or {}, ", changed" if run.header.get("changed") else ""
    if stages and stages["done"] < stages["of"]:
        return f"partly: {stages['done']} of {stages['of']} stages{changed}"
    if entry and entry.wanted and have < entry.wanted:
        return f"{'partly' if have else 'run on other tasks'}{changed}"
    return f"run{changed}"


def _what(run: Run | None) -> tuple[str, str, str]:
    """Seeds, model and data of a run."""
    if run is None or not run.rows:
        return MISSING, MISSING, MISSING
    of = list(dict.fromkeys(beside.origin(row, row["arm"]) for row in run.rows if row.get("model")))
    models = dict.fromkeys(origin.model for origin in of)
    own = reference().model
    called = [beside.MODELS.get(m, m) + ("" if m == own else " (stand-in)") for m in models]
    words = {True: "whole", False: "not whole", None: "not recorded"}
    data = dict.fromkeys(words[origin.official] for origin in of)
    return ", ".join(map(str, results(run.rows).seeds())), ", ".join(called) or MISSING, ", ".join(data) or MISSING


def _run(run: Run, name: str, only: Collection[str], linked: bool) -> str:
    """One run: what it asked, what it says beside the paper, its curves, its own findings."""
    data = results(run.rows)
    asked = "".join(f"<p>{escape(text)}</p>" for text in paragraphs(str(run.header.get("claim") or ""))[:1])
    command = (
        f'<p class="command"><code>{escape(str(run.header["command"]))}</code></p>' if run.header.get("command") else ""
    )
    link = (
        f'<p class="about"><a href="{escape(run.short)}/report.html">The full report of this run</a></p>'
        if linked
        else ""
    )
    link += f'<p class="about">{escape(departs)}</p>' if (departs := departure(run.header)) else ""
    link += f'<p class="about">{SMOKE}</p>' if run.header.get("smoke") else ""
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
    return f"{asked}{command}{link}{paper.section(data, name=name, only=only)}{figures}{own}"


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
