"""Every table of a report, in its order and each made once: what the page shows, what table.md holds and what is printed."""

from __future__ import annotations

from collections.abc import Iterable

from trainflat.reports import family, predicts, tables
from trainflat.reports.cost import costs
from trainflat.reports.flatness import how_flat
from trainflat.reports.front import smaller
from trainflat.reports.paper import section
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.tables import Table

__all__ = ["contents", "tables_of"]


def contents(data: Results) -> dict[str, list[Table]]:
    """The tables by the part of a report in which they stand: "paper", "tasks", "flatness", "predictors" and "costs".

    Those of "tasks" are of one task each: the family of rules, smaller models, the metric.
    """
    return data.once(
        "tables",
        lambda: {
            "paper": section.tables(data),
            "tasks": [
                *family.tables(data),
                *(table for task in data.tasks for table in smaller.tables(data, task)),
                *tables.every(data),
            ],
            "flatness": how_flat(data),
            "predictors": predicts.tables(data),
            "costs": costs(data),
        },
    )


def tables_of(rows: Iterable[Row] | Results) -> list[Table]:
    """Every table of a report, in its order: beside the paper, the family, smaller models, the metric, flatness, costs."""
    return [table for part in contents(results(rows)).values() for table in part]
