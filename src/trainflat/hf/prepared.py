"""A table that was read, understood and split: what a task of one's own is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped

from trainflat.hf.columns import Target, find, listed
from trainflat.hf.digests import digest_files
from trainflat.hf.formats import ENDINGS, Source, open_file
from trainflat.hf.hubdata import HubData
from trainflat.hf.packed import Texts
from trainflat.hf.splits import hold_out, units
from trainflat.hf.table import Columns, Table, check_columns, locate, read

__all__ = ["Labelled", "Prepared", "identity", "prepare", "title"]

HOLDOUT = 0.1


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts with their labels: class numbers (int64), or scores (float32)."""

    texts: list[Texts]
    labels: Shaped[np.ndarray, " examples"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def official(self) -> int:
        """As many as there are: nobody published more."""
        return len(self)


@dataclass(frozen=True)
class Prepared:
    """The two sides of a table, what is to be predicted, and what is to be said about it."""

    target: Target
    train: Labelled
    held_out: Labelled
    remarks: list[str]


def prepare(
    data: str, columns: Columns, kind: str | None, validation: str | None, holdout: float | None, seed: int
) -> Prepared:
    """Read a table, find its kind, and split it; the arguments are those of `trainflat.hf.text`.

    Raises:
        LookupError, FileNotFoundError, ValueError: As `trainflat.hf.text`.
    """
    if holdout is not None and (isinstance(holdout, bool) or not isinstance(holdout, int | float)):
        raise ValueError(f"holdout is the share of the rows that is scored, above 0 and at most 0.5; got {holdout!r}")
    if type(seed) is not int:
        raise ValueError(f"seed draws the split and is a whole number, got {seed!r}")
    if validation is not None and (holdout is not None or columns.groups):
        other = "groups" if columns.groups else "holdout"
        raise ValueError(f"{other} is for a split of our own, and validation={validation!r} is given: leave one out")
    found = locate(data)
    if isinstance(found, HubData) and validation is None and holdout is None and not columns.groups:
        validation = "validation" if "validation" in found.splits else None
    table = read(_open(found, "train"), columns)
    target = find(table, kind)
    rows = Labelled(table.texts, target.values(table))
    said = [*table.remarks, *target.remarks, *_contradictions(table, rows.labels)]
    if validation is None:
        out = _own_split(table, rows.labels, HOLDOUT if holdout is None else holdout, seed)
        kept, held_out = np.flatnonzero(~out), _take(rows, np.flatnonzero(out))
        alike = f"text or {columns.groups!r}" if columns.groups else "text"
        said.append(f"own split, stratified, seed {seed}, rows with the same {alike} on one side")
    else:
        scored = read(_open(_locate_validation(validation, found), validation), _without_groups(columns))
        held_out = Labelled(scored.texts, target.values(scored))
        if len(np.unique(held_out.labels)) < 2:
            raise ValueError(
                f"{scored.name} has the same label in all {len(held_out):,} rows, so whatever says it always would be the best "
                "model; give a validation file with others, or none"
            )
        kept = np.flatnonzero(~np.isin(table.keys, scored.keys))
        said += [f"validation: {remark}" for remark in scored.remarks]
        if len(kept) < len(table):
            said.append(f"{len(table) - len(kept):,} training rows left out whose texts are in {scored.name}")
        if len(np.unique(rows.labels[kept])) < 2:
            raise ValueError(
                f"{table.name} has {len(kept):,} rows whose texts are not in {scored.name}, and not two different labels "
                f"among them; give a validation file with other texts, or none"
            )
    return Prepared(target, _take(rows, kept), held_out, [*said, *_unseen(target, held_out)])


def identity(data: str, columns: Columns, validation: str | None) -> str:
    """What decides the rows: a digest of the files, or name and revision on the hub. The columns of files are checked.

    Raises:
        LookupError, FileNotFoundError, ValueError: As `trainflat.hf.text`, for what is missing.
    """
    found = locate(data)
    needed = [(found, columns)]
    if validation is not None:
        needed.append((_locate_validation(validation, found), _without_groups(columns)))
    files = []
    for where, of in needed:
        if isinstance(where, Path):
            check_columns(open_file(where), of)
            files.append(where)
    hub = [found.identity] if isinstance(found, HubData) else []
    return " ".join([*hub, *([digest_files(files)[:16]] if files else [])])


def title(data: str) -> str:
    """What a table is called in reports: the file without its ending, or the name on the hub without its owner.

    >>> title("data/reviews.csv"), title("nyu-mll/glue:sst2")
    ('reviews', 'glue:sst2')
    """
    found = locate(data)
    return found.stem if isinstance(found, Path) else str(found).split("/")[-1]


def _own_split(
    table: Table, labels: Shaped[np.ndarray, " examples"], share: float, seed: int
) -> Bool[np.ndarray, " examples"]:
    grouped = table.columns.groups is not None
    together = units(table.keys, table.groups.codes if grouped else None)
    try:
        return hold_out(labels, together, share, seed=seed, whole_groups=grouped)
    except ValueError as error:
        raise ValueError(f"{table.name}: {error}") from None


def _take(rows: Labelled, indices: Int[np.ndarray, " _"]) -> Labelled:
    return Labelled([texts.take(indices) for texts in rows.texts], rows.labels[indices])


def _contradictions(table: Table, labels: Shaped[np.ndarray, " examples"]) -> Iterator[str]:
    """Says how many texts occur with different labels, which no model can get right."""
    order = np.lexsort((labels, table.keys))
    keys, labels = table.keys[order], labels[order]
    differ = (keys[1:] == keys[:-1]) & (labels[1:] != labels[:-1])
    count = len(np.unique(keys[1:][differ]))
    if count:
        yield f"{count:,} text{'s' * (count > 1)} with more than one label"


def _unseen(target: Target, held_out: Labelled) -> Iterator[str]:
    absent = sorted(set(range(len(target.names))) - set(np.unique(held_out.labels).tolist())) if target.names else []
    if absent:
        yield f"not in validation: {listed([target.names[i] for i in absent])}"


def _open(found: Path | HubData, split: str) -> Source:
    return open_file(found) if isinstance(found, Path) else found.open(split)


def _locate_validation(word: str, data: Path | HubData) -> Path | HubData:
    """A file; or, where the table is from the hub, the data set that has this split."""
    path = Path(word).expanduser()
    return path if isinstance(data, Path) or path.exists() or path.suffix.lower() in ENDINGS else data


def _without_groups(columns: Columns) -> Columns:
    return Columns(columns.text, columns.label, columns.text2)
