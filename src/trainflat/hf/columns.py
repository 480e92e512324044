"""What kind of task a table is, found from its labels and said: classification or regression, of texts or of pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from trainflat.hf.table import Table

__all__ = ["KINDS", "Target", "find"]

KINDS = ("classification", "regression")
WHOLE = 20  # different whole numbers that are taken for classes
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
SHOWN = 8  # label names that a note lists
NAMES = "say kind='classification' (--kind classification)"


@dataclass(frozen=True)
class Target:
    """What is to be predicted: one of the label names, or a score (then there are no names)."""

    kind: str
    names: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    def values(self, table: Table) -> Int64[np.ndarray, " examples"] | Float32[np.ndarray, " examples"]:
        """The labels of a table as class numbers or scores.

        Raises:
            ValueError: If one is no label of this kind, as may happen in a validation file; names the row.
        """
        number = {name: i for i, name in enumerate(self.names)}
        found = []
        for code, value in enumerate(table.labels.values):
            plain = _number(value) if not self.names else number.get(value, number.get(_name(value, table.classes)))
            if plain is None:
                known = (
                    f"one of {listed(self.names)}, as in training" if self.names else "a number, as for a regression"
                )
                raise ValueError(f"{table.first(code)}: label {str(value)[:40]!r} is not {known}")
            found.append(plain)
        return np.asarray(found, dtype=np.int64 if self.names else np.float32)[table.labels.codes]

    def __str__(self) -> str:
        return f"{self.kind} into {len(self.names)}: {listed(self.names)}" if self.names else self.kind


def find(table: Table, kind: str | None = None) -> Target:
    """Classification or regression, from what the labels are; ``kind`` decides where that would be wrong.

    * Label names that the file declares (a ``ClassLabel`` of `datasets`), texts, true and false: classification.
    * Whole numbers, however written (``5``, ``5.0``), up to 20 different ones: classification, as stars or 0 and 1 are.
    * Codes, texts of equally many digits of which one begins with 0 (``007``, ``120``): classification; they stay as they are.
    * Other numbers: regression. (scikit-learn's ``type_of_target`` draws the same line between whole and other numbers,
      but takes any number of whole ones for classes.)

    So more than 20 whole numbers are a regression, and a remark says how to have them as classes.
    Names come in the file's order where it declares them, else in the order of the numbers or the alphabet.

    Raises:
        ValueError: If labels are of mixed types, all the same, or nearly all different; names a row and the way out.

    Example:
        >>> _number("5.0"), _number("five"), _number(True), _name(5.0), _name(True)
        (5.0, None, None, '5', 'true')
    """
    if kind not in {None, *KINDS}:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    values, where = table.labels.values, f"column {table.columns.label!r} of {table.name}"
    names = set(_names(table))
    if len(names) == 1:
        raise ValueError(f"{where} is {next(iter(names))!r} in all {len(table):,} rows; there is nothing to learn")
    chosen = kind or _kind(table, where)
    pairs = "pair " * bool(table.columns.text2)
    if chosen == "regression":
        whole = kind is None and all(float(value).is_integer() for value in values)
        many = [f"{len(names)} different whole numbers; if they stand for classes {NAMES}"] * whole
        target = Target(f"{pairs}regression", remarks=many)
        target.values(table)  # every label is a number, or a sentence says which is not
        return target
    remarks = _remarks(table)
    if table.classes:
        ordered = [name for name in table.classes if name in names]
    elif all(_number(value) is not None for value in values):
        ordered = sorted(names, key=lambda name: (float(name), name))
    else:
        ordered = sorted(names)
    return Target(f"{pairs}classification", tuple(ordered), remarks)


def listed(names: Sequence[str]) -> str:
    """Label names in a sentence, the first few of them, each on one line.

    >>> listed(["good", "not\\n good"])
    'good, not good'
    """
    return ", ".join(" ".join(name.split())[:30] for name in names[:SHOWN]) + ", …" * (len(names) > SHOWN)


def _kind(table: Table, where: str) -> str:
    values, counts = table.labels.values, table.labels.counts
    numeric = [_number(value) is not None and not _are_codes(values) for value in values]
    if table.classes or all(_is_truth(value) for value in values):
        return "classification"
    if all(numeric):
        whole = {_name(value) for value in values if float(value).is_integer()}
        return "classification" if len(whole) == len({_name(value) for value in values}) <= WHOLE else "regression"
    if any(numeric):
        few = sum(counts[numeric]) * 2 < len(table)  # are the numbers the exception?
        odd, usual = numeric.index(few), numeric.index(not few)
        raise ValueError(
            f"{where} mixes numbers with texts: {table.unit} {_line(table, odd)} has {str(values[odd])[:40]!r} where others "
            f"have {str(values[usual])[:40]!r}; correct it, or {NAMES} to take each for a name"
        )
    if any(_is_truth(value) for value in values) and not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where} mixes true and false with texts; {NAMES} to take each for a name")
    if all(isinstance(value, str) and COMMA.fullmatch(value) for value in values):
        raise ValueError(f"{where} has numbers with a decimal comma, such as {values[0]!r}; write a decimal point")
    if len(values) > max(WHOLE, len(table) // 2):
        raise ValueError(
            f"{where} has {len(values):,} different texts in {len(table):,} rows, which are no labels; name another column, "
            f"or {NAMES}"
        )
    return "classification"


def _line(table: Table, code: int) -> int:
    return int(table.places[int(np.argmax(table.labels.codes == code))])


def _remarks(table: Table) -> list[str]:
    names = _names(table)
    counts = dict.fromkeys(names, 0)
    for name, count in zip(names, table.labels.counts, strict=True):
        counts[name] += int(count)
    single = sorted(name for name, count in counts.items() if count == 1)
    folded: dict[str, list[str]] = {}
    for name in sorted(counts):
        folded.setdefault(name.casefold(), []).append(name)
    alike = next((group for group in folded.values() if len(group) > 1), None)
    remarks = []
    if single:
        remarks.append(f"{len(single)} label{'s' * (len(single) > 1)} with one example ({listed(single)})")
    if alike:
        remarks.append(f"labels that differ only in case are kept apart ({listed(alike)})")
    return remarks


def _names(table: Table) -> list[str]:
    """What each different value of the label is called."""
    values = table.labels.values
    return list(values) if _are_codes(values) else [_name(value, table.classes) for value in values]


def _are_codes(values: Sequence[Any]) -> bool:
    """Whether leading zeros belong to them.

    >>> _are_codes(["007", "120"]), _are_codes(["7", "120"]), _are_codes(["0", "1"])
    (True, False, False)
    """
    digits = all(isinstance(value, str) and re.fullmatch(r"\d{2,}", value, re.ASCII) for value in values)
    return digits and len(set(map(len, values))) == 1 and any(value[0] == "0" for value in values)


def _name(value: Any, classes: Sequence[str] = ()) -> str:
    """A label as a text; a class number that the file declares as its name."""
    if classes and isinstance(value, int) and 0 <= value < len(classes):
        return classes[value]
    number = _number(value)
    if number is not None and number.is_integer():  # of a long one a float does not have every digit
        return str(int(Decimal(value) if isinstance(value, str) else value))
    if number is not None:
        return repr(number)
    return str(value).lower() if _is_truth(value) else str(value)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in {"true", "false"})


def _number(value: Any) -> float | None:
    """A finite number, or None; ``True`` is none."""
    if isinstance(value, str):
        return float(value) if NUMBER.fullmatch(value) and np.isfinite(float(value)) else None
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is None or np.isfinite(number) else None
