"""Numbers that change over a run: a schedule maps progress t in [0, 1] to a value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainflat.types import Schedule

__all__ = ["constant", "cosine", "cubic", "linear", "steps"]


def at(value: float | Schedule, t: float) -> float:
    """The value at progress t of a number or a schedule: every place that takes a number takes a schedule as well.

    Raises:
        TypeError: If it is neither, such as the function that makes a schedule.
    """
    number = value(t) if callable(value) else value
    if not hasattr(number, "__float__"):
        gave = f"{value!r}, which gives {number!r} at {t:g}" if callable(value) else repr(value)
        raise TypeError(
            f"a number is wanted here, or a schedule, a function from progress to one, such as train.linear(); got {gave}"
        )
    return number


def constant(value: float = 1.0) -> Schedule:
    """The same value throughout.

    >>> constant(0.5)(0.9)
    0.5
    """
    return lambda t: value


def linear(start: float = 1.0, end: float = 0.0, *, warmup: float = 0.0) -> Schedule:
    """A straight line from ``start`` to ``end``, after rising from 0 during the first ``warmup`` share of the run.

    ``t < warmup``: start * t / warmup; then start + (end - start) * (t - warmup) / (1 - warmup).
    The default (from 1 to 0, no warm-up) is what Na et al. 2022 and Chen et al. 2020 use for BERT.

    Raises:
        ValueError: If ``warmup`` is outside [0, 1).

    >>> line = linear(1.0, 0.0, warmup=0.2)
    >>> [round(line(t), 3) for t in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    _check_warmup(warmup)

    def schedule(t: float) -> float:
        if t < warmup:
            return start * t / warmup
        return start + (end - start) * (t - warmup) / (1 - warmup)

    return schedule


def cosine(start: float = 1.0, end: float = 0.0, *, warmup: float = 0.0) -> Schedule:
    """Half a cosine from ``start`` to ``end``. Loshchilov & Hutter 2017, eq. (5), without restarts, arXiv:1608.03983.

    >>> [round(cosine()(t), 3) for t in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    _check_warmup(warmup)

    def schedule(t: float) -> float:
        if t < warmup:
            return start * t / warmup
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))

    return schedule


def cubic(start: float = 0.0, end: float = 1.0) -> Schedule:
    """end + (start - end) * (1 - t)^3: gradual pruning, fast first. Zhu & Gupta 2017, eq. (1), arXiv:1710.01878.

    >>> [cubic(0.0, 0.8)(t) for t in (0.0, 0.5, 1.0)]
    [0.0, 0.7000000000000001, 0.8]
    """
    return lambda t: end + (start - end) * (1 - t) ** 3


def steps(values: Sequence[float], at: Sequence[float]) -> Schedule:
    """``values[i]`` from progress ``at[i-1]`` on: one more value than boundaries.

    Raises:
        ValueError: If the counts do not fit or the boundaries do not rise.

    >>> drop = steps([1.0, 0.1, 0.01], at=[0.5, 0.75])
    >>> [drop(t) for t in (0.0, 0.49, 0.5, 0.8)]
    [1.0, 1.0, 0.1, 0.01]
    """
    if len(values) != len(at) + 1:
        raise ValueError(f"{len(values)} values need {len(values) - 1} boundaries, got {len(at)}")
    if list(at) != sorted(set(at)):
        raise ValueError(f"the boundaries must rise, got {list(at)}")
    return lambda t: values[sum(t >= boundary for boundary in at)]


def _check_warmup(share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"warmup is a share of the run and must be in [0, 1), got {share}")
