"""How a number is written: a share in per cent or in points, a difference with its sign, an interval, a mean with its spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trainflat.reports.stats import Difference, summary

__all__ = ["MISSING", "Show", "bounds", "counted", "percent", "plus_minus", "points", "signed", "with_bounds"]

MISSING = "–"
Show = Callable[[float], str]


def percent(share: float) -> str:
    """A share as a reader says it, with a decimal only where it needs one.

    >>> percent(0.6), percent(0.4880)
    ('60 %', '48.8 %')
    """
    return f"{round(100 * share, 1):g} %"


def points(share: float, form: str = ".1f") -> str:
    """A metric in points."""
    shown = f"{100 * share:{form}}"
    return shown.lstrip("+-") if shown.strip("+-0.") == "" else shown.replace("-", "−")


def signed(share: float) -> str:
    """A difference in points with its sign, unless it rounds to nothing.

    >>> signed(0.179), signed(-0.0012), signed(-0.0001)
    ('+17.9', '−0.1', '0.0')
    """
    return points(share, "+.1f")


def bounds(d: Difference) -> str:
    """The interval in points; a dash where there is none. A bound close to 0 shows on which side it is.

    >>> bounds(Difference(0.01, 0.0003, 0.0197, 3, "paired"))
    '[0.03, 2.0]'
    """
    if d.low is None or d.high is None:
        return MISSING
    low, high = (points(b, ".1f" if b == 0 or abs(b) >= 0.0005 else ".1g") for b in (d.low, d.high))
    return f"[{low}, {high}]"


def with_bounds(d: Difference, without: str = "") -> str:
    """A difference and its interval, or what is said ``without`` one."""
    return f"{signed(d.mean)} {bounds(d) if d.low is not None else without}".rstrip()


def counted(d: Difference) -> str:
    """Of how many seeds a difference is, and whether they are no pairs."""
    return str(d.n) if d.method == "paired" else f"{d.n}, unpaired"


def plus_minus(values: Iterable[float], show: Show = points, show_sd: Show | None = None) -> str:
    """The mean, and the standard deviation where there is one, each as ``show`` writes it."""
    s = summary(values)
    return show(s.mean) if s.sd is None else f"{show(s.mean)} ± {(show_sd or show)(s.sd)}"
