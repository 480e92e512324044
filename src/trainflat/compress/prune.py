"""From scores to masks: exact counts, ties included, and never a weight revived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainflat.compress.masks import Mask

__all__ = ["prune", "rounds"]


def prune(
    scores: Mapping[str, Tensor], sparsity: float, within: Mask, *, scope: Literal["global", "tensor"] = "global"
) -> Mask:
    """Kill the worst-scored weights until exactly ``round(sparsity * n)`` of the mask's n weights are dead.

    The threshold is found by selection, O(n), and only the alive scores are looked at. Equal scores at the threshold are
    killed in the order of the mask's tensors, then row by row, until the count is met.

    Args:
        scores: A tensor of the parameter's shape for every name in the mask; higher means keep. More names do no harm.
        sparsity: Share of the mask's weights that is dead afterwards, in [0, 1).
        within: What may live; a weight that is dead there stays dead.
        scope: ``"global"`` ranks all weights together (Chen et al. 2020); ``"tensor"`` prunes each to the same sparsity.

    Raises:
        ValueError: If the sparsity is outside [0, 1) or below that of ``within``, or a score is missing, misshapen or NaN.

    Example:
        >>> mask = Mask({"w": torch.ones(4, dtype=torch.bool)})
        >>> prune({"w": torch.tensor([1.0, 1.0, 1.0, 2.0])}, 0.5, within=mask)["w"]
        tensor([False, False,  True,  True])
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share that is pruned and must be in [0, 1), got {sparsity}")
    if scope == "tensor":
        return Mask({name: prune(scores, sparsity, Mask({name: alive}))[name] for name, alive in within.items()})
    if scope != "global":
        raise ValueError(f"scope must be 'global' or 'tensor', got {scope!r}")
    names = list(within)
    ranked = [_alive_scores(name, scores, within[name]) for name in names]
    survivors = sum(len(values) for values in ranked)
    kill = round(sparsity * within.size) - (within.size - survivors)
    if kill < 0:
        raise ValueError(f"sparsity {sparsity:.1%} is below the mask's {within.sparsity:.1%}; prune never revives")
    if kill == 0:
        return within
    pool = np.concatenate(ranked)
    pool.partition(kill - 1)
    threshold = pool[kill - 1]
    ties = kill - int(np.count_nonzero(pool[:kill] < threshold))  # how many at the threshold itself have to go
    del pool
    pruned = {}
    for name, values in zip(names, ranked, strict=True):
        keep = values > threshold
        equal = np.flatnonzero(values == threshold)
        keep[equal[ties:]] = True
        ties = max(0, ties - len(equal))
        pruned[name] = _place(keep, within[name])
    return Mask(pruned)


def rounds(sparsity: float, n: int) -> list[float]:
    """The sparsity after each of ``n`` equal steps, absolute as in Na et al. 2022: 10 % of all weights a round.

    Raises:
        ValueError: If ``n`` is below 1 or the sparsity outside [0, 1).

    Example:
        >>> rounds(0.6, 3)
        [0.2, 0.4, 0.6]
    """
    if n < 1:
        raise ValueError(f"there must be at least one round, got {n}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share that is pruned and must be in [0, 1), got {sparsity}")
    return [round(sparsity * (i + 1) / n, 12) for i in range(n)]


def _alive_scores(name: str, scores: Mapping[str, Tensor], alive: Tensor) -> np.ndarray:
    """The scores of the living, flat, on the CPU (a view where all live: nothing is copied in the first round)."""
    if name not in scores:
        raise ValueError(f"there is no score for {name!r}, which the mask covers")
    score = scores[name]
    if score.shape != alive.shape:
        raise ValueError(f"the score of {name!r} has shape {tuple(score.shape)}, the mask {tuple(alive.shape)}")
    if not bool(torch.isfinite(score).all()) and bool(torch.isnan(score).any()):
        raise ValueError(f"the score of {name!r} holds NaN; such weights cannot be ranked")
    score = score.detach() if score.dtype == torch.float64 else score.detach().float()  # numpy knows no bfloat16
    flat = score.cpu().reshape(-1).numpy()
    return flat if bool(alive.all()) else flat[alive.cpu().reshape(-1).numpy()]


def _place(keep: np.ndarray, alive: Tensor) -> Tensor:
    """The decisions about the living, put where they live."""
    placed = alive.cpu().clone().reshape(-1)
    placed.numpy()[placed.numpy()] = keep
    return placed.view(alive.shape).to(alive.device)
