"""What the rows say, in sentences: chosen by a rule that does not look at which arm is ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainflat.reports import family
from trainflat.reports.numbers import bounds, counted, percent, points, signed
from trainflat.reports.reach import LOSS
from trainflat.reports.rows import Results, Row, results
from trainflat.reports.stats import Difference, compare, means, summary
from trainflat.reports.tables import difference, pairs

__all__ = ["RULE", "Finding", "findings", "holds_up_to"]

AT = 0.6
RULE = (
    f"The findings show every curve at the sparsity nearest to {percent(AT)}, whatever came out there, and as the mean over "
    f"all of its sparsities above 0; “within {100 * LOSS:g} point” compares means and has no interval."
)


@dataclass(frozen=True)
class Finding:
    """One sentence about one task, in the parts from which a page can set it.

    Attributes:
        task: The task.
        where: At which point: "At 60 % one-shot sparsity".
        what: The values: "SAM keeps 77.8, Adam 59.9".
        difference: Second arm minus first, if two are compared.
    """

    task: str
    where: str
    what: str
    difference: Difference | None = None

    @property
    def interval(self) -> str:
        """The interval and n, in brackets."""
        d = self.difference
        if d is None:
            return ""
        if d.low is None:
            return f"no interval, n = {d.n}"
        return f"95 % CI {bounds(d).strip('[]').replace(', ', ' to ')}, n = {counted(d)}"

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.where.rstrip(',')}: {self.what}."
        d = self.difference
        return f"{self.where} {self.what}: {signed(d.mean)} points [{self.interval}], {d.verdict}."


def findings(rows: Iterable[Row] | Results, *, at: float = AT) -> list[Finding]:
    """Task by task: dense, each curve at the sparsity nearest to ``at`` and on average, every other variant.

    Two arms whose models are the same ones, as those of a search whose tickets differ in their retraining, are not compared.

    Args:
        at: The sparsity to tell about. Default: 0.6, which the paper's small tasks reach without loss (Na et al. 2022,
            table 1) and where our curves fall; fixed before any result.

    Example:
        >>> from trainflat.reports.example import rows
        >>> print(findings(rows())[1])
        At 60 % one-shot sparsity SAM keeps 89.7, Adam 63.1: +26.6 points [95 % CI 7.3 to 45.9, n = 3], better.
    """
    data = results(rows)
    if family.is_family(data):
        return [finding for task in data.tasks for finding in _of_family(data, task)]
    found = []
    for task in data.tasks:
        curves = data.curves(task)
        for variant in data.variants(task):
            sparsities = data.sparsities(task, variant)
            if variant in curves:
                found += _at(data, task, variant, min(sparsities, key=lambda s: (abs(s - at), s)))
                found += _average(data, task, variant) if len(sparsities) > 1 else []
            else:
                found += [finding for sparsity in sparsities for finding in _at(data, task, variant, sparsity)]
        found += _reaches(data, task)
    return found


def _at(data: Results, task: str, variant: str, sparsity: float) -> list[Finding]:
    curve = variant in data.curves(task)
    where = (
        f"At {percent(sparsity)} {data.family(variant)} sparsity" if curve else f"With {data.title(variant, sparsity)}"
    )
    where = "Dense," if variant == "dense" else where
    verb = "keeps" if variant != "dense" else "reaches"
    found = {arm: v for arm in data.arms if (v := data.values(task, arm, variant, sparsity))}
    compared = [
        Finding(task, where, _beside(a, b, verb, found[a], found[b]), d)
        for a, b in pairs(data.arms)
        if not data.shared(task, variant, sparsity, a, b) and (d := difference(data, task, variant, sparsity, a, b))
    ]
    return compared or [
        Finding(task, where, f"{_name(arm)} {points(summary(v.values()).mean)}") for arm, v in found.items()
    ]


def _beside(a: str, b: str, verb: str, first: Mapping[Any, float], second: Mapping[Any, float]) -> str:
    """What two arms reach, over the seeds that are compared: "SAM keeps 77.8, Adam 59.9"."""
    one, other = means(first, second)
    return f"{_name(b)} {verb} {points(other)}, {_name(a)} {points(one)}"


def _average(data: Results, task: str, variant: str) -> list[Finding]:
    """Both curves' means over the sparsities above 0 that both arms have, of the seeds that have them all: one number a seed."""
    found = []
    for a, b in pairs(data.arms):
        if all(data.shared(task, variant, s, a, b) for s in data.sparsities(task, variant) if s):
            continue
        by_arm = {
            arm: [data.values(task, arm, variant, s) for s in data.sparsities(task, variant) if s] for arm in (a, b)
        }
        both = [i for i, cells in enumerate(zip(*by_arm.values(), strict=True)) if all(cells)]
        if len(both) < 2:
            continue
        kept = {}
        for arm, cells in by_arm.items():
            seeds = set.intersection(*(set(cells[i]) for i in both))
            kept[arm] = {seed: summary(cells[i][seed] for i in both).mean for seed in sorted(seeds)}
        if all(kept.values()):
            where = f"On average over {len(both)} {data.family(variant)} sparsities"
            what = _beside(a, b, "keeps", kept[a], kept[b])
            found.append(Finding(task, where, what, compare(kept[a], kept[b])))
    return found


