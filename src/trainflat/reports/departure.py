"""How a run departs from its recipe: what was asked for instead of what the recipe says, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["departure"]


def departure(header: Mapping[str, Any]) -> str:
    """The sentence; empty if the run is the recipe's own.

    Only what changes a setting makes a run's numbers others than the recipe's (its rows say so, too, see
    `trainflat.reports.paper.effects.origin`); other seeds are as good a sample, and are told.

    Args:
        header: Of the run: ``changed``, its options as they are typed, and ``seeds``, those of the ``run`` and of the ``recipe``.
            A run that was recorded without them is told as its recipe's.

    Example:
        >>> departure({"changed": ["--set imp.epochs=3", "--smoke"], "seeds": {"run": [0, 1], "recipe": [0, 1, 2]}})
        'This departs from the recipe: it was run with --set imp.epochs=3 and --smoke, on seeds 0, 1 instead of 0, 1, 2.'
        >>> departure({"changed": [], "seeds": {"run": [0], "recipe": [0]}})
        ''
    """
    changed = [str(option) for option in header.get("changed") or ()]
    run, recipe = (sorted((header.get("seeds") or {}).get(whose, ())) for whose in ("run", "recipe"))
    told = [f"with {' and '.join(filter(None, [', '.join(changed[:-1]), changed[-1]]))}"] if changed else []
    told += [f"on seeds {', '.join(map(str, run))} instead of {', '.join(map(str, recipe))}"] if run != recipe else []
    return f"This departs from the recipe: it was run {', '.join(told)}." if told else ""
