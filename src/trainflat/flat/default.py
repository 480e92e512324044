"""The rule that this project would train with when the model will be compressed, by whether it starts from scratch."""

from __future__ import annotations

from trainflat.flat.cheap import stale_sam
from trainflat.flat.compressed import cram
from trainflat.flat.radius import Radius
from trainflat.types import Gradient

__all__ = ["default"]


def default(rho: Radius | None = None, *, pretrained: bool = False) -> Gradient:
    """What this project trains with, of the rules that cost at most 1.25 passes a step.

    **From scratch** `cram` in every fifth step, 1.2 passes: the gradient there is the sum of those at the weights and at their
    *pruned* ascent point. On digits, five seeds, it keeps most under one-shot pruning of all rules of that price, and 7 points
    more than SAM with its two passes; on docstrings as much as SAM and Adam, where `interval` and `quarter_batch` keep a
    little more and only `cram` in every step (two passes) more than both by its interval (results/flat-family).

    **Pretrained**, fine-tuned for a few epochs, that gains nothing or loses, and `stale_sam` is the cheapest that does no harm,
    at one pass: what it keeps is what Adam and SAM keep on RTE, MRPC and CoLA, as far as three seeds of MiniLM can tell
    (results/glue-family). What does gain there, where half of the weights go, costs two: `cram` in every step with
    ``sparse_grad``, at sparsities that the model can bear.

    Args:
        rho: Radius. Default: from scratch `cram`'s, 0.05; pretrained 0.01, chosen on training data of CoLA and MRPC held back
            (results/glue-choose).
        pretrained: Whether the model is fine-tuned rather than trained from scratch.

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
    if pretrained:
        return stale_sam(0.01 if rho is None else rho)
    return cram(0.05 if rho is None else rho, every=5)
