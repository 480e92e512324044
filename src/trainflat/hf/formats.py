"""A table in a file, opened: its columns, and its rows one after another, whatever the format. Nothing is read twice or kept."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainflat.hf.checkpoints import first_line
from trainflat.hf.needs import need
from trainflat.hf.sources import class_names

__all__ = ["ENDINGS", "Source", "open_file"]

ENDINGS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".json": "JSON Lines",
           ".parquet": "Parquet"}  # fmt: skip
FIELD = 10_000_000  # characters; a longer one is a quote that is never closed, not a text
BLOCK = 10_000  # rows of a Parquet file in memory at once
LOOK = 1_000  # objects of a JSON Lines file whose keys are its columns
SIGNS = {
    b"PAR1": ("Parquet", "rename it to {stem}.parquet"),
    b"ARROW1": ("an Arrow file", "write it as Parquet: pyarrow.feather.read_feather(path).to_parquet(...)"),
    b"PK\x03\x04": ("an Excel workbook or another zip archive", "save the sheet as CSV (UTF-8), or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV (UTF-8)"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it: gunzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it: unzstd"),
    b"BZh": ("compressed by bzip2", "unpack it: bunzip2"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"%PDF": ("a PDF", "a table is needed"),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
}

Row = tuple[int, Sequence[Any]]


@dataclass(frozen=True)
class Source:
    """A table that was opened. ``rows(columns)`` gives each row's number and what it has in these columns.

    ``unit`` is what the number counts, from 1: the line of a text file on which the row begins, or the row.
    ``classes`` are label names that the file itself declares, by column.
    """

    name: str
    unit: str
    columns: Sequence[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_file(path: Path) -> Source:
    """A CSV, TSV, JSON Lines or Parquet file, told apart by its ending; text is UTF-8, with or without a byte-order mark.

    CSV has a header and quotes as RFC 4180 has them: a field with a separator, a quote or a line break is in quotes, and
    a quote inside is doubled; semicolons serve as separators where the header has no comma. TSV is quoted the same way,
    as pandas and Excel write it. JSON Lines has one object on every line.

    Raises:
        FileNotFoundError: If there is no such file; names the near miss.
        ValueError: If it is not what its ending says, or empty, or damaged; while rows are read, too.
    """
    kind = _checked(path)
    if kind == "Parquet":
        return _parquet(path)
    return _json_lines(path) if kind == "JSON Lines" else _separated(path, "\t" if kind == "TSV" else ",")


def _checked(path: Path) -> str:
    """What the ending says, if the content agrees."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it: {', '.join(ENDINGS)}")
    if not path.is_file():
        others = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, others, 1)
        raise FileNotFoundError(f"there is no file {path}" + (f"; did you mean {close[0]!r}?" if close else ""))
    ending = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    found, way_out = _look(head)
    way_out, kind = way_out.format(stem=path.stem), ENDINGS.get(ending)
    if kind is None:
        what = f"is {found}; {way_out}" if found else f"has {f'the ending {ending}' if ending else 'no ending'}"
        raise ValueError(f"{path} {what}; tables are read from {', '.join(ENDINGS)}")
    if not head:
        raise ValueError(f"{path} is empty")
    if found not in {None, kind}:
        raise ValueError(f"{path} is {found}, not {kind} as its ending says; {way_out}")
    if kind == "Parquet" and found is None:
        raise ValueError(f"{path} is not Parquet as its ending says; if it is text, rename it to what it is")
    return kind


def _look(head: bytes) -> tuple[str | None, str]:
    """What the first bytes are beyond doubt, and what to do about it; None for text that may be CSV."""
    for sign, found in SIGNS.items():
        if head.startswith(sign):
            return found
    if b"\0" in head:
        return "binary", "save the table as CSV (UTF-8)"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the file itself"
    if start.startswith((b"[{", b"[\n", b"[\r")) or start == b"[]":
        return "one JSON array", "write one object on each line: pandas.DataFrame.to_json(orient='records', lines=True)"
    return ("JSON Lines", "rename it to {stem}.jsonl") if start.startswith(b'{"') else (None, "")


