"""The rule that this project would train with when the model will be compressed, by whether it starts from scratch."""

from __future__ import annotations

from trainflat.flat.cheap import stale_sam
from trainflat.flat.compressed import stale_cram
from trainflat.flat.radius import Radius
from trainflat.types import Gradient

__all__ = ["default"]


def default(rho: Radius | None = None, *, pretrained: bool = False) -> Gradient:
    """What this project trains with, of the rules that cost at most 1.25 passes a step.

    **From scratch** `stale_cram`, one pass: in every third step the gradient at the *pruned* stale ascent point. Under one-shot
    pruning it keeps 7.7 points more than SAM with its two passes on digits (6.9 to 8.5) and as much on docstrings (0.0, -0.7 to
    0.7), twenty seeds, with dense models 0.5 (0.2 to 0.7) and 0.2 points (-0.4 to 0.8) below Adam's. What keeps more there, it in
    every second step or `cram` in every step, which costs two passes, costs digits' dense models about as much or more
    (results/flat-confirm).

    **Pretrained**, fine-tuned for a few epochs, that gains nothing or loses, and `stale_sam` is the cheapest that does no harm,
    at one pass: what it keeps is what Adam and SAM keep on RTE, MRPC and CoLA, as far as three seeds of MiniLM can tell
    (results/glue-family). Where half of the weights go at once there are two that gain: `cram` in every step, for two passes, and
    for one `stale_cram`, which at 50 % keeps 5.3 points more than Adam on MRPC (1.0 to 9.6) and 12.9 on CoLA (7.0 to 18.8), and
    at 10 and 30 % of CoLA 3.0 and 3.9 less (2.2 to 3.7, 0.3 to 7.5); after ten epochs it keeps 22.5 more at 60 % (15.5 to 29.5),
    where Adam is at 0, and up to 45 % no more (results/cola-epochs). Both with a sparse gradient, at sparsities that the model
    can bear, and with the head spared: ``stale_cram(0.01, sparsity=(0.1, 0.5), dense="head", sparse_grad=True)``.

    Args:
        rho: Radius. Default: from scratch `stale_cram`'s, 0.1; pretrained 0.01, chosen on training data of CoLA and MRPC held
            back (results/glue-choose).
        pretrained: Whether the model is fine-tuned rather than trained from scratch.

    Example:
        >>> from trainflat import tasks, train
        >>> import torch
        >>> task = tasks.digits()
        >>> model = task.model(seed=0)
        >>> adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> steps = train.loop(model, task.objective, task.batches(seed=0), adam, steps=5, gradient=default())
        >>> sum(step.passes for step in steps)
        5
    """
    if pretrained:
        return stale_sam(0.01 if rho is None else rho)
    return stale_cram(0.1 if rho is None else rho)
