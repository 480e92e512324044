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
    from trainflat.reports.rows import Row
    from trainflat.reports.study import Run

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
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report of a run again, from what is finished of it, or of a whole group of runs as one page.

    A folder that a report was written to will do as well: all is made from the rows.json and run.json in it. Of a model that
    `trainflat compress` wrote, the report inside it is made again.
    """
    from trainflat import reports
    from trainflat.experiments.store import Store

    kept, folder = Store(store), Path(name)
    if held := _held(folder):
        _show(*reports.read_back(held), out or held, as_json)
    elif folder.is_dir() and (found := reports.study.read_back(folder)):
        _study(found, folder.resolve().name, out or folder, as_json)
    elif (kept.root / "runs" / f"{name}.json").exists():
        report_run(kept, name, as_json, out)
    elif members := [run for run in kept.runs() if run.startswith(f"{name}/")]:
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


def report_run(kept: Store, name: str, as_json: bool, out: Path | None = None) -> None:
    """Write and print the report of one run of the store.

    Raises:
        LookupError: If nothing of it is finished yet.
    """
    document = kept.read_run(name)
    rows = kept.rows(document)
    if not rows:
        raise LookupError(f"nothing of {name} is finished yet; run it first: trainflat run {name}")
    _show(rows, _header(kept, document), out or kept.root / "reports" / name, as_json)


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


def _show(rows: Sequence[Row], header: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """Write a report and print its tables and findings."""
    from trainflat import reports

    written = reports.write_all(rows, header, folder)
    if as_json:
        print_json({"recipe": header.get("name"), "rows": rows, "report": str(folder / "report.html")})
        return
    for table in [*reports.every(rows), *reports.costs(rows)]:
        print_table(table.heading, list(table.header), reports.text(table)[1:], table.note)
    for finding in reports.findings(rows):
        print(f"{finding.task}: {finding}")
    print(f"\nReport: {folder / 'report.html'}  (and {len(written) - 1} files beside it)")
