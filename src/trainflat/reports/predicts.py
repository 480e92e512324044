"""How well each measure of the dense model predicts what survives its compression: is it flatness at all?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from trainflat.reports.numbers import MISSING
from trainflat.reports.reach import compressibility
from trainflat.reports.rows import Results, without_stage
from trainflat.reports.tables import ALONE, Table

__all__ = ["LEAST", "Correlation", "Survives", "change", "correlation", "predicts", "tables"]

Point = tuple[str, Any]  # arm, seed
Survives = Callable[[Results, str, str], Mapping[Any, float]]
"""``(results, task, arm) -> {seed: number}``: what survives compression, higher is better; empty where it is not known."""

ASIDE = ("residual", "trace_error", "features", "barrier at")  # numbers about a measure, or that no training changes
RESAMPLES, SEED, CONFIDENCE = 2000, 0, 0.95
LEAST = 5  # arms for an interval
WHAT = "the mean over one-shot sparsities minus the dense value"


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with its interval, and from how many arms, seeds and points it is; None where there is none."""

    rho: float | None
    low: float | None
    high: float | None
    arms: int
    seeds: int
    n: int


def change(data: Results, task: str, arm: str) -> dict[Any, float]:
    """One-shot pruning's mean value over all its sparsities minus the dense value, by seed: 0 if all survives, below 0 if not.

    A seed counts if it was measured at every one of the sparsities, so that all means are over the same. Empty if several
    stages left dense models, since which of them was pruned the rows do not say.
    """
    points = [(*point, without_stage(point[0])) for point in data.points(task)]
    dense = [data.values(task, arm, variant, sparsity) for variant, sparsity, way in points if way == "dense"]
    pruned = [data.values(task, arm, variant, sparsity) for variant, sparsity, way in points if way == "pruned"]
    if len(dense) != 1 or not pruned:
        return {}
    seeds = [seed for seed in dense[0] if all(seed in of for of in pruned)]
    return {seed: float(np.mean([of[seed] for of in pruned])) - dense[0][seed] for seed in seeds}


def predicts(data: Results, survives: Survives = change, what: str = WHAT) -> Table | None:
    """Spearman's rho between each measure of the dense model and what survives, task by task, over arms and seeds.

    The measures are the numbers under ``sharpness`` and ``geometry`` of the rows of dense models. Among them is the dense model's
    held-out loss, as a yardstick that needs no geometry.

    Args:
        rows: Of one study with several arms.
        survives: What survives of an arm, by seed. Default: `change`.
        what: What the table calls this.

    Returns:
        None if no dense model was measured, or nothing survives of those that were.

    Example:
        >>> from trainflat.reports import results
        >>> rows = [
        ...     {"task": "rte", "seed": 0, "arm": {"optimizer": f"SAM {i}"}, **row}
        ...     for i in range(5)
        ...     for row in (
        ...         {"variant": "dense", "value": 0.9, "stage": "train", "kind": "Finetune"},
        ...         {"variant": "pruned", "sparsity": 0.5, "value": 0.5 + 0.1 * i},
        ...         {"variant": "dense", "stage": "flat", "kind": "Sharpness", "sharpness": {"ascent": 1 / (1 + i)}},
        ...     )
        ... ]
        >>> predicts(results(rows)).rows
        (('rte', 'ascent', '−1.00', '[−1.00, −1.00]', '5', '1', '5', 'less'),)
    """
    found = _measures(data)
    lines = []
    for task in data.tasks:
        target = {(arm, seed): float(v) for arm in data.arms for seed, v in survives(data, task, arm).items()}
        for name, of in found.get(task, {}).items():
            c = correlation(of, target)
            if c.n:
                rho, low, high = map(_signed, (c.rho, c.low, c.high))
                interval = MISSING if c.low is None else f"[{low}, {high}]"
                lines.append((task, name, rho, interval, *map(str, (c.arms, c.seeds, c.n)), _verdict(c)))
    if not lines:
        return None
    header = (
        "task",
        "measure",
        "rho",
        f"{CONFIDENCE:.0%} interval".replace("%", " %"),
        "arms",
        "seeds",
        "n",
        "more of it, … kept",
    )
    title = f"What predicts what survives; Spearman’s rho of each measure of the dense model with {what}"
    return Table(title, header, tuple(lines), names=2, note=f"{_note()} {ALONE}")


def tables(data: Results) -> list[Table]:
    """`predicts` for what pruning takes and for how far it can go; none where the arms are too few for an interval."""
    if len(data.arms) < LEAST:
        return []
    found = [predicts(data), predicts(data, compressibility, "the one-shot sparsity at which a point is lost")]
    return [table for table in found if table is not None]


