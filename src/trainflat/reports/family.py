"""Rules side by side: what each costs, and how far its model can be pruned before a point is lost against plain training.

The first arm is the reference (plain training), the second the peer to beat (SAM). There is a table of two arms or more if there
are seeds enough for an interval; from nine arms on, a family, a report tells this instead of setting every arm against the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainflat.reports.numbers import MISSING, percent, plus_minus, points, signed, with_bounds
from trainflat.reports.reach import FEWEST, VARIANT, Reach, reach
from trainflat.reports.rows import Results
from trainflat.reports.stats import compare, summary
from trainflat.reports.tables import MANY, Table, against_dense, axis

__all__ = [
    "CHEAP",
    "cheapest",
    "is_family",
    "kept",
    "leading",
    "passes",
    "table",
    "tables",
]

CHEAP = 1.25
"""Passes a step, at most, of a rule that is called cheap: a quarter more than plain training."""

NOTE = (
    "Kept: the mean over all measured one-shot sparsities. Pruned by: the largest one-shot sparsity at which at most 1 point is "
    "lost, on the mean over seeds, against {first}’s dense models, between two measured sparsities on the straight line between "
    "them; 0 if the dense models themselves are further below; its intervals are bootstrap over seeds, too narrow for so few. "
    "Passes are forward-backward passes over a batch, beside {first}’s. The other differences are paired over seeds, their "
    "intervals Student’s t. All are at 95 %, none is corrected for multiplicity."
)
SOME = " Not all arms were measured at the same sparsities: kept is of those that all have."
NEARBY = 0.01
"""Between two sparsities that are taken for one: of one number asked for, models of different sizes come near, not there."""


def is_family(data: Results) -> bool:
    """Whether so many arms are compared, each pruned in one shot, that they are told as a family."""
    return len(data.arms) > MANY and any(data.sparsities(task, VARIANT) for task in data.tasks)


def kept(data: Results, task: str) -> dict[str, dict[Any, float]]:
    """By arm and seed, the metric's mean over all measured sparsities of the arm's curve: steadier than the place where it
    crosses a line. The arm that keeps most on average comes first.

    A sparsity counts if all arms with such a curve were measured there or nearby, a seed if it was at all that count.
    """
    found = {}
    for arm, shared in _shared(_curves(data, task)).items():
        curve = [data.values(task, arm, VARIANT, s) for s in shared]
        seeds = [seed for seed in curve[0] if all(seed in of for of in curve)] if curve else []
        if seeds:
            found[arm] = {seed: summary(of[seed] for of in curve).mean for seed in seeds}
    return dict(sorted(found.items(), key=lambda item: -summary(item[1].values()).mean))


def _curves(data: Results, task: str) -> dict[str, list[float]]:
    """By arm, the sparsities at which it was measured."""
    grid = data.sparsities(task, VARIANT)
    return {arm: [s for s in grid if data.values(task, arm, VARIANT, s)] for arm in data.arms}


def _shared(curves: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """By arm, those of its sparsities at which the others were measured, too, or nearby."""
    different = {tuple(curve) for curve in curves.values() if curve}
    nearby = lambda s, curve: any(abs(s - other) < NEARBY for other in curve)
    return {arm: [s for s in curve if all(nearby(s, other) for other in different)] for arm, curve in curves.items()}


def passes(data: Results, task: str, arm: str) -> float | None:
    """Forward-backward passes of the dense training, as a multiple of the first arm's; None where the rows do not say."""
    spent = [data.spent.get((task, one)) for one in (arm, data.arms[0])]
    return summary(spent[0]).mean / summary(spent[1]).mean if spent[0] and spent[1] else None


def leading(data: Results, task: str) -> list[str]:
    """The arms that a figure shows: all, or of a family the first two and those that keep most."""
    if not is_family(data):
        return data.arms
    best = [arm for arm in kept(data, task) if arm not in data.arms[:2]][: MANY - 2]
    return [*data.arms[:2], *(arm for arm in data.arms if arm in best)]


def tables(data: Results) -> list[Table]:
    """One for each task on which arms were pruned in one shot; of few arms only with the seeds that an interval takes."""
    tasks = [task for task in data.tasks if is_family(data) or _comparable(data, task)]
    found = [table(data, task) for task in tasks]
    return [one for one in found if one is not None]


def _comparable(data: Results, task: str) -> bool:
    keeps = kept(data, task)
    return len(keeps) > 1 and len(keeps.get(data.arms[0], ())) >= FEWEST


def table(data: Results, task: str) -> Table | None:
    """One row an arm, the one that keeps most on average over its curve first; None without a curve of the reference."""
    first, second = data.arms[0], data.arms[1] if len(data.arms) > 1 else data.arms[0]
    if reach(data, task, first) is None:
        return None
    keeps = kept(data, task)
    int8 = next((variant for variant in data.variants(task) if "int8" in variant), None)
    lines, counts = [], set()
    for arm in keeps:
        far = reach(data, task, arm)
        if far is None:
            continue
        counts.add(far.n)
        others = [one if one != arm else None for one in (first, second)]
        dense = data.values(task, arm, "dense", 0.0)
        times = passes(data, task, arm)
        line = [arm, MISSING if times is None else f"{times:.2f}", plus_minus(dense.values())]
        line += [_against(data.values(task, first, "dense", 0.0), dense) if arm != first else MISSING]
        line += [plus_minus(keeps[arm].values())]
        line += [_against(keeps.get(one, {}), keeps[arm]) if one else MISSING for one in others]
        line += [_share(far, percent(round(far.value, 3)))]
        line += [
            _share(d, signed(d.value)) if one and (d := reach(data, task, arm, beside=one)) else MISSING
            for one in others
        ]
        after = data.values(task, arm, int8, 0.0) if int8 else {}
        lines.append((*line, against_dense(dense, after)))
    if not lines:
        return None
    seeds = "–".join(map(str, sorted({min(counts), max(counts)})))
    against = (f"− {first}", f"− {second}")
    header = (axis(data), "passes", "dense", f"− {first}", "kept", *against, "pruned by", *against, "int8 − dense")
    title = f"Cost and compressibility; {data.metric(task)} in points and sparsities in %, n = {seeds} seeds"
    curves = _curves(data, task)
    return Table(title, header, tuple(lines), task, note=NOTE.format(first=first) + SOME * (_shared(curves) != curves))


def _share(far: Reach, said: str) -> str:
    return said if far.low is None or far.high is None else f"{said} [{points(far.low)}, {points(far.high)}]"


def _against(first: Mapping[Any, float], second: Mapping[Any, float]) -> str:
    return with_bounds(compare(first, second)) if first and second else MISSING


def cheapest(data: Results, task: str) -> str | None:
    """Of the arms of at most `CHEAP` passes, the reference aside, the one that keeps most; None if there is none."""
    cheap = (arm for arm in kept(data, task) if arm != data.arms[0] and (passes(data, task, arm) or CHEAP + 1) <= CHEAP)
    return next(cheap, None)
