"""Values as they are written in TOML: what `tomllib` reads, said again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["key", "value"]


def value(of: Any) -> str:
    """A value in one line; of a table what is None is left out, since TOML has no such thing.

    Example:
        >>> print(value({"name": "sam", "rho": 0.1, "norms": [True, "a"], "grow": None}))
        { name = "sam", rho = 0.1, norms = [true, "a"] }
        >>> import tomllib
        >>> tomllib.loads(f'{key("a b")} = {value((1, float("-inf")))}')
        {'a b': [1, -inf]}
    """
    if isinstance(of, Mapping):
        pairs = ", ".join(f"{key(name)} = {value(item)}" for name, item in of.items() if item is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(of, (list, tuple)):
        return f"[{', '.join(map(value, of))}]"
    if isinstance(of, float) and not math.isfinite(of):
        return str(of)
    return json.dumps(of, ensure_ascii=False, default=str)  # JSON's texts and numbers are TOML's as well


def key(of: str) -> str:
    """A key, in quotes if it has to be."""
    bare = of.isascii() and of.replace("-", "").replace("_", "").isalnum()
    return of if bare else json.dumps(of, ensure_ascii=False)
