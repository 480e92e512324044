"""Means with their spread, and differences with a confidence interval: paired where seeds are shared.

A paired difference removes what both arms owe to the seed (initial weights, data order), which is most of the noise here.
With few seeds an interval is wide, and must be: Student's t at 95 % is 12.7 for two seeds, 4.30 for three, 2.78 for five
(against 1.96 for many). Each interval stands for itself: nothing here is corrected for multiplicity, and of twenty
differences that are all zero one is expected to look like a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

__all__ = ["Difference", "Summary", "between", "combination", "compare", "means", "paired", "summary", "welch"]


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one measured point over seeds; no spread for a single value."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """By how much one arm is above another, with the interval that holds the true difference at the stated confidence.

    Attributes:
        mean: The difference of the means.
        low: Lower bound, or None where there is no interval.
        high: Upper bound, or None.
        n: Pairs, or for "unpaired" the smaller of the two counts.
        method: "paired" or "unpaired".
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if the interval excludes 0, else "cannot tell"."""
        if self.low is not None and self.low > 0:
            return "better"
        if self.high is not None and self.high < 0:
            return "worse"
        return "cannot tell"


def summary(values: Iterable[float]) -> Summary:
    """Mean, standard deviation with n - 1 in its denominator (the sample's, ``ddof=1``), and n.

    Raises:
        ValueError: If there are no values.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        Summary(n=3, mean=2.0, sd=1.0)
        >>> summary([0.5])
        Summary(n=1, mean=0.5, sd=None)
    """
    x = np.asarray(list(values), dtype=float)
    if not len(x):
        raise ValueError("no values to summarise; a point needs at least one seed")
    return Summary(len(x), float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else None)


def paired(first: Mapping[Any, float], second: Mapping[Any, float], *, confidence: float = 0.95) -> Difference:
    """Second minus first over the seeds that both have: d_bar ± t * s_d / sqrt(n), t of n - 1 degrees of freedom.

    Student 1908, "The probable error of a mean", Biometrika 6(1). The differences are taken as normal; n is too small to
    check that. One pair gives no interval; differences that are all equal give one of width zero.

    Args:
        first: The reference's values by seed.
        second: The other arm's.
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ValueError: If no seed is shared.

    Example:
        >>> paired({0: 0.0, 1: 0.0, 2: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})   # mean 2, s.d. 1, t = 4.303
        Difference(mean=2.0, low=-0.484..., high=4.484..., n=3, method='paired')
    """
    shared = [seed for seed in first if seed in second]
    if not shared:
        raise ValueError(f"no seed is shared: {sorted(first)} and {sorted(second)}; use `welch` for independent runs")
    d = np.array([second[seed] - first[seed] for seed in shared])
    if len(d) == 1:
        return Difference(float(d[0]), None, None, 1, "paired")
    return _interval(
        float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1, len(d), "paired", confidence
    )


def welch(first: Iterable[float], second: Iterable[float], *, confidence: float = 0.95) -> Difference:
    """Second minus first of independent runs: the means' difference ± t * sqrt(v1/n1 + v2/n2).

    Welch 1947, "The generalization of Student's problem", Biometrika 34(1-2): the variances v need not be equal;
    degrees of freedom (v1/n1 + v2/n2)^2 / ((v1/n1)^2/(n1 - 1) + (v2/n2)^2/(n2 - 1)). No interval if either has one value.

    Raises:
        ValueError: If either is empty.

    Example:
        >>> welch([0.0, 2.0], [3.0, 5.0])                # v = 2 and 2: standard error sqrt(2), 2 degrees of freedom
        Difference(mean=3.0, low=-3.08..., high=9.08..., n=2, method='unpaired')
    """
    return between(summary(first), summary(second), confidence=confidence)


def between(first: Summary, second: Summary, *, confidence: float = 0.95) -> Difference:
    """`welch` of two independent samples of which only mean, s.d. and n are known, as a paper prints them.

    No interval if either has no s.d. (or n, which a caller that does not know it gives as 0).

    Example:
        >>> between(Summary(2, 1.0, 2**0.5), Summary(2, 4.0, 2**0.5))        # the same numbers as in `welch`
        Difference(mean=3.0, low=-3.08..., high=9.08..., n=2, method='unpaired')
        >>> between(Summary(3, 1.0, 0.5), Summary(1, 4.0, None)).low is None
        True
    """
    return combination([(-1.0, first), (1.0, second)], confidence=confidence)


def combination(terms: Sequence[tuple[float, Summary]], *, confidence: float = 0.95) -> Difference:
    """A weighted sum of independent means: sum w m ± t * sqrt(sum w^2 v / n), as a mean of several differences is.

    Degrees of freedom (sum u)^2 / sum(u^2 / (n - 1)), u = w^2 v / n: Satterthwaite 1946, "An approximate distribution of
    estimates of variance components", Biometrics Bulletin 2(6); Welch's are its case of two. No interval if any term has no
    s.d. or fewer than two values.

    Example:
        >>> combination([(0.5, Summary(3, 1.0, 0.1)), (0.5, Summary(3, 2.0, 0.1))]).mean
        1.5
    """
    mean, n = sum(weight * s.mean for weight, s in terms), min(s.n for _, s in terms)
    parts = [(weight**2 * s.sd**2 / s.n, s.n) for weight, s in terms if s.sd is not None and s.n > 1]
    if len(parts) < len(terms):
        return Difference(mean, None, None, n, "unpaired")
    whole, below = sum(u for u, _ in parts), sum(u**2 / (n - 1) for u, n in parts)
    freedom = whole**2 / below if below else float(n - 1)
    return _interval(mean, math.sqrt(whole), freedom, n, "unpaired", confidence)


def compare(first: Mapping[Any, float], second: Mapping[Any, float], *, confidence: float = 0.95) -> Difference:
    """`paired` if two seeds or more are shared, or all there are; else `welch`. The answer's ``method`` says which.

    Raises:
        ValueError: If either is empty.

    Example:
        >>> compare({0: 0.5}, {0: 0.75}).method, compare({0: 0.5, 1: 0.5}, {2: 0.7, 3: 0.8}).method
        ('paired', 'unpaired')
    """
    if _paired(first, second):
        return paired(first, second, confidence=confidence)
    return welch(first.values(), second.values(), confidence=confidence)


def means(first: Mapping[Any, float], second: Mapping[Any, float]) -> tuple[float, float]:
    """The two means between which `compare` finds its difference: over the shared seeds where it pairs them, else over all.

    Example:
        >>> means({0: 0.25, 1: 0.5, 2: 0.99}, {0: 0.5, 1: 0.75})
        (0.375, 0.625)
    """
    shared = first.keys() & second.keys() if _paired(first, second) else first.keys() | second.keys()
    one, other = (summary(of[seed] for seed in of if seed in shared).mean for of in (first, second))
    return one, other


def _paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> bool:
    shared = first.keys() & second.keys()
    return len(shared) >= 2 or bool(shared and min(len(first), len(second)) == 1)


def _interval(mean: float, error: float, freedom: float, n: int, method: str, confidence: float) -> Difference:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    return Difference(mean, mean - half, mean + half, n, method)
