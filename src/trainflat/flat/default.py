"""The rule that this project would train with, when the model starts from scratch and will be pruned."""

from __future__ import annotations

from trainflat.flat.compressed import cram
from trainflat.flat.radius import Radius
from trainflat.types import Gradient

__all__ = ["default"]


def default(rho: Radius = 0.05, *, every: int = 5) -> Gradient:
    """`cram` in every fifth step: the gradient there is the sum of those at the weights and at their *pruned* ascent point.

    On digits, five seeds, it keeps most under one-shot pruning of all rules here that cost at most 1.25 passes a step, and more
    than SAM with its two; on docstrings as much as SAM and Adam, and only in every step (``every=1``, two passes) more than both.
    For one pass a step there is `stale_sam`, which keeps no less than SAM on either, as far as can be told (results/flat-family).

    Both tasks are trained **from scratch**. For a pretrained model that is fine-tuned for a few epochs, every fifth step gained
    nothing where it was tried (MRPC, CoLA, MiniLM): take `cram` in every step *and* with ``sparse_grad``, of which neither gained
    alone, at sparsities that the model can bear, where half of the weights go (results/cram-choose, results/glue-family), or
    `plain` with twice the epochs, and measure.

    Args:
        rho: Radius. Default: `cram`'s.
        every: A step of this kind every so many. Default: 5, which costs 1.2 passes a step.

    Example:
        >>> from trainflat import tasks, train
        >>> import torch
        >>> task = tasks.digits()
        >>> model = task.model(seed=0)
        >>> adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> steps = train.loop(model, task.objective, task.batches(seed=0), adam, steps=5, gradient=default())
        >>> sum(step.passes for step in steps)
        6
    """
    return cram(rho, every=every)
