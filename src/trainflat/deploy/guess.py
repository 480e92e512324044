"""Whether the figures can be believed: something was learned, on enough rows to tell, from whole texts, timed on a usual one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainflat.reports.front.offers import Offer, Setting

__all__ = ["beware"]

FEW = 100
"""Of fewer rows one is more than a point, which is what may be lost by default."""

MANY = 0.1
"""Of so many texts it matters that they are cut."""

FAR = 2.0
"""A text so many times longer or shorter than the middle one is not a usual one."""


def beware(task: Any, offers: Sequence[Offer], at: Setting | None = None) -> str:
    """Sentences if the best dense model does no better than a guess, if one row more or less decides, if many texts are cut,
    and if latency is that of an unusual one; empty if none of these.

    Of what was not learned nothing can be lost, so every smaller model looks as good; and so does one where chance does.

    Args:
        task: With ``labels`` (none for a regression) and ``held_out``, and ``lengths`` if it reads tokens; of one without the
            first two nothing is said.
        offers: With the metric's mean over seeds: accuracy, or a correlation.
        at: The setting at which they were timed.
    """
    best = max((offer.value.mean for offer in offers if offer.variant == "dense"), default=None)
    if best is None or not hasattr(task, "held_out"):
        return ""
    return " ".join(f"Beware: {said}" for said in (*_no_better(task, best), *_few(task), *_tokens(task, at)))


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
            "Hold out more of them (--set holdout=0.3 or up to 0.5, or more rows in --validation), or label more."
        )


def _tokens(task: Any, at: Setting | None) -> Iterator[str]:
    """Many texts are longer than what is read of them; a pass was timed on a text that is far from the middle one."""
    lengths = getattr(task, "lengths", None)
    if lengths is None:
        return
    share, middle = float((lengths >= task.max_length).mean()), round(float(np.median(lengths)))
    if share >= MANY:
        yield (
            f"{100 * share:.0f} % of the texts that were scored fill all {task.max_length} tokens that are read of one, and what "
            "follows is cut off. Read more of them (--max-length) if it matters."
        )
    batch, timed = at[:2] if at and at[1] else (0, 0)
    if batch == 1 and timed == lengths[0] and not middle / FAR <= timed <= middle * FAR:
        yield (
            f"latency is that of the first text, of {timed} tokens, and the middle one has {middle}. Measure at that "
            f"(--set length={middle}), or at what a budget is meant for."
        )