def _separated(path: Path, separator: str) -> Source:
    header = next(_records(path, separator), None)
    if header is None:
        raise ValueError(f"{path} has no line with anything on it")
    columns = [name.strip() for name in header[1]]
    if len(columns) == 1:
        other = next((mark for mark in "\t,;" if mark != separator and mark in columns[0]), None)
        if separator == "," and other == ";":
            return _separated(path, ";")
        if other in {"\t", ","}:
            says, ending = ("tabs", "tsv") if other == "\t" else ("commas", "csv")
            raise ValueError(
                f"{path} is separated by {says}, not as its ending says; rename it to {path.stem}.{ending}"
            )

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        places = [columns.index(name) for name in wanted]
        records = _records(path, separator)
        next(records)
        for line, fields in records:
            if len(fields) != len(columns):
                raise ValueError(
                    f"{path} line {line} has {len(fields)} fields and the header {len(columns)}; a field with "
                    f"{'a tab' if separator == chr(9) else repr(separator)} in it must be in quotes"
                )
            yield line, [fields[place] for place in places]

    return Source(str(path), "line", columns, rows)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Records and the lines on which they begin; lines without anything are passed over."""
    csv.field_size_limit(max(FIELD, csv.field_size_limit()))  # the process's; its default is 131,072
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1
    except csv.Error as error:
        why = {"unexpected end of data": "a quote is opened and never closed"}.get(str(error), str(error))
        if "field limit" in why:
            why = f"a field is longer than {FIELD:,} characters: is a quote opened and never closed?"
        raise ValueError(
            f"{path}, the row that begins on line {line}: {why}; a quote inside a field must be doubled and the field be "
            f"in quotes, as pandas and spreadsheets write it"
        ) from None
    except UnicodeDecodeError as error:
        raise _undecodable(path, error) from None


def _json_lines(path: Path) -> Source:
    columns: dict[str, None] = {}
    for number, (_line, record) in enumerate(_objects(path)):
        if number == LOOK:
            break
        columns |= dict.fromkeys(record)

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        return ((line, [record.get(name) for name in wanted]) for line, record in _objects(path))

    return Source(str(path), "line", list(columns), rows)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path} line {number} is not a JSON object: {first_line(error)}") from None
                if not isinstance(record, dict):
                    raise ValueError(f"{path} line {number} is {line.strip()[:40]!r}, not a JSON object")
                yield number, record
    except UnicodeDecodeError as error:
        raise _undecodable(path, error) from None


def _undecodable(path: Path, error: UnicodeDecodeError) -> ValueError:
    """Says on which line it is: the decoder works in blocks and does not know."""
    number, byte = 1, error.object[error.start]
    with path.open("rb") as file:
        for raw in file:
            try:
                raw.decode()
            except UnicodeDecodeError as found:
                byte = found.object[found.start]
                break
            number += 1
    return ValueError(
        f"{path} line {number} is not UTF-8 (byte 0x{byte:02x}); if it is from Windows, convert it: "
        f"iconv -f WINDOWS-1252 -t UTF-8"
    )


def _parquet(path: Path) -> Source:
    parquet = need("pyarrow.parquet")
    with _sound(path):
        file = parquet.ParquetFile(path)
    schema = file.schema_arrow
    declared = {name: class_names(schema.metadata, name) for name in schema.names}

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        number = 0
        with _sound(path):
            for batch in file.iter_batches(BLOCK, columns=list(dict.fromkeys(wanted)), use_threads=False):
                for values in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield number, values

    return Source(str(path), "row", schema.names, rows, {name: names for name, names in declared.items() if names})


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Makes a sentence of what pyarrow says about a damaged file."""
    try:
        yield
    except (need("pyarrow").ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {first_line(error)}") from error
