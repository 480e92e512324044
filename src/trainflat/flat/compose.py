"""Puts a rule together from its choices; the named rules of `trainflat.flat` are one line each."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from torch import nn

from trainflat.flat.ascent import ThisBatch
from trainflat.flat.auto import Auto
from trainflat.flat.choices import check
from trainflat.flat.combine import Replace
from trainflat.flat.examples import Alike
from trainflat.flat.metrics import Metric, l2
from trainflat.flat.places import Where, some
from trainflat.flat.radius import Given, Radius
from trainflat.flat.rule import Dropout, Point, Rule, RuleWithMemory
from trainflat.flat.together import check_together
from trainflat.flat.when import Always

__all__ = ["compose"]

KINDS = {
    "direction": (ThisBatch, "ascent"),
    "start": (Point, "points"),
    "point": (Point, "points"),
    "combine": (Replace, "combine"),
    "when": (Always, "when"),
    "examples": (Alike, "examples"),
}


def compose(
    rho: Radius | Given,
    *,
    direction: ThisBatch | None = None,
    metric: Metric = l2,
    where: Where | None = None,
    start: Point | None = None,
    point: Point | None = None,
    combine: Replace | None = None,
    when: Always | None = None,
    examples: Alike | None = None,
    pieces: int = 1,
    eps: float = 1e-12,
    dropout: Dropout = "fresh",
) -> Rule:
    """A rule from its choices; what is left out is SAM's. It has a ``state_dict`` if one of the choices remembers something.

    Args:
        rho: How far: a number, a schedule, ``"auto"`` (found by `trainflat.flat.auto.Auto`) or such a choice; 0 is `plain`.
        direction: Along what, of `trainflat.flat.ascent` or `trainflat.flat.draws`. Default: this batch's gradient.
        metric: In which metric the direction has length 1, of `trainflat.flat.metrics`. Default: the L2 norm over all.
        where: Which parameters move, of `trainflat.flat.places`, or your own ``(model, params) -> names``. Default: all.
        start: From which point, instead of the weights: their compressed version.
        point: What is done to the point that was reached: pruned or quantized.
        combine: What becomes of the gradients, of `trainflat.flat.combine`. Default: the last one replaces the first.
        when: In which steps, of `trainflat.flat.when`; in the others it is `plain`. Default: in all.
        examples: How much each example counts, of `trainflat.flat.examples`. Default: all alike.
        pieces: How many pieces of the batch have a ball of their own; their gradients are averaged.
        eps: Added to the direction's length.
        dropout: ``"fresh"`` or ``"replay"``, as for `sam`.

    Raises:
        TypeError: If a choice is of the wrong kind.
        ValueError: If one is out of range, or two contradict each other.

    Example:
        >>> import torch
        >>> from trainflat.flat.when import Every
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> rule = compose(rho=0.5, when=Every(2))              # SAM in every second step
        >>> for step in range(2):
        ...     w.grad = None
        ...     _ = rule(closure, {"w": w}, 0.0)
        ...     print(w.grad)
        tensor([3.])
        tensor([2.])
        >>> rule.state_dict()["steps"]
        2
    """
    if dropout not in ("fresh", "replay"):
        raise ValueError(f"dropout must be 'fresh' or 'replay', got {dropout!r}")
    check("eps", eps, 0, math.inf)
    if not isinstance(pieces, Integral):
        raise TypeError(f"pieces counts those of a batch and is a whole number, got {pieces!r}")
    if pieces < 1:
        raise ValueError(f"pieces must be at least 1, got {pieces}")
    choices: dict[str, Any] = {
        "radius": rho if isinstance(rho, Given) else Auto() if rho == "auto" else Given(rho),
        "direction": direction or ThisBatch(),
        "start": start,
        "point": point,
        "combine": combine or Replace(),
        "when": when or Always(),
        "examples": examples,
    }
    _check_kinds(choices, {"metric": metric, "where": where})
    check_together(choices, metric, pieces)
    remembers = any(choice.remembers for choice in choices.values() if choice is not None)
    return (RuleWithMemory if remembers else Rule)(choices, metric, where and some(where), pieces, eps, dropout)


def _check_kinds(choices: dict[str, Any], functions: dict[str, Any]) -> None:
    for name, (kind, home) in KINDS.items():
        if choices[name] is not None and not isinstance(choices[name], kind):
            raise TypeError(
                f"{name} is one of those that trainflat.flat.{home} makes, or of yours; got {choices[name]!r}"
            )
    for name, given in functions.items():
        if given is not None and (not callable(given) or isinstance(given, (type, nn.Module))):
            home = "metrics" if name == "metric" else "places"
            raise TypeError(f"{name} is a function, of trainflat.flat.{home} or your own; got {given!r}")