def _of_family(data: Results, task: str) -> list[Finding]:
    """What the second arm, the one that keeps most, and the best of the cheap ones keep, each against the first."""
    first, second = data.arms[:2]
    kept, cheap = family.kept(data, task), family.cheapest(data, task)
    if first not in kept:
        return []
    words = {
        second: "On average over all one-shot sparsities",
        next(iter(kept)): "Of all, on average over all one-shot sparsities",
    }
    if cheap is not None:
        words[cheap] = f"Of those of at most {family.CHEAP:g} passes, on average over all one-shot sparsities"
    told = []
    for arm, where in words.items():
        if arm in kept and arm != first:
            what = _beside(first, arm, "keeps", kept[first], kept[arm])
            told.append(Finding(task, where, what, compare(kept[first], kept[arm])))
    return told


def _name(arm: str) -> str:
    """An arm inside a sentence; in quotes if a comma of its own would part it."""
    return f"“{arm}”" if "," in arm else arm


def _reaches(data: Results, task: str) -> list[Finding]:
    parts = []
    for variant in data.curves(task):
        reached = {arm: far for arm in data.arms if (far := holds_up_to(data, task, arm, variant)) is not None}
        words = [
            f"{_name(arm)} up to {percent(far)}" if far else f"{_name(arm)} at no sparsity"
            for arm, far in reached.items()
        ]
        if words and len(data.sparsities(task, variant)) > 1:
            parts.append(f"{data.family(variant)}, {', '.join(words)}")
    return [Finding(task, f"Within {100 * LOSS:g} point of its own dense mean", "; ".join(parts))] if parts else []


def holds_up_to(data: Results, task: str, arm: str, variant: str) -> float | None:
    """The highest measured sparsity up to which an arm's mean stays within a point of its own dense mean; 0 if at none.

    None where the arm has no dense value or no curve. Means only: where they are close to the line, noise decides.

    Example:
        >>> from trainflat.reports.example import rows
        >>> [holds_up_to(results(rows()), "digits", arm, "pruned") for arm in ("SAM", "Adam")]
        [0.4, 0.3]
    """
    dense = data.values(task, arm, "dense", 0.0)
    measured = [(s, v) for s in data.sparsities(task, variant) if (v := data.values(task, arm, variant, s))]
    if not dense or not measured:
        return None
    least, far = summary(dense.values()).mean - LOSS, 0.0
    for sparsity, values in measured:
        if not summary(values.values()).mean >= least:
            break
        far = sparsity
    return far
