"""Whether anything was learned at all: the best dense model beside one that always says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainflat.reports.offers import Offer

__all__ = ["beware"]


def beware(task: Any, offers: Sequence[Offer]) -> str:
    """A sentence if the best dense model does no better than always giving the most frequent label, or is no guide to a number.

    Of what was not learned nothing can be lost, so every smaller model looks as good.

    Args:
        task: With ``labels`` (none for a regression) and ``held_out``; of one without these nothing is said.
        offers: With the metric's mean over seeds: accuracy, or a correlation.
    """
    best = max((offer.value.mean for offer in offers if offer.variant == "dense"), default=None)
    if best is None or not hasattr(task, "held_out"):
        return ""
    way_out = "nothing was learned that could be lost. Train longer (--epochs), at another rate (--lr), or on more rows"
    if not task.labels:
        return "" if best > 0 else f"Beware: no dense model's numbers go along with the labels, so {way_out}."
    label, count = Counter(task.held_out.labels.tolist()).most_common(1)[0]
    share = count / len(task.held_out.labels)
    if best > share:
        return ""
    said = f"always saying {task.labels[label]!r} ({100 * share:.1f})"
    return f"Beware: no dense model does better than {said}, so {way_out}."
