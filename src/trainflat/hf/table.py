"""A user's table, read in one pass: the texts, labels and groups of every usable row, and what was left out and why."""

from __future__ import annotations

import difflib
import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from trainflat.hf.formats import ENDINGS, Source
from trainflat.hf.hubdata import HubData
from trainflat.hf.packed import Coded, Texts

__all__ = ["Columns", "Table", "check_columns", "locate", "read"]

SHOWN = 12  # columns that an error lists


@dataclass(frozen=True)
class Columns:
    """Which columns have what."""

    text: str
    label: str
    text2: str | None = None
    groups: str | None = None

    @property
    def texts(self) -> list[str]:
        """The columns with texts: one, or two for pairs."""
        return [self.text] if self.text2 is None else [self.text, self.text2]

    @property
    def all(self) -> list[str]:
        """The texts' columns, the label's, the groups'."""
        return [*self.texts, self.label, *([self.groups] if self.groups else [])]


@dataclass
class Table:
    """The usable rows of a table. ``keys`` are equal where the texts are, up to case and blanks."""

    name: str
    columns: Columns
    unit: str
    texts: list[Texts]
    labels: Coded
    groups: Coded
    places: Int64[np.ndarray, " examples"]
    keys: UInt64[np.ndarray, " examples"]
    classes: Sequence[str] = ()  # the label names that the file declares
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)  # without what: how many rows, and the first

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> str:
        """Where a row is, for a sentence: the file and the line."""
        return f"{self.name} {self.unit} {self.places[row]}"

    def first(self, code: int) -> str:
        """Where the label with this number is for the first time."""
        return self.place(int(np.argmax(self.labels.codes == code)))

    @property
    def remarks(self) -> list[str]:
        """What was left out and why, each in a few words."""
        return [
            f"{count:,} row{'s' * (count > 1)} without {name!r} left out ({'from ' * (count > 1)}{self.unit} {first})"
            for name, (count, first) in self.dropped.items()
        ]


def locate(data: str) -> Path | HubData:
    """A file, or a data set on the hub: what has one of the known endings or is there is a file.

    Raises:
        FileNotFoundError, ValueError: As `trainflat.hf.formats.open_file`, if it can only be a file.
    """
    path = Path(data).expanduser()
    found = None if path.exists() or path.suffix.lower() in ENDINGS else HubData.parse(data)
    return path if found is None else found


def read(source: Source, columns: Columns) -> Table:
    """Every row with all its texts and a label, in one pass; memory is what these columns hold, and no more.

    A text or label that is absent, blank or no number (NaN) is missing, and the row is left out. Blanks around a label
    are cut off. Texts are told apart by 64 bits of their BLAKE2b: among a million of them two fall together once in
    thirty million tables, and would then only stay on one side of the split.

    Raises:
        LookupError: If there is no such column; names the nearest.
        ValueError: If a column serves twice or is empty, a text is no text or a label no label; or the file is damaged.
    """
    check_columns(source, columns)
    wanted = columns.all
    count = len(columns.texts)
    texts, labels, groups = [Texts() for _ in range(count)], Coded(), Coded()
    places, keys, dropped, total = array("q"), array("Q"), {}, 0
    missing = dict.fromkeys(wanted, 0)
    for number, values in source.rows(wanted):
        total += 1
        absent = [name for name, value in zip(wanted, values) if _missing(value)]
        for name in absent:
            missing[name] += 1
        lacking = next((name for name in absent if name != columns.groups), None)
        if lacking is not None:
            count_before, first = dropped.get(lacking, (0, number))
            dropped[lacking] = (count_before + 1, first)
            continue
        try:
            for column, value in zip(texts, values):
                column.append(value)
            labels.append(_label(values[count]))
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise _fault(f"{source.name} {source.unit} {number}", columns, values) from None
        if columns.groups:
            groups.append(number if columns.groups in absent else str(values[-1]))
        places.append(number)
        keys.append(_key(values[:count]))
    if not total:
        raise ValueError(f"{source.name} has {', '.join(source.columns[:SHOWN])} for its columns and not one row")
    _check_filled(source, columns, missing, total)
    if not places:
        raise ValueError(f"none of the {total:,} rows of {source.name} has all of {', '.join(wanted[: count + 1])}")
    return Table(
        name=source.name,
        columns=columns,
        unit=source.unit,
        texts=texts,
        labels=labels,
        groups=groups,
        places=np.frombuffer(places, np.int64),
        keys=np.frombuffer(keys, np.uint64),
        classes=tuple(source.classes.get(columns.label, ())),
        dropped=dropped,
    )


def check_columns(source: Source, columns: Columns) -> None:
    """Whether the table has the columns, each once, and each serves once.

    Raises:
        LookupError, ValueError: As `read`.
    """
    wanted = columns.all
    for name in wanted:
        if name not in source.columns:
            raise LookupError(f"{source.name} has no column {name!r}{_near(name, source.columns)}")
        if list(source.columns).count(name) > 1:
            raise ValueError(f"{source.name} has two columns named {name!r}; rename one of them")
    twice = next((name for i, name in enumerate(wanted) if name in wanted[:i]), None)
    if twice:
        raise ValueError(
            f"column {twice!r} of {source.name} cannot serve twice: text, text2, label and groups are different"
        )


def _near(name: str, columns: Sequence[str]) -> str:
    """The near miss, and the columns there are."""
    plain = {column.casefold().strip(): column for column in columns}
    close = difflib.get_close_matches(str(name).casefold().strip(), plain, 1)
    shown = ", ".join(column[:40] for column in columns[:SHOWN]) + ", …" * (len(columns) > SHOWN)
    return (f"; did you mean {plain[close[0]]!r}?" if close else ";") + f" it has {shown or 'none'}"


def _check_filled(source: Source, columns: Columns, missing: dict[str, int], total: int) -> None:
    for name, count in missing.items():
        if count == total:
            others = [other for other in source.columns if other not in missing]
            raise ValueError(
                f"column {name!r} of {source.name} is empty in all {total:,} rows; "
                + (f"name another one: {', '.join(others[:SHOWN])}" if others else "fill it in")
            )


def _missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _label(value: Any) -> Any:
    """A label as it is, blanks around a text cut off.

    Raises:
        TypeError: If it is bytes, which are nobody's label name; a list or the like is refused by `Coded`.
    """
    if isinstance(value, bytes):
        raise TypeError("bytes")
    return value.strip() if isinstance(value, str) else value


def _fault(where: str, columns: Columns, values: Sequence[Any]) -> ValueError:
    """Says what in a row is no text or no label."""
    for name, value in zip(columns.texts, values):
        if not isinstance(value, str):
            return ValueError(f"{where}: column {name!r} is {str(value)[:40]!r} ({type(value).__name__}), not a text")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return ValueError(
                f"{where}: column {name!r} has half a character (a lone surrogate); write the file again as UTF-8"
            )
    label = str(values[len(columns.texts)])[:40]
    return ValueError(f"{where}: column {columns.label!r} is {label!r}, not a label: a text, a number, true or false")


def _key(texts: Iterable[str]) -> int:
    alike = "\0".join(" ".join(text.split()).casefold() for text in texts)
    return int.from_bytes(hashlib.blake2b(alike.encode(), digest_size=8).digest())
