"""From scores to masks: exact counts, ties included, and never a weight revived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Real, Shaped
from torch import Tensor

from trainflat.compress.masks import Mask

__all__ = ["prune", "rounds"]

SAMPLE = 1 << 20  # scores looked at to bracket the threshold
_RANKED = (torch.float64, torch.int64, torch.int32)  # as they are: float32 would make ties of some


def prune(
    scores: Mapping[str, Real[Tensor, " ..."]],
    sparsity: float,
    within: Mask,
    *,
    scope: Literal["global", "tensor"] = "global",
) -> Mask:
    """Kill the worst-scored weights until exactly ``round(sparsity * n)`` of the mask's n weights are dead.

    The threshold is found by selection, O(n), and only the alive scores count. Equal scores at the threshold are killed
    in the order of the mask's tensors, then row by row, until the count is met.

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
    ranked = {name: (_scores(name, scores, alive), _flat(alive)) for name, alive in within.items()}
    kill = round(sparsity * within.size) - (within.size - within.alive)
    if kill < 0:
        at = f", here in {next(iter(within))!r}" if len(within) == 1 else ""  # one of many, with scope="tensor"
        raise ValueError(f"sparsity {sparsity:.1%} is below the mask's {within.sparsity:.1%}; prune never revives{at}")
    if kill == 0:
        return within
    threshold, ties = _threshold(list(ranked.values()), kill)
    pruned = {}
    for name, (values, alive) in ranked.items():
        keep = (values >= threshold) & alive
        if ties:  # so many at the threshold itself have to go
            equal = np.flatnonzero((values == threshold) & alive)[:ties]
            keep[equal] = False
            ties -= len(equal)
        pruned[name] = torch.from_numpy(keep).view(within[name].shape).to(within[name].device)
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


def _scores(name: str, scores: Mapping[str, Tensor], alive: Bool[Tensor, " ..."]) -> Real[np.ndarray, " weights"]:
    """The scores of one tensor, flat, on the CPU: a view, unless of a type that numpy lacks or float32 holds as well."""
    if name not in scores:
        raise ValueError(f"there is no score for {name!r}, which the mask covers")
    score = scores[name]
    if score.shape != alive.shape:
        raise ValueError(f"the score of {name!r} has shape {tuple(score.shape)}, the mask {tuple(alive.shape)}")
    if score.numel() and bool(score.max().isnan()):  # torch's maximum of anything with a NaN is NaN
        raise ValueError(f"the score of {name!r} holds NaN; such weights cannot be ranked")
    return _flat(score if score.dtype in _RANKED else score.float())


def _flat(tensor: Shaped[Tensor, " ..."]) -> Shaped[np.ndarray, " weights"]:
    return tensor.detach().cpu().reshape(-1).numpy()


def _threshold(ranked: list[tuple[np.ndarray, np.ndarray]], rank: int) -> tuple[float, int]:
    """The ``rank``-th smallest of the living scores, and how many scores equal to it are among the ``rank`` smallest.

    Exact and O(n), without a copy of the scores: a sample brackets the answer, one pass counts what lies below the
    bracket and collects what lies within, and selection runs on these few. Should the answer lie outside after all, the
    bracket is opened to everything. (The idea of Floyd & Rivest 1975, algorithm 489, in one round.)
    """
    stride = sum(len(values) for values, _ in ranked) // SAMPLE | 1
    sample = np.sort(np.concatenate([values[::stride][alive[::stride]] for values, alive in ranked]))
    living = sum(int(np.count_nonzero(alive)) for _, alive in ranked)
    middle, spread = rank / living * len(sample), 4 * len(sample) ** 0.5  # eight standard deviations of a sample's rank
    first, last = int(middle - spread), int(middle + spread)
    bracket = (sample[first] if first > 0 else -np.inf, sample[last] if last < len(sample) else np.inf)
    for low, high in (bracket, (-np.inf, np.inf)):
        below = sum(int(np.count_nonzero((values < low) & alive)) for values, alive in ranked)
        within = np.concatenate([values[(values >= low) & (values <= high) & alive] for values, alive in ranked])
        if below < rank <= below + len(within):
            break
    position = rank - below - 1
    within.partition(position)
    threshold = within[position]
    return threshold, position + 1 - int(np.count_nonzero(within[:position] < threshold))
