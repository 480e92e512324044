"""From rows to what people read: tables with honest statistics, curves, one self-contained page. Never imports torch."""

from __future__ import annotations

from trainflat.reports.contents import tables_of
from trainflat.reports.cost import costs
from trainflat.reports.curves import png, svg
from trainflat.reports.flatness import how_flat
from trainflat.reports.folder import read_back, texts_of, write_all
from trainflat.reports.formats import to_csv, to_json
from trainflat.reports.page import report, write
from trainflat.reports.paper import study
from trainflat.reports.render import html, markdown, text
from trainflat.reports.rows import Results, results
from trainflat.reports.sentences import Finding, findings
from trainflat.reports.stats import Difference, compare, paired, summary, welch
from trainflat.reports.tables import Table, every

__all__ = [
    "Difference",
    "Finding",
    "Results",
    "Table",
    "compare",
    "costs",
    "every",
    "findings",
    "how_flat",
    "html",
    "markdown",
    "paired",
    "png",
    "read_back",
    "report",
    "results",
    "study",
    "summary",
    "svg",
    "tables_of",
    "text",
    "texts_of",
    "to_csv",
    "to_json",
    "welch",
    "write",
    "write_all",
]
