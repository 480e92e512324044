"""What the docstrings and the pages point to is there."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import trainflat

PACKAGE = Path(trainflat.__file__).parent
ROOT = Path(__file__).parents[1]


def found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for known in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:known]))
        except ImportError:
            continue
        try:
            return reduce(getattr, parts[known:], module) is not None
        except AttributeError:
            return False
    return False


def test_every_name_of_ours_that_is_pointed_to_in_full_is_there():
    pages = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml"), *ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"`(trainflat(?:\.\w+)+)(?![\w*])", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 50
    assert sorted(name for name in named if not found(name)) == []
    assert not found("trainflat.compress.Masks")
