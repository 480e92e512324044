"""``trainflat report``: a run's report, or a study's page, from what is in the store or in a folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainflat.cli.options import DEFAULT_STORE, AsJson, Debug, StorePath
from trainflat.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from trainflat.experiments.store import Store
    from trainflat.reports.paper.study import Run
    from trainflat.reports.rows import Row

__all__ = ["report", "report_run"]


def report(
    name: Annotated[
        str,
        typer.Argument(
            help="A run of the store, named like its recipe; a group of runs, such as paper; or a folder: of results, or "
            "of trainflat compress."
        ),
    ],
    store: StorePath = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report; default: reports/NAME in the store, or where the folder NAME has it."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these arms of a run, in this order: the first is what the others are set against. Repeatable; they "
            "are printed, and written only with --out."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report of a run again, from what is finished of it, or of a whole group of runs as one page.

    A folder that a report was written to will do as well: all is made from the rows.json and run.json in it. Of a model that
    `trainflat compress` wrote, the report inside it is made again. Two arms beside each other, at every sparsity:
    trainflat report NAME --arm Adam --arm SAM.
    """
    from trainflat import reports
    from trainflat.experiments.store import Store

    kept, folder = Store(store), Path(name)
    if held := _held(folder):
        _show(*reports.read_back(held), held, as_json, out, arm)
    elif folder.is_dir() and (found := reports.study.read_back(folder)):
        _one(arm)
        _study(found, folder.resolve().name, out or folder, as_json)
    elif (kept.root / "runs" / f"{name}.json").exists():
        report_run(kept, name, as_json, out, arm)
    elif members := [run for run in kept.runs() if run.startswith(f"{name}/")]:
        _one(arm)
        documents = [kept.read_run(member) for member in members]
        found = [reports.study.Run(kept.rows(document), _header(kept, document)) for document in documents]
        _study(found, name, out or kept.root / "reports" / name, as_json)
    elif folder.is_dir():
        raise LookupError(
            f"{folder} holds no report: one is made from rows.json and run.json, in it or in folders in it"
        )
    else:
        kept.read_run(name)  # says what there is


def _held(folder: Path) -> Path | None:
    """The folder with one run's report: this one, or ``report`` in what `trainflat compress` wrote; None if neither has any."""
    if (folder / "rows.json").exists():
        return folder
    inside = folder / "report"
    return inside if (folder / "recipe.toml").is_file() and (inside / "rows.json").exists() else None


def report_run(
    kept: Store, name: str, as_json: bool, out: Path | None = None, arms: Sequence[str] | None = None
) -> None:
    """Write and print the report of one run of the store; of some arms only if they are named.

    Raises:
        LookupError: If nothing of it is finished yet.
    """
    document = kept.read_run(name)
    rows = kept.rows(document)
    if not rows:
        raise LookupError(f"nothing of {name} is finished yet; run it first: trainflat run {name}")
    _show(rows, _header(kept, document), kept.root / "reports" / name, as_json, out, arms)


def _header(kept: Store, document: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of a run: its document without the points, and how many of its stages are done."""
    return {**{key: value for key, value in document.items() if key != "points"}, "stages": kept.stages(document)}


def _study(runs: Sequence[Run], group: str, folder: Path, as_json: bool) -> None:
    """Write one page about several runs; print what has been run and what it says."""
    from trainflat import reports

    written = reports.study.write_all(runs, group, folder)
    overview = reports.study.overview(runs)
    if as_json:
        state = [dict(zip(overview.header, row)) for row in overview.rows]
        print_json({"group": group, "overview": state, "report": str(folder / "report.html")})
        return
    for table in [overview, *reports.study.summary(runs)]:
        print_table(table.title, list(table.header), reports.text(table)[1:], table.note)
    print(f"\nReport: {folder / 'report.html'}  (and {len(written) - 1} files beside it)")


def _one(arms: Sequence[str] | None) -> None:
    if arms:
        raise ValueError(f"--arm {arms[0]!r} is of one run, and this is a group of runs; name one of them")


def _only(rows: Sequence[Row], arms: Sequence[str]) -> list[Row]:
    """The rows of these arms, in this order.

    Raises:
        LookupError: If there is no such arm; says which there are.
    """
    from trainflat import reports
    from trainflat.experiments.resolve import near

    data = reports.results(rows)
    for arm in arms:
        if arm not in data.arms:
            raise LookupError(f"there is no arm {arm!r}{near(arm, data.arms)}")
    return [row for arm in dict.fromkeys(arms) for row in rows if data.arm(row) == arm]


def _show(
    rows: Sequence[Row],
    header: Mapping[str, Any],
    folder: Path,
    as_json: bool,
    out: Path | None = None,
    arms: Sequence[str] | None = None,
) -> None:
    """Print a report's tables and findings, and write it: into the folder, or ``out``; of some arms into ``out`` alone."""
    from trainflat import reports

    rows = _only(rows, arms) if arms else rows
    data = reports.results(rows)
    to = out if arms else out or folder
    written = reports.write_all(data, header, to) if to else []
    page = str(to / "report.html") if to else None
    if as_json:
        print_json({"recipe": header.get("name"), "rows": rows, "report": page})
        return
    for table in reports.tables_of(data):
        print_table(table.heading, list(table.header), reports.text(table)[1:], table.note)
    print()
    for finding in reports.findings(data):
        print(f"{finding.task}: {finding}")
    if page:
        print(f"\nReport: {page}  (and {len(written) - 1} files beside it)")
