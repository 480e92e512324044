"""What a smaller model gives up and what it gains, in a sentence: its metric, latency and size beside the best dense model's."""

from __future__ import annotations

from collections.abc import Iterable

from trainflat.reports.front.offers import Offer
from trainflat.reports.numbers import points
from trainflat.reports.stats import compare

__all__ = ["best_dense", "count", "facts", "forgone", "times"]


def best_dense(offers: Iterable[Offer]) -> Offer | None:
    """The dense model with the best mean, whatever its arm: what every smaller one is measured by. None if there is none."""
    dense = [offer for offer in offers if offer.variant == "dense"]
    return max(dense, key=lambda offer: (offer.value.mean, -offer.latency), default=None)


def forgone(offer: Offer, offers: Iterable[Offer]) -> str:
    """What an offer gives up beside the best dense model, and what it gains; empty without a dense model.

    Example:
        >>> from trainflat.reports.front import example_front
        >>> offers = example_front.offers()
        >>> print(forgone(next(o for o in offers if o.name == "cofi 60 % from SAM"), offers))
        Beside the best dense model, dense from SAM (91.7 at ...), it loses 0.3 points (...), is 2.3 × faster and 1.9 × smaller.
    """
    dense = best_dense(offers)
    if dense is None:
        return ""
    if offer == dense:
        return "It is the best dense model itself."
    lost = compare(offer.values, dense.values)
    loses = round(100 * lost.mean, 1) >= 0
    verb, d = ("loses", lost) if loses else ("gains", compare(dense.values, offer.values))
    sure = "no interval" if d.low is None or d.high is None else f"95 % CI {points(d.low)} to {points(d.high)}"
    kept = f"{verb} {count(abs(round(100 * d.mean, 1)))} ({sure}, n = {d.n})"
    faster = times(dense.latency / offer.latency, "faster", "slower", "as fast")
    smaller = times(dense.bytes / offer.bytes, "smaller", "larger", "as large")
    return f"Beside the best dense model, {dense.name} ({facts(dense)}), it {kept}, is {faster} and {smaller}."


def facts(offer: Offer) -> str:
    """Metric, latency and size: "91.2 at 10.40 ms and 17.5 MB"."""
    return f"{points(offer.value.mean)} at {offer.latency:.2f} ms and {offer.bytes / 1e6:,.1f} MB"


def count(of: float) -> str:
    """So many points.

    >>> count(1.0), count(0.4)
    ('1 point', '0.4 points')
    """
    return f"{of:g} point{'s' * (of != 1)}"


def times(ratio: float, more: str, less: str, same: str) -> str:
    """A factor as a reader says it.

    >>> times(2.0, "faster", "slower", "as fast"), times(0.5, "faster", "slower", "as fast")
    ('2.0 × faster', '2.0 × slower')
    """
    if f"{ratio:.1f}" == "1.0":
        return same
    return f"{ratio:.1f} × {more}" if ratio > 1 else f"{1 / ratio:.1f} × {less}"
