"""Columns of a million rows in little memory: texts one after another, and values that are few by their number."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Int, Int32, Int64

__all__ = ["Coded", "Texts"]


class Texts(Sequence[str]):
    """Many texts in one piece of memory, as UTF-8; a selection of them shares it.

    Example:
        >>> texts = Texts()
        >>> for word in ("one", "zwölf", ""):
        ...     texts.append(word)
        >>> texts[1], texts[:2], list(texts.take(np.array([2, 0])))
        ('zwölf', ['one', 'zwölf'], ['', 'one'])
    """

    def __init__(self) -> None:
        self._bytes, self._ends, self._rows = bytearray(), array("q", [0]), None

    def append(self, text: str) -> None:
        """Add one.

        Raises:
            UnicodeEncodeError: If it has half a surrogate pair, which is no character.
            AttributeError: If it is no text.
        """
        self._bytes += text.encode()
        self._ends.append(len(self._bytes))

    def take(self, rows: Int[np.ndarray, " examples"]) -> Texts:
        """Some of them, in this order; nothing is copied."""
        some = Texts()
        some._bytes, some._ends = self._bytes, self._ends
        some._rows = rows if self._rows is None else self._rows[rows]
        return some

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index] if self._rows is None else int(self._rows[index])
        return self._bytes[self._ends[place] : self._ends[place + 1]].decode()


class Coded:
    """A column with few different values: the values in the order in which they came, and a number for each row."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._codes = array("i")

    def append(self, value: Any) -> None:
        """Add one; ``True``, ``1`` and ``1.0`` are told apart.

        Raises:
            TypeError: If it is a list or the like.
        """
        key = value if isinstance(value, str) else (type(value), value)
        code = self._numbers.setdefault(key, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        self._codes.append(code)

    @property
    def codes(self) -> Int32[np.ndarray, " examples"]:
        """Which of the values each row has."""
        return np.frombuffer(self._codes, np.int32) if len(self._codes) else np.zeros(0, np.int32)

    @property
    def counts(self) -> Int64[np.ndarray, " classes"]:
        """How many rows have each value."""
        return np.bincount(self.codes, minlength=len(self.values))
