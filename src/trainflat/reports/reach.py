"""How far a model can be pruned before a point is lost against plain training: the place where a curve crosses a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from trainflat.reports.rows import Results

__all__ = ["FEWEST", "LOSS", "VARIANT", "Reach", "compressibility", "reach"]

LOSS = 0.01
"""What may be lost: a point."""

VARIANT = "pruned"
"""The curve: one-shot pruning, which every arm can have."""

RESAMPLES, SEED, CONFIDENCE = 2000, 0, 0.95
FEWEST = 3
"""Seeds that an interval takes."""

Array = np.ndarray


@dataclass(frozen=True)
class Reach:
    """A sparsity, or the difference of two, with its interval; no interval from fewer than three seeds."""

    value: float
    low: float | None
    high: float | None
    n: int


def reach(data: Results, task: str, arm: str, *, beside: str | None = None) -> Reach | None:
    """One number an arm: the largest sparsity s at which the mean over seeds of value(s) >= that of the dense reference - `LOSS`.

    The mean curve begins at the arm's own dense models, s = 0, runs straight between measured sparsities, and ends where it
    first falls below; one that never does ends at the last sparsity. The interval is between percentiles of 2000 draws of as
    many seeds with replacement, all arms drawn alike (Efron 1979). It stays between 0 and the last sparsity, where Student's t
    does not, for seeds that cross the line early and late; of three to five seeds it is too narrow rather than too wide.

    Args:
        task: One of `Results.tasks`.
        arm: One of `Results.arms`; the first of them is the reference.
        beside: Another arm, whose number is taken off. Default: none.

    Returns:
        None without a dense reference or a curve. A seed counts if it has the reference and the whole curve.

    Example:
        >>> from trainflat.reports import results
        >>> point = {"task": "rte", "metric": "accuracy", "arm": {"rule": "Adam"}}
        >>> made = [("dense", 0.0, 0.80), ("pruned", 0.4, 0.80), ("pruned", 0.6, 0.78)]
        >>> rows = [
        ...     {**point, "seed": seed, "variant": v, "sparsity": s, "value": y + seed / 100}
        ...     for seed in range(3)
        ...     for v, s, y in made
        ... ]
        >>> found = reach(results(rows), "rte", "Adam")  # all seeds alike: halfway from 0.80 at 40 % to 0.78 at 60 %
        >>> round(found.value, 6), round(found.low, 6), round(found.high, 6), found.n
        (0.5, 0.5, 0.5, 3)
    """
    reference = data.values(task, data.arms[0], "dense", 0.0)
    curves = [_curves(data, task, one) for one in (arm, *([] if beside is None else [beside]))]
    seeds = [seed for seed in reference if all(seed in of for _, of in curves)]
    if not seeds:
        return None
    least = np.array([reference[seed] - LOSS for seed in seeds])
    picked = np.random.default_rng(SEED).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    picked = np.vstack([np.arange(len(seeds)), picked])  # the first is what was measured
    one, *other = [
        _reach(np.array([of[seed] for seed in seeds])[picked].mean(1), at, least[picked].mean(1)) for at, of in curves
    ]
    found = one - other[0] if other else one
    if len(seeds) < FEWEST:
        return Reach(float(found[0]), None, None, len(seeds))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found[1:], [tail, 100 - tail])
    return Reach(float(found[0]), float(low), float(high), len(seeds))


def compressibility(data: Results, task: str, arm: str) -> dict[Any, float]:
    """The same by seed, each against the dense reference of its own; empty without a reference or a curve.

    Far noisier than `reach`: a curve on a plateau crosses the line at either of its ends. For relations over arms and seeds.

    Example:
        >>> from trainflat.reports import results
        >>> point = {"task": "rte", "seed": 0, "metric": "accuracy", "arm": {"rule": "Adam"}}
        >>> made = [("dense", 0.0, 0.80), ("pruned", 0.4, 0.80), ("pruned", 0.6, 0.78)]
        >>> rows = [{**point, "variant": v, "sparsity": s, "value": y} for v, s, y in made]
        >>> round(compressibility(results(rows), "rte", "Adam")[0], 6)
        0.5
    """
    reference = data.values(task, data.arms[0], "dense", 0.0)
    at, curves = _curves(data, task, arm)
    seeds = [seed for seed in curves if seed in reference]
    found = [_reach(np.array(curves[seed]), at, np.array(reference[seed] - LOSS)) for seed in seeds]
    return dict(zip(seeds, map(float, found), strict=True))


def _curves(data: Results, task: str, arm: str) -> tuple[Array, Mapping[Any, list[float]]]:
    """The sparsities, 0 first, and by seed the values there, of the seeds that were measured at all of them."""
    measured = {s: v for s in data.sparsities(task, VARIANT) if (v := data.values(task, arm, VARIANT, s))}
    dense = data.values(task, arm, "dense", 0.0)
    if not measured:
        return np.zeros(1), {}
    whole = [seed for seed in dense if all(seed in of for of in measured.values())]
    return np.array([0.0, *measured]), {seed: [dense[seed], *(of[seed] for of in measured.values())] for seed in whole}


def _reach(
    curves: Float[Array, "*_ points"], at: Float[Array, " points"], least: Float[Array, "*_"]
) -> Float[Array, "*_"]:
    """
    >>> _reach(np.array([[0.97, 0.96, 0.90], [0.95, 0.99, 0.99]]), np.array([0.0, 0.5, 0.6]), np.array([0.96, 0.96]))
    array([0.5, 0. ])
    """
    below = curves < least[..., None] - 1e-12  # a point less a point is a point
    after = np.maximum(below.argmax(-1), 1)
    s = [at[i] for i in (after - 1, after)]
    y = [np.take_along_axis(curves, i[..., None], -1)[..., 0] for i in (after - 1, after)]
    falls = below.any(-1) & ~below[..., 0]  # from above the line to below it
    crossing = s[0] + (s[1] - s[0]) * (y[0] - least) / np.where(falls, y[0] - y[1], 1.0)
    return np.where(falls, crossing, np.where(below[..., 0], 0.0, at[-1]))
