"""A folder of results: what a run measured as rows, tables, pictures and a page, and the way back from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainflat.reports import contours, curves, family_figure, files, page, render
from trainflat.reports.contents import tables_of
from trainflat.reports.departure import departure
from trainflat.reports.formats import to_csv, to_json
from trainflat.reports.front import front_page
from trainflat.reports.page import Header
from trainflat.reports.paper import section
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.sentences import findings

__all__ = ["read_back", "texts_of", "write_all"]


def write_all(rows: Iterable[Row] | Results, header: Header, folder: str | Path) -> list[Path]:
    """Everything: report.html, table.md, rows.csv, rows.json, run.json (the header), and each figure as *.svg and *.png: the
    curves in curves/, the loss maps in contours/, the transfer maps as maps.png.

    `read_back` reads the rows and the header of such a folder, from which all of it can be written again.

    Returns:
        The files, report.html first.
    """
    data = results(rows)
    folder, texts = Path(folder), texts_of(data, header)
    written = [page.write(data, header, folder / "report.html", beside=list(texts))]
    written += [files.write(folder / name, content) for name, content in texts.items()]
    for task, variant in curves.panels(data):
        path = files.free(folder / "curves", f"{task} {variant}", written)
        written.append(files.write(path.with_suffix(".svg"), curves.svg(data, task, variant)))
        written.append(curves.png(data, path.with_suffix(".png"), only=[(task, variant)]))
    for task in family_figure.drawn(data):
        path = files.free(folder / "curves", f"{task} cost", written)
        written.append(files.write(path.with_suffix(".svg"), family_figure.svg(data, task)))
        written.append(family_figure.png(data, path.with_suffix(".png"), task))
    written += front_page.pictures(data, header, folder / "curves")
    for number, (row, head) in enumerate(contours.panels(data)):
        path = files.free(folder / "contours", f"{number:02d} {contours.caption(row, head)}", written)
        written.append(files.write(path.with_suffix(".svg"), contours.svg(row, head)))
        written.append(contours.png(row, path.with_suffix(".png"), head))
    return [*written, *section.pictures(data, folder)]


def texts_of(rows: Iterable[Row] | Results, header: Header) -> dict[str, str]:
    """What `write_all` writes beside the page and the pictures, by the file's name: findings and tables, rows, the header."""
    data = results(rows)
    told = [f"- {text}" for text in [departure(header)] if text]
    told += [f"- {finding.task}: {finding}" for finding in findings(data)]
    told += [f"- {said}" for said in section.claims(data)]
    return {
        "table.md": "\n".join([*told, "", *map(render.markdown, tables_of(data))]),
        "rows.csv": to_csv(data.rows),
        "rows.json": to_json(data.rows),
        "run.json": to_json(header),
    }


def read_back(folder: str | Path) -> tuple[list[Row], Header]:
    """The rows and the header of a folder that `write_all` wrote.

    Raises:
        ValueError: If one of its two files is missing, damaged or not ours.
    """
    rows, header = (_json(Path(folder) / name) for name in ("rows.json", "run.json"))
    if not isinstance(rows, list) or not isinstance(header, dict):
        raise ValueError(f"{folder} holds no results of ours: rows.json must be a list and run.json a table")
    return [_measured(row) for row in rows], header


def _measured(row: Any) -> Any:
    """A row whose value is null was measured, and is no number; where nothing was measured there is no value at all."""
    if isinstance(row, dict) and "metric" in row and row.get("value", "") is None:
        return {**row, "value": math.nan}
    return row


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}); a report is made of rows.json and run.json"
        ) from error
