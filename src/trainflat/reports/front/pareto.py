"""Of all smaller models those worth having: the Pareto front, and the one that a budget asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainflat.reports.front.given_up import best_dense, count, facts, forgone
from trainflat.reports.front.offers import Offer
from trainflat.reports.numbers import percent

__all__ = ["COSTS", "check_wish", "choose", "cost", "marked", "pareto"]

COSTS = ("latency", "bytes", "sparsity")
"""By what a model can be cheap: see `cost`."""

CHEAPEST = {"latency": "fastest", "bytes": "smallest", "sparsity": "most sparse"}


def pareto(offers: Iterable[Offer], by: str = "latency") -> list[Offer]:
    """The offers that no other one beats: none costs as little and scores as much, and does better in one of the two.

    Rising in cost, hence in the metric; equal twins both stay. Means only: where two are close, noise decides.

    Args:
        offers: Of one task; what has no finite metric is on no front.
        by: One of `COSTS`.

    Raises:
        ValueError: If they are of several tasks, whose metrics cannot be compared, or ``by`` is no cost.

    Example:
        >>> from trainflat.reports.front.example_front import offers
        >>> [offer.name for offer in pareto(offers())][-2:]
        ['int8 per channel from SAM', 'dense from SAM']
    """
    front: list[Offer] = []
    for offer in sorted(_comparable(offers), key=lambda offer: (cost(offer, by), -offer.value.mean)):
        last = front[-1] if front else None
        twin = last and (cost(last, by), last.value.mean) == (cost(offer, by), offer.value.mean)
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
        by: What "cheapest" means where only a drop is given: the fastest ("latency"), the smallest ("bytes"), or the one with
            most of its weights zero or cut away ("sparsity").

    Raises:
        ValueError: If there are no offers or of several tasks, a budget is not above 0, or a drop is asked for without a dense
            model.

    Example:
        >>> from trainflat.reports.front.example_front import offers
        >>> print(choose(offers(), max_drop=1.0)[1])
        cofi 60 %, int8 per channel from SAM: 91... at 10... ms and 17.5 MB, the fastest that loses at most 1 point. Beside...
        >>> print(choose(offers(), budget_ms=1)[1])
        No model is within 1 ms; the nearest, cofi 95 %, int8 per channel from ..., takes 2.6... ms (2.6 × the budget).
    """
    known = _comparable(offers)
    budgets = {of: most for of, most in (("latency", budget_ms), ("bytes", budget_mb)) if most is not None}
    check_wish(budget_ms, budget_mb, max_drop, by)
    _check(known, max_drop)
    over = lambda offer: max([_amount(offer, of) / most for of, most in budgets.items()], default=0.0)
    lost = lambda offer: 100 * (dense.value.mean - offer.value.mean) if dense else 0.0
    dense = best_dense(known)
    order = dict.fromkeys((by, "latency", "bytes"))
    cheap = lambda offer: (*(cost(offer, of) for of in order), -offer.value.mean)
    good = lambda offer: (-offer.value.mean, *cheap(offer))

    near = known if max_drop is None else [offer for offer in known if lost(offer) <= max_drop + 1e-9]
    affordable = [offer for offer in known if over(offer) <= 1]
    within = " and ".join(_limit(of, most) for of, most in budgets.items())
    most_lost = "" if max_drop is None else f"loses at most {count(max_drop)}"
    if fitting := [offer for offer in near if offer in affordable]:
        only_drop = max_drop is not None and not budgets
        found = min(fitting, key=cheap if only_drop else good)
        best = CHEAPEST[by] if only_drop else "best"
        asked = f" {' and '.join(filter(None, [within and f'is within {within}', most_lost]))}"
        why = f"the {best} that{asked}" if asked.strip() else "the best of all"
        if only_drop and by == "sparsity":
            why += f" ({percent(found.gone)} of its weights are zero or cut away)"
        return found, f"{found.name}: {facts(found)}, {why}. {forgone(found, known)}".rstrip()
    nearest = min(near, key=lambda offer: (over(offer), good(offer)))
    far = " and ".join(_excess(nearest, of, most) for of, most in budgets.items() if _amount(nearest, of) > most)
    if not affordable:
        also = f" and {most_lost}" if most_lost else ""
        return None, f"No model is within {within}{also}; the nearest, {nearest.name}, {far}."
    best = min(affordable, key=good)
    return None, (
        f"No model within {within} {most_lost}; the best there, {best.name}, loses {lost(best):.1f}, and the nearest that "
        f"loses no more, {nearest.name}, {far}."
    )


def cost(offer: Offer, by: str) -> float:
    """What an offer costs, less is better: milliseconds, bytes, or the share of its weights that is neither zero nor cut away.

    Raises:
        ValueError: If ``by`` is none of `COSTS`.
    """
    _check_cost(by)
    return 1.0 - offer.gone if by == "sparsity" else getattr(offer, by)


def check_wish(
    budget_ms: float | None = None, budget_mb: float | None = None, max_drop: float | None = None, by: str = "latency"
) -> None:
    """Whether a wish can be one, before there is anything to choose from.

    Raises:
        ValueError: If a budget is not above 0, a drop is below 0, or ``by`` is no cost.
    """
    for of, most in (("latency", budget_ms), ("bytes", budget_mb)):
        if most is not None and not most > 0:
            raise ValueError(f"a budget must be above 0, got {_limit(of, most)}")
    if max_drop is not None and not max_drop >= 0:
        raise ValueError(f"max_drop counts points that may be lost and must be 0 or more, got {max_drop}")
    if max_drop == math.inf:
        raise ValueError(
            "max_drop counts points that may be lost and must be finite, got inf; with a budget it may be left out"
        )
    _check_cost(by)


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


def _check(offers: Sequence[Offer], max_drop: float | None) -> None:
    if not offers:
        raise ValueError("there is nothing to choose from: no model has both a metric and a measured cost")
    if max_drop is not None and best_dense(offers) is None:
        raise ValueError(
            "a drop is counted from the best dense model, but none was measured; measure it, or give a budget"
        )


def _check_cost(by: str) -> None:
    if by not in COSTS:
        *some, last = map(repr, COSTS)
        raise ValueError(f"by = {by!r} is no cost of a model; use {', '.join(some)} or {last}")


def _amount(offer: Offer, by: str) -> float:
    """In the unit of its budget."""
    return offer.latency if by == "latency" else offer.bytes / 1e6


def _limit(by: str, most: float) -> str:
    return f"{most:g} {'ms' if by == 'latency' else 'MB'}"


def _excess(offer: Offer, by: str, most: float) -> str:
    amount = _amount(offer, by)
    said = f"takes {amount:.2f} ms" if by == "latency" else f"has {amount:,.1f} MB"
    return f"{said} ({amount / most:.{1 if amount >= 1.05 * most else 3}f} × the budget)"
