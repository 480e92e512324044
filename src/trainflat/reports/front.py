"""Of all smaller models those worth having: the Pareto front, and the one that a budget asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainflat.reports.forgone import best_dense, count, facts, forgone
from trainflat.reports.offers import Offer

__all__ = ["COSTS", "choose", "marked", "pareto"]

COSTS = ("latency", "bytes")
"""What a model can cost: fields of an `Offer`, less is better."""


def pareto(offers: Iterable[Offer], by: str = "latency") -> list[Offer]:
    """The offers that no other one beats: none costs as little and scores as much, and does better in one of the two.

    Rising in cost, hence in the metric; equal twins both stay. Means only: where two are close, noise decides.

    Args:
        offers: Of one task; what has no finite metric is on no front.
        by: "latency" or "bytes".

    Raises:
        ValueError: If they are of several tasks, whose metrics cannot be compared, or ``by`` is no cost.

    Example:
        >>> from trainflat.reports.example_front import offers
        >>> [offer.name for offer in pareto(offers())][-2:]
        ['int8 per channel from SAM', 'dense from SAM']
    """
    front: list[Offer] = []
    for offer in sorted(_comparable(offers), key=lambda offer: (_cost(offer, by), -offer.value.mean)):
        last = front[-1] if front else None
        twin = last and (_cost(last, by), last.value.mean) == (_cost(offer, by), offer.value.mean)
        if last is None or offer.value.mean > last.value.mean or twin:
            front.append(offer)
    return front


def choose(
    offers: Iterable[Offer],
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    max_drop: float | None = None,
    *,
    by: str = "latency",
) -> tuple[Offer | None, str]:
    """The offer that fits, or None, and a sentence: why this one and what it gives up, or what comes nearest and how far it is.

    With a budget the best metric within it (and within the drop, if one is given as well); with a drop alone the cheapest
    within it; with neither the best of all. A tie goes to the cheaper, then to the better.

    Args:
        offers: Of one task.
        budget_ms: The latency that it may have at most, in milliseconds, at the setting of the offers.
        budget_mb: The size that it may have at most, in units of 10^6 bytes.
        max_drop: By how many points it may be below the best dense model, >= 0.
        by: What "cheapest" means where only a drop is given, "latency" or "bytes".

    Raises:
        ValueError: If there are no offers or of several tasks, a budget is not above 0, or a drop is asked for without a dense
            model.

    Example:
        >>> from trainflat.reports.example_front import offers
        >>> print(choose(offers(), max_drop=1.0)[1])
        cofi 60 %, int8 per channel from SAM: 91... at 10... ms and 17.5 MB, the fastest that loses at most 1 point. Beside...
        >>> print(choose(offers(), budget_ms=1)[1])
        No model is within 1 ms; the nearest, cofi 95 %, int8 per channel from ..., takes 2.6... ms (2.6 × the budget).
    """
    known = _comparable(offers)
    budgets = {cost: most for cost, most in (("latency", budget_ms), ("bytes", budget_mb)) if most is not None}
    _check(known, budgets, max_drop, by)
    over = lambda offer: max([_amount(offer, cost) / most for cost, most in budgets.items()], default=0.0)
    lost = lambda offer: 100 * (dense.value.mean - offer.value.mean) if dense else 0.0
    dense = best_dense(known)
    first, second = (by, *(cost for cost in COSTS if cost != by))
    cheap = lambda offer: (_cost(offer, first), _cost(offer, second), -offer.value.mean)
    good = lambda offer: (-offer.value.mean, *cheap(offer))

    near = known if max_drop is None else [offer for offer in known if lost(offer) <= max_drop + 1e-9]
    affordable = [offer for offer in known if over(offer) <= 1]
    within = " and ".join(_limit(cost, most) for cost, most in budgets.items())
    most_lost = "" if max_drop is None else f"loses at most {count(max_drop)}"
    if fitting := [offer for offer in near if offer in affordable]:
        only_drop = max_drop is not None and not budgets
        found = min(fitting, key=cheap if only_drop else good)
        best = ("smallest" if by == "bytes" else "fastest") if only_drop else "best"
        asked = f" {' and '.join(filter(None, [within and f'is within {within}', most_lost]))}"
        why = f"the {best} that{asked}" if asked.strip() else "the best of all"
        return found, f"{found.name}: {facts(found)}, {why}. {forgone(found, known)}".rstrip()
    nearest = min(near, key=lambda offer: (over(offer), good(offer)))
    far = " and ".join(_excess(nearest, cost, most) for cost, most in budgets.items() if _amount(nearest, cost) > most)
    if not affordable:
        also = f" and {most_lost}" if most_lost else ""
        return None, f"No model is within {within}{also}; the nearest, {nearest.name}, {far}."
    best = min(affordable, key=good)
    return None, (
        f"No model within {within} {most_lost}; the best there, {best.name}, loses {lost(best):.1f}, and the nearest that "
        f"loses no more, {nearest.name}, {far}."
    )


def marked(offers: Iterable[Offer], chosen: Mapping[str, Any] | None) -> Offer | None:
    """The offer that a report's header calls ``chosen``: its task, arm, variant and sparsity; None if it is not among these."""
    if not chosen:
        return None
    wanted = (chosen.get("task"), chosen.get("arm"), chosen.get("variant"), float(chosen.get("sparsity") or 0.0))
    same = lambda offer: (
        (offer.task, offer.arm, offer.variant) == wanted[:3] and math.isclose(offer.sparsity, wanted[3], abs_tol=1e-4)
    )
    return next(filter(same, offers), None)


def _comparable(offers: Iterable[Offer]) -> list[Offer]:
    known = [offer for offer in offers if math.isfinite(offer.value.mean)]
    if len(tasks := sorted({offer.task for offer in known})) > 1:
        raise ValueError(
            f"these offers are of {', '.join(tasks)}, whose metrics cannot be compared; give those of one task"
        )
    return known


def _check(offers: Sequence[Offer], budgets: Mapping[str, float], max_drop: float | None, by: str) -> None:
    if not offers:
        raise ValueError("there is nothing to choose from: no model has both a metric and a measured cost")
    for cost, most in budgets.items():
        if not most > 0:
            raise ValueError(f"a budget must be above 0, got {_limit(cost, most)}")
    if max_drop is not None and not max_drop >= 0:
        raise ValueError(f"max_drop counts points that may be lost and must be 0 or more, got {max_drop}")
    if max_drop is not None and best_dense(offers) is None:
        raise ValueError(
            "a drop is counted from the best dense model, but none was measured; measure it, or give a budget"
        )
    _cost(offers[0], by)


def _cost(offer: Offer, by: str) -> float:
    if by not in COSTS:
        raise ValueError(f"by = {by!r} is no cost of a model; use {' or '.join(map(repr, COSTS))}")
    return getattr(offer, by)


def _amount(offer: Offer, cost: str) -> float:
    """In the unit of its budget."""
    return offer.latency if cost == "latency" else offer.bytes / 1e6


def _limit(cost: str, most: float) -> str:
    return f"{most:g} {'ms' if cost == 'latency' else 'MB'}"


def _excess(offer: Offer, cost: str, most: float) -> str:
    amount = _amount(offer, cost)
    said = f"takes {amount:.2f} ms" if cost == "latency" else f"has {amount:,.1f} MB"
    return f"{said} ({amount / most:.{1 if amount >= 1.05 * most else 3}f} × the budget)"
