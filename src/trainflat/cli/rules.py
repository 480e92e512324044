"""Flat rules as they are typed: each a name or a TOML table, and a radius for the one that has none of its own."""

from __future__ import annotations

import math
from typing import Any

from trainflat.cli.options import parse_overrides
from trainflat.experiments.flat_rules import RULES

__all__ = ["parse_rules"]


def parse_rules(rules: list[str] | None, rho: str | None) -> Any:
    """One rule, or several; a radius is that of the one, or of those that are usual.

    Raises:
        ValueError: If a rule or the radius cannot be read, or it is not clear whose radius it is.

    Example:
        >>> parse_rules(["sam"], "0.1"), parse_rules(["sam", "{ name = 'looksam', k = 5 }"], None)
        ({'name': 'sam', 'rho': 0.1}, ('sam', {'name': 'looksam', 'k': 5}))
    """
    if not rules:
        names = [rule if isinstance(rule, str) else rule["name"] for rule in RULES]
        return RULES if rho is None else tuple(_rule(name, rho) for name in names)
    if rho is not None and len(rules) > 1:
        raise ValueError(
            f"--rho {rho} is the radius of which rule? Give each its own: --rule '{{name=\"sam\", rho=0.1}}'"
        )
    found = [_rule(rule, rho) for rule in rules]
    return found[0] if len(found) == 1 else tuple(found)


def _rule(rule: str, rho: str | None) -> Any:
    """A rule by name, or as a TOML table; a radius is a number or "auto".

    >>> _rule("sam", "0.1"), _rule("sam", "auto"), _rule("{ name = 'looksam', k = 5 }", None)
    ({'name': 'sam', 'rho': 0.1}, {'name': 'sam', 'rho': 'auto'}, {'name': 'looksam', 'k': 5})
    """
    table = rule.lstrip().startswith("{")
    found = parse_overrides([f"rule={rule}"])["rule"] if table else {"name": rule}
    if not (isinstance(found, dict) and isinstance(found.get("name"), str)):
        raise ValueError(
            f'--rule takes a name, or a TOML table with a name such as {{name = "sam", rho = 0.1}}; got {rule!r}'
        )
    if rho is None:
        return found if table else rule
    if "rho" in found:
        raise ValueError(f"--rho {rho} and --rule {rule!r} both name a radius; leave one of them out")
    return {**found, "rho": _radius(rho)}


def _radius(text: str) -> float | str:
    """A number of 0 or more, or "auto"."""
    if text == "auto":
        return text
    try:
        radius = float(text)
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise ValueError(f'--rho takes a number of 0 or more, such as 0.05, or "auto"; got {text!r}')
    return radius
