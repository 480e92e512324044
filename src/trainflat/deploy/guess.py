"""Whether the scores can be believed: something was learned at all, and it was scored on enough rows to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from trainflat.reports.offers import Offer

__all__ = ["beware"]

FEW = 100
"""Of fewer rows one is more than a point, which is what may be lost by default."""


def beware(task: Any, offers: Sequence[Offer]) -> str:
    """Sentences if the best dense model does no better than a guess, and if one row more or less decides; empty if neither.

    Of what was not learned nothing can be lost, so every smaller model looks as good; and so does one where chance does.

    Args:
        task: With ``labels`` (none for a regression) and ``held_out``; of one without these nothing is said.
        offers: With the metric's mean over seeds: accuracy, or a correlation.
    """
    best = max((offer.value.mean for offer in offers if offer.variant == "dense"), default=None)
    if best is None or not hasattr(task, "held_out"):
        return ""
    return " ".join(f"Beware: {said}" for said in (*_no_better(task, best), *_few(task)))


def _no_better(task: Any, best: float) -> Iterator[str]:
    """The best dense model is no better than one that always says the same, or no guide to a number."""
    way_out = (
        "nothing was learned that could be lost. Train longer (--epochs), at another rate (--lr), or on more rows."
    )
    if not task.labels:
        if best <= 0:
            yield f"no dense model's numbers go along with the labels, so {way_out}"
        return
    label, count = Counter(task.held_out.labels.tolist()).most_common(1)[0]
    share = count / len(task.held_out.labels)
    if best <= share:
        yield f"no dense model does better than always saying {task.labels[label]!r} ({100 * share:.1f}), so {way_out}"


def _few(task: Any) -> Iterator[str]:
    count = len(task.held_out.labels)
    if count < FEW:
        each = f", of which one is {100 / count:.1f} points" if task.labels else ""
        yield (
            f"every model was scored on the same {count} rows only{each}, so chance has a say in which one looks best. "
            "Hold out more of them (holdout, or more rows in --validation), or label more."
        )