def correlation(
    x: Mapping[Point, float],
    y: Mapping[Point, float],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Correlation:
    """Spearman's rho over the points (arm, seed) that both have, with a bootstrap interval over arms *and* seeds.

    Spearman 1904, ranks of ties averaged (SciPy's). Points of one arm, or of one seed, are not independent, so both are drawn
    with replacement, arms and seeds apart, and a point counts as often as its arm times as often as its seed: the pigeonhole
    bootstrap, Owen 2007, Annals of Applied Statistics 1(2), arXiv:0712.1111. The interval is between percentiles of the
    resamples; those in which one of the two is the same everywhere have no rho and are left out. It is an approximation:
    of a perfect order every resample is one as well; and of 600 drawn studies without any relation (5 to 20 arms, effects of
    arm and seed) it excluded 0 in 2 to 4 % with three seeds and in 3 to 6 % with one, but in 12 % with five arms and one seed.

    Args:
        x, y: A number for each (arm, seed).
        resamples: Draws of arms and seeds. Default: 2000.
        seed: Of the draws.
        confidence: Of the two-sided interval, in (0, 1).

    Returns:
        No rho for fewer than three points or where one of both is the same everywhere; no interval for fewer than five arms:
        of four, chance alone puts one study in twelve into a perfect order.

    Example:
        >>> points = [(f"rule {i}", 0) for i in range(5)]
        >>> c = correlation(dict(zip(points, [1, 2, 3, 4, 5])), dict(zip(points, [1, 4, 9, 16, 15])))
        >>> round(c.rho, 2), c.low < c.rho < c.high, c.arms, c.n                        # 1 - 6 (1 + 1) / (5 * 24)
        (0.9, True, 5, 5)
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence must be in (0, 1) and resamples at least 1, got {confidence} and {resamples}")
    points = [point for point in x if point in y and np.isfinite(x[point]) and np.isfinite(y[point])]
    arms, seeds = (
        {name: i for i, name in enumerate(dict.fromkeys(names))}
        for names in ([arm for arm, _ in points], [one for _, one in points])
    )
    size = len(arms), len(seeds), len(points)
    a, b = np.array([x[point] for point in points], float), np.array([y[point] for point in points], float)
    if len(points) < 3 or not np.ptp(a) or not np.ptp(b):
        return Correlation(None, None, None, *size)
    from scipy.stats import spearmanr  # a second of import that other reports do without

    rho = float(spearmanr(a, b).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    if len(arms) < LEAST:
        return Correlation(rho, None, None, *size)
    draw = np.random.default_rng(seed)
    times = [draw.multinomial(len(names), [1 / len(names)] * len(names), size=resamples) for names in (arms, seeds)]
    weights = times[0][:, [arms[arm] for arm, _ in points]] * times[1][:, [seeds[one] for _, one in points]]
    drawn = _weighted(a, b, weights.astype(float))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Correlation(rho, float(low), float(high), *size)


def _weighted(
    a: Float[np.ndarray, " points"], b: Float[np.ndarray, " points"], weights: Float[np.ndarray, "resamples points"]
) -> Float[np.ndarray, " resamples"]:
    """Spearman's rho of samples that hold each point so many times; nan where a sample has no spread.

    A point's rank is the weight below it and half of that beside it; then Pearson's correlation of the ranks.
    """
    total = weights.sum(1, keepdims=True)
    ranks = []
    for values in (a, b):
        below, beside = values[:, None] > values, values[:, None] == values
        rank = weights @ below.T + (weights @ beside.T + 1) / 2
        ranks.append(rank - (weights * rank).sum(1, keepdims=True) / np.maximum(total, 1))
    spreads = [(weights * rank**2).sum(1) for rank in ranks]
    whole = np.sqrt(spreads[0] * spreads[1])
    some = np.minimum(*spreads) > 1e-9  # ranks are halves: less is rounding
    return np.where(some, (weights * ranks[0] * ranks[1]).sum(1) / np.where(some, whole, 1), np.nan)


def _measures(data: Results) -> dict[str, dict[str, dict[Point, float]]]:
    """Task by task each measure of the dense models by arm and seed; where stages differ in one, each with its stage."""
    taken: dict[tuple[str, str], dict[str, dict[Point, float]]] = {}
    for row in data.rows:
        if row["variant"] == "dense":
            for name, value in {**row.get("sharpness", {}), **row.get("geometry", {})}.items():
                if name not in ASIDE and isinstance(value, (int, float)):
                    of = taken.setdefault((data.task(row), name), {}).setdefault(str(row.get("stage")), {})
                    of.setdefault((data.arm(row), row["seed"]), float(value))
    found: dict[str, dict[str, dict[Point, float]]] = {}
    for (task, name), stages in taken.items():
        first, *rest = stages.values()
        same = all(of == first for of in rest)
        named = {name: first} if same else {f"{name} / {stage}": of for stage, of in stages.items()}
        found.setdefault(task, {}).update(named)
    return found


def _note() -> str:
    return (
        "Below 0: the more of the measure, the less is kept, as flatness would have it of every measure of sharpness; "
        f"the interval is between percentiles of {RESAMPLES} resamples of arms and of seeds (pigeonhole bootstrap, seed {SEED}), "
        "and the arms are those of this study, not all rules there could be."
    )


def _verdict(c: Correlation) -> str:
    if c.low is None or c.high is None or c.low <= 0 <= c.high:
        return "cannot tell"
    return "more" if c.low > 0 else "less"


def _signed(value: float | None) -> str:
    if value is None:
        return MISSING
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")
