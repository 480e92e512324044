"""How two models lie to each other: the barrier on the straight line between them, and how alike their features are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainflat.reports.numbers import MISSING, plus_minus
from trainflat.reports.rows import Results
from trainflat.reports.stats import compare, summary
from trainflat.reports.tables import Table, axis, pairs

__all__ = ["table"]

MEASURES = ("barrier", "cka")
NOTE = (
    "Barrier: how far the held-out loss on the straight line between two models rises above the line between their losses, at "
    "most (Frankle et al. 2020). CKA: 1 for features that are alike but for a rotation and a scale (Kornblith et al. 2019). "
    "Differences are paired over seeds, with 95 % intervals, not corrected for multiplicity."
)


def table(data: Results) -> Table | None:
    """A row for each task, pair of models (its stage) and arm; and for the mean over all pairs that every arm has, with the
    differences of arms.

    Example:
        >>> from trainflat.reports import results
        >>> row = {"task": "rte", "variant": "ticket", "sparsity": 0.2, "stage": "10-to-20"}
        >>> rows = [
        ...     {**row, "seed": s, "arm": {"rule": rule}, "geometry": {"barrier": b + s / 100, "cka": 0.9}}
        ...     for s in range(3)
        ...     for rule, b in (("Adam", 0.2), ("SAM", 0.1))
        ... ]
        >>> [line[2:4] for line in table(results(rows)).rows]
        [('Adam', '0.210 ± 0.010'), ('SAM', '0.110 ± 0.010')]
        >>> rows += [{**row, "stage": "20-to-30"} for row in rows]
        >>> table(results(rows)).rows[-1][1:4]
        ('mean', 'SAM − Adam', '−0.100 [−0.100, −0.100]')
    """
    lines: list[tuple[str, ...]] = []
    for task in data.tasks:
        found = _found(data, task)
        stages = list(dict.fromkeys(stage for stage, _ in found))
        arms = [arm for arm in data.arms if any((stage, arm) in found for stage in stages)]
        for stage in stages:
            lines += [
                (task, stage, arm, *map(_spread, found[stage, arm].values())) for arm in arms if (stage, arm) in found
            ]
        shared = [stage for stage in stages if all((stage, arm) in found for arm in arms)]
        if len(shared) > 1:
            means = {arm: _means([found[stage, arm] for stage in shared]) for arm in arms}
            lines += [(task, "mean", arm, *map(_spread, of.values())) for arm, of in means.items()]
            for one, other in pairs(arms):
                differences = (_difference(means[one][name], means[other][name]) for name in MEASURES)
                lines.append((task, "mean", f"{other} − {one}", *differences))
    if not lines:
        return None
    header = ("task", "between", axis(data), "barrier", "CKA")
    return Table("Between two models; mean ± s.d. over seeds", header, tuple(lines), names=3, note=NOTE)


def _found(data: Results, task: str) -> dict[tuple[str, str], dict[str, dict[Any, float]]]:
    """By stage and arm, every measure's values by seed."""
    found: dict[tuple[str, str], dict[str, dict[Any, float]]] = {}
    for row in data.rows:
        if data.task(row) == task and "barrier" in row.get("geometry", {}):
            of = found.setdefault((row["stage"], data.arm(row)), {name: {} for name in MEASURES})
            for name in MEASURES:
                if (value := row["geometry"].get(name)) is not None:
                    of[name][row["seed"]] = float(value)
    return found


def _means(of: list[dict[str, dict[Any, float]]]) -> dict[str, dict[Any, float]]:
    """By seed the mean over these pairs of models; of the seeds that have all."""
    means = {}
    for name in MEASURES:
        seeds = [seed for seed in of[0][name] if all(seed in one[name] for one in of)]
        means[name] = {seed: summary([one[name][seed] for one in of]).mean for seed in seeds}
    return means


def _spread(values: Mapping[Any, float]) -> str:
    return plus_minus(values.values(), "{:.3f}".format) if values else MISSING


def _difference(one: Mapping[Any, float], other: Mapping[Any, float]) -> str:
    if not one or not other:
        return MISSING
    d = compare(one, other)
    said = f"{d.mean:+.3f}" + ("" if d.low is None or d.high is None else f" [{d.low:.3f}, {d.high:.3f}]")
    return said.replace("-", "−")
