"""The flat rules that a search tries beside plain Adam, and what each is called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainflat.experiments.resolve import Spec

__all__ = ["RULES", "Rule", "called"]

Rule = Mapping[str, Any] | str

RULES: tuple[Any, ...] = ("sam", {"name": "stale_sam", "rho": 0.01})
"""What is tried where nothing is named: the paper's rule, and `trainflat.flat.default`'s for pretrained models, which costs as
many passes as Adam."""


def called(given: Rule | Sequence[Rule]) -> list[tuple[str, Rule]]:
    """What each rule is called, and the rule: SAM, CRAM every 5; of several that differ in their radius SAM 0.1.

    Raises:
        ValueError: If no rule is named, one is no rule or has a value that is not finite, or two are called the same.

    Example:
        >>> [name for name, _ in called(["sam", {"name": "cram", "every": 5}, {"name": "stale_sam", "rho": 0.01}])]
        ['SAM', 'CRAM every 5', 'stale_sam']
    """
    if not isinstance(given, str | Mapping | Sequence):
        raise ValueError(f"gradient is the name of a flat rule, such as sam, or a list of such; got {given!r}")
    rules = [_plain(rule) for rule in ([given] if isinstance(given, str | Mapping) else given)]
    short = [_label(rule) for rule in rules]
    found = [(_label(rule, short.count(name) > 1), rule) for name, rule in zip(short, rules, strict=True)]
    names = [name for name, _ in found]
    for name, rule in found:
        _check(rule)
        if names.count(name) > 1:
            raise ValueError(f"the rule {name} is there twice; name each rule once")
    if not found:
        raise ValueError("gradient names no rule; name a flat rule, such as sam, or leave it out for the usual ones")
    return found


def _check(rule: Rule) -> None:
    spec = Spec.parse(rule, "gradient")
    for key, value in spec.kwargs.items():
        if not all(map(math.isfinite, _floats(value))):
            raise ValueError(f"{key} of {spec.name} must be finite, got {value}")
    if spec.name == "plain":
        raise ValueError("plain is Adam without a flat rule, which is always tried; name a flat rule, such as sam")


def _label(rule: Rule, radius: bool = False) -> str:
    """The name, in capitals unless it has an underscore, a dot or a colon, and all that is given beside the radius.

    >>> _label("sam"), _label({"name": "stale_sam", "rho": 0.1}), _label({"name": "cram", "every": 5})
    ('SAM', 'stale_sam', 'CRAM every 5')
    >>> _label({"name": "sam", "rho": 0.1}, radius=True), _label("mylab.flat:noisy")
    ('SAM 0.1', 'mylab.flat:noisy')
    """
    spec = Spec.parse(rule, "gradient")
    rho = [str(spec.kwargs["rho"])] if radius and "rho" in spec.kwargs else []
    more = [f"{key} {value}" for key, value in spec.kwargs.items() if key != "rho"]
    return " ".join([spec.name.upper() if spec.name.isalnum() else spec.name, *rho, *more])


def _plain(value: Any) -> Any:
    """With lists for tuples, as a recipe has them.

    >>> _plain({"name": "cram", "sparsity": (0.1, 0.5)})
    {'name': 'cram', 'sparsity': [0.1, 0.5]}
    """
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _floats(value: Any) -> Iterator[float]:
    """The floats in a value, its lists and its tables.

    >>> list(_floats({"from": 0.1, "levels": [1, [math.inf]]}))
    [0.1, inf]
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
    elif isinstance(value, float):
        yield value
