"""GLUE's rows, read and checked: from a folder of Parquet files in the hub's schema, or from the hub."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainflat.hf import sources

__all__ = ["SUBSETS", "Rows", "Subset", "files", "official", "read"]

HUB = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"  # pinned: the same rows for everybody, known without asking


@dataclass(frozen=True)
class Subset:
    """One GLUE task as published: its columns, label names in official order, and row counts of its splits."""

    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]  # empty for regression
    sizes: dict[str, int]

    @property
    def splits(self) -> list[str]:
        """Train first, then what is evaluated."""
        return list(self.sizes)


_PAIR = ("sentence1", "sentence2")
_ENTAILS = ("entailment", "not_entailment")
SUBSETS = {
    "cola": Subset("CoLA", ("sentence",), ("unacceptable", "acceptable"), {"train": 8551, "validation": 1043}),
    "sst2": Subset("SST-2", ("sentence",), ("negative", "positive"), {"train": 67349, "validation": 872}),
    "mrpc": Subset("MRPC", _PAIR, ("not_equivalent", "equivalent"), {"train": 3668, "validation": 408}),
    "stsb": Subset("STS-B", _PAIR, (), {"train": 5749, "validation": 1500}),
    "qqp": Subset(
        "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), {"train": 363846, "validation": 40430}
    ),
    "mnli": Subset(
        "MNLI",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        {"train": 392702, "validation_matched": 9815, "validation_mismatched": 9832},
    ),
    "qnli": Subset("QNLI", ("question", "sentence"), _ENTAILS, {"train": 104743, "validation": 5463}),
    "rte": Subset("RTE", _PAIR, _ENTAILS, {"train": 2490, "validation": 277}),
    "wnli": Subset("WNLI", _PAIR, _ENTAILS[::-1], {"train": 635, "validation": 71}),
}
"""The nine GLUE tasks. Wang et al. 2019, arXiv:1804.07461; label order and sizes of the hub's ``nyu-mll/glue``."""


@dataclass
class Rows:
    """The texts and labels of one split, in the file's order; labels are official class indices, or scores."""

    texts: list[list[str]]  # one list for each text column
    labels: np.ndarray  # int64, or float32 for regression
    official: int  # rows that the published split has

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def is_subset(self) -> bool:
        """Whether rows of the published split are missing."""
        return len(self) < self.official

    def take(self, indices: np.ndarray) -> Rows:
        """Some of the rows."""
        texts = [[column[i] for i in indices] for column in self.texts]
        return Rows(texts, self.labels[indices], self.official)


def official(subset: str) -> Subset:
    """What is published about a GLUE task.

    Raises:
        LookupError: If there is none of this name; says the nearest, or all of them.

    >>> official("mrpc").labels
    ('not_equivalent', 'equivalent')
    """
    if subset not in SUBSETS:
        near = difflib.get_close_matches(subset.lower().replace("-", ""), SUBSETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(SUBSETS)}"
        raise LookupError(f"GLUE has no task {subset!r}; {hint}")
    return SUBSETS[subset]


def files(subset: str, data: str | None = None) -> dict[str, Path] | None:
    """The Parquet file of each split, or None if the hub is to be asked.

    Raises:
        LookupError: If GLUE has no such task.
        FileNotFoundError: If a file is missing, or the hub is needed and does not answer.
    """
    published, root = official(subset), sources.folder(data)
    if root is None:
        _check_hub(subset)
        return None
    return sources.files(root, f"glue/{subset}", published.splits, published.title)


def read(subset: str, data: str | None = None) -> dict[str, Rows]:
    """The labelled splits of a GLUE task, train first.

    The order of the label names is read from the data and mapped to the official one.

    Args:
        subset: One of `SUBSETS`.
        data: A folder with ``glue/<subset>/<split>.parquet``. Default: the environment's ``TRAINFLAT_DATA``, else
            the hub's ``nyu-mll/glue`` at a pinned revision.

    Raises:
        LookupError, FileNotFoundError: As `files`.
        ValueError: If a file is corrupt, has no rows, lacks a column or a text, or has unknown or hidden labels.
    """
    published, found = official(subset), files(subset, data)
    tables = _from_hub(subset) if found is None else {split: sources.parquet(path) for split, path in found.items()}
    where = {split: f"{HUB} {subset} {split}" if found is None else str(found[split]) for split in tables}
    return {split: _checked(table, published, split, where[split]) for split, table in tables.items()}


def _from_hub(subset: str) -> dict[str, Any]:
    return sources.from_hub(HUB, subset, REVISION, official(subset).splits, serves=_serves(subset))


def _check_hub(subset: str) -> None:
    sources.check_hub(official(subset).title, HUB, subset, REVISION, serves=_serves(subset))


def _serves(subset: str) -> str:
    return f"A folder with glue/{subset}/train.parquet serves: name it with --data or TRAINFLAT_DATA"


def _checked(table: Any, published: Subset, split: str, where: str) -> Rows:
    lacking = [name for name in (*published.columns, "label") if name not in table.column_names]
    if lacking:
        raise ValueError(
            f"{where} has no column {lacking[0]!r}; {published.title} needs {', '.join(published.columns)}, label"
        )
    if table.num_rows == 0:
        raise ValueError(f"{where} has no rows")
    texts = [table.column(name).to_pylist() for name in published.columns]
    for name, column in zip(published.columns, texts, strict=True):
        for row, text in enumerate(column):
            if not isinstance(text, str):
                raise ValueError(f"{where} row {row}: column {name!r} is {text!r}, not a text")
    column = table.column("label")
    if column.null_count:
        raise ValueError(f"{where} has {column.null_count} rows without a label")
    values = column.to_pylist()
    names = sources.class_names(table.schema.metadata, "label")
    labels = _classes(values, names, published, where) if published.labels else _scores(values, where)
    return Rows(texts, labels, published.sizes[split])


def _classes(values: list[Any], names: list[str] | None, published: Subset, where: str) -> np.ndarray:
    accepted = ", ".join(published.labels)
    if all(isinstance(value, str) for value in values):
        names = sorted(set(values))
        values = [names.index(value) for value in values]
    elif names is None:
        raise ValueError(
            f"{where} does not say what its labels mean; write it with datasets' to_parquet and a ClassLabel "
            f"({accepted}), or store the names themselves"
        )
    unknown = [name for name in names if name not in published.labels]
    if unknown:
        raise ValueError(f"{where} has the unknown label {unknown[0]!r}; {published.title}'s are {accepted}")
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{where} has labels that are no class numbers, such as {values[0]!r}")
    if (labels == -1).any():
        raise ValueError(f"{where} has hidden labels (-1), as a test split has; no score can be computed on it")
    outside = labels[(labels < 0) | (labels >= len(names))]
    if len(outside):
        raise ValueError(f"{where} has the unknown label {outside[0]}; {published.title}'s are {accepted}")
    return np.asarray([published.labels.index(name) for name in names], dtype=np.int64)[labels]


def _scores(values: list[Any], where: str) -> np.ndarray:
    try:
        scores = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{where} has labels that are no scores, such as {values[0]!r}") from None
    if (scores == -1).all():
        raise ValueError(f"{where} has hidden labels (-1), as a test split has; no score can be computed on it")
    wrong = scores[~((scores >= 0) & (scores <= 5))]
    if len(wrong):
        raise ValueError(f"{where} has the score {wrong[0]}; STS-B's are from 0 to 5")
    return scores
