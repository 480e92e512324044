"""The numbers that Na, Mehta & Strubell 2022 print, read from paper.toml, each with the rows of ours that it is about."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from trainflat.reports.stats import Summary

__all__ = ["Cell", "Drawn", "Effect", "PaperMap", "PaperTable", "Reference", "parse", "reference"]

CELL = re.compile(r"(?P<mean>-?\d+(?:\.\d+)?(?:e-\d+)?)(?:\((?P<sd>\d*\.\d+)\))?")


@dataclass(frozen=True)
class Effect:
    """One label of an axis over another, all else equal: what a table argues with."""

    axis: str
    arm: str
    over: str

    def __str__(self) -> str:
        return f"{self.arm} − {self.over}"


@dataclass(frozen=True)
class Cell:
    """One printed number.

    Attributes:
        row: The line of the table: "IMP SAM".
        column: Its column: "rte".
        mean: As printed, in points or in the table's unit.
        sd: As printed, or None.
        n: Seeds; 0 if not known.
        decimals: With how many it is printed.
        task: The task that the column is about.
        metric: Under which name our rows have it.
        variant: Our rows' variant; empty if none of ours corresponds.
        sparsity: Of the prunable weights.
        labels: Which labels the arm of our rows has.
        hidden: Whether it was measured where we cannot measure: on the test server.
        notes: What has to be said about it.
    """

    row: str
    column: str
    mean: float
    sd: float | None
    n: int
    decimals: int
    task: str
    metric: str
    variant: str = ""
    sparsity: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    hidden: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """
        >>> str(Cell("IMP SAM", "rte", 71.8, 1.7, 3, 1, "rte", "accuracy"))
        '71.8 ± 1.7'
        """
        spread = "" if self.sd is None else f" ± {self.sd:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{spread}".replace("-", "−")

    @property
    def share(self) -> Summary:
        """Mean, s.d. and n as our rows have them: not in points but as shares."""
        return Summary(self.n, self.mean / 100, None if self.sd is None or not self.n else self.sd / 100)


@dataclass(frozen=True)
class PaperTable:
    """A table as printed; ``cells`` by row and column, in order."""

    key: str
    title: str
    recipes: tuple[str, ...]
    claim: str
    unit: str
    effects: tuple[Effect, ...]
    cells: Mapping[tuple[str, str], Cell]

    @property
    def name(self) -> str:
        """How a sentence calls it: "Table 5"."""
        return self.title.partition(":")[0]


@dataclass(frozen=True)
class PaperMap:
    """A heat map: ``values`` in points by (source, target), ``averages`` as printed by source."""

    key: str
    title: str
    recipes: tuple[str, ...]
    effect: Effect
    fixed: Mapping[str, str]
    tasks: tuple[str, ...]
    values: Mapping[tuple[str, str], float]
    averages: Mapping[str, float]


@dataclass(frozen=True)
class Drawn:
    """A figure without numbers."""

    key: str
    title: str
    recipes: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """All of it; ``notes`` are the footnotes that belong to no cell."""

    cite: str
    model: str
    tables: tuple[PaperTable, ...]
    maps: tuple[PaperMap, ...]
    drawn: tuple[Drawn, ...]
    notes: tuple[str, ...]


@cache
def reference() -> Reference:
    """What paper.toml holds.

    Example:
        >>> [table.key for table in reference().tables][:3], len(reference().maps)
        (['table1', 'table5', 'table6'], 4)
        >>> tables = {table.key: table for table in reference().tables}
        >>> str(tables["table5"].cells["IMP SAM", "rte"]), tables["table5"].cells["IMP SAM", "rte"].sparsity
        ('71.8 ± 1.7', 0.6)
    """
    text = resources.files("trainflat.reports.paper").joinpath("paper.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    tables = tuple(_table(table, document) for table in document["table"])
    maps = tuple(_map(found) for found in document["map"])
    drawn = tuple(Drawn(d["key"], d["title"], tuple(d["recipes"])) for d in document["drawn"])
    notes = tuple(note["text"] for note in document["footnote"] if not note["cells"])
    return Reference(document["paper"]["cite"], document["paper"]["model"], tables, maps, drawn, notes)


def parse(printed: str) -> tuple[float, float | None, int] | None:
    """Mean, s.d. and decimals of a cell as printed; None for a dash.

    Raises:
        ValueError: If it is no number.

    Example:
        >>> parse("83.5(.1)"), parse("-0.6"), parse("-")
        ((83.5, 0.1, 1), (-0.6, None, 1), None)
    """
    if printed == "-":
        return None
    if (found := CELL.fullmatch(printed)) is None:
        raise ValueError(f"{printed!r} is no cell; write mean(s.d.) as 83.5(.1), a mean alone, or - for none")
    mean, sd = found["mean"], found["sd"]
    decimals = len(mean.partition("e")[0].partition(".")[2])
    return float(mean), None if sd is None else float(sd), max(decimals, len(sd.partition(".")[2]) if sd else 0)


def _grid(text: str) -> dict[tuple[str, str], str]:
    """A block of cells by row and column: the first line names the columns, a bar parts each row's name from its cells.

    Raises:
        ValueError: If a line has more or fewer cells than there are columns.
    """
    head, *lines = [line for line in text.splitlines() if line.strip()]
    columns, grid = head.partition("|")[2].split(), {}
    for line in lines:
        row, _, rest = line.partition("|")
        if len(cells := rest.split()) != len(columns):
            raise ValueError(f"the row {row.strip()!r} has {len(cells)} cells for {len(columns)} columns: {columns}")
        grid |= {(row.strip(), column): cell for column, cell in zip(columns, cells)}
    return grid


def _table(table: Mapping[str, Any], document: Mapping[str, Any]) -> PaperTable:
    cells = {
        at: _cell(table, document, *at, found) for at, cell in _grid(table["cells"]).items() if (found := parse(cell))
    }
    effects = tuple(Effect(**effect) for effect in table.get("effects", ()))
    about = table["key"], table["title"], tuple(table["recipes"]), table.get("claim", ""), table.get("unit", "points")
    return PaperTable(*about, effects, cells)


def _cell(
    table: Mapping[str, Any], document: Mapping[str, Any], row: str, column: str, found: tuple[float, float | None, int]
) -> Cell:
    mean, sd, decimals = found
    about = table.get("columns", {}).get(column, {"task": column})
    task, match = about["task"], dict(table.get("match", {}).get(row, {}))
    metrics = {**document["metric"], **table.get("metric", {})}
    metric = match.pop("metric", about.get("metric") or metrics[task])
    sparsity = match.pop("sparsity", 0.0)
    names = {f"{table['key']}/{row}/{column}", f"{table['key']}/{row}/*"}
    return Cell(
        row=row,
        column=column,
        mean=mean,
        sd=sd,
        n=0 if sd is None or row in table.get("quoted", ()) else document["paper"]["n"],
        decimals=decimals,
        task=task,
        metric=metric,
        variant=match.pop("variant", ""),
        sparsity=document[sparsity][task] if isinstance(sparsity, str) else sparsity,
        labels=match,
        hidden=column in table.get("hidden", ()),
        notes=tuple(note["text"] for note in document["footnote"] if names & set(note["cells"])),
    )


def _map(found: Mapping[str, Any]) -> PaperMap:
    grid = {at: cell[0] for at, text in _grid(found["cells"]).items() if (cell := parse(text))}
    averages = {source: value for (source, target), value in grid.items() if target == "average"}
    values = {at: value for at, value in grid.items() if at[1] != "average"}
    about = found["key"], found["title"], tuple(found["recipes"])
    effect = Effect(**found["difference"])
    return PaperMap(*about, effect, found["fixed"], tuple(averages), values, averages)
