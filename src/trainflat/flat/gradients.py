"""Where the gradient is taken. Each rule fills ``p.grad``; any ``torch.optim.Optimizer`` then steps.

A rule is called as ``rule(closure, params, t)``. The closure is PyTorch's own idea: it runs forward and backward (over all
micro-batches, if gradients are accumulated) and returns the loss. On return every parameter is bit for bit as it was.

In a loop of one's own, in float16: the closure scales the loss, and what follows the rule is as ever. An ascent has a given
length, so the scale is of no account to it. (`adaptive_sam`, `friendly_sam`, `momentum_sam` and `smoothness_adaptive` compare
gradients of several steps and need some to forget a scale that has changed; `dp_sat` cuts what is scaled.) Clip after the rule.

The running statistics of a batch norm go on in every pass, so also with what the moved weights make of the batch. They can be
kept as the pass at the weights left them, for rules that begin with one (`sam` and what is composed like it):

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    >>> params, statistics = dict(model.named_parameters()), []
    >>> sgd, scaler, rule = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu"), sam(rho=0.05)
    >>> def closure():
    ...     with torch.autocast("cpu", torch.float16):
    ...         loss = nn.functional.cross_entropy(model(torch.eye(2)), torch.tensor([0, 1]))
    ...     scaler.scale(loss).backward()
    ...     statistics.append([buffer.clone() for buffer in model.buffers()])
    ...     return loss.detach()
    >>> for step in range(10):
    ...     sgd.zero_grad()
    ...     statistics.clear()
    ...     loss = rule(closure, params, step / 10)
    ...     for own, first in zip(model.buffers(), statistics[0]):
    ...         _ = own.copy_(first)
    ...     scaler.unscale_(sgd)
    ...     _ = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    ...     _ = scaler.step(sgd)
    ...     scaler.update()
    >>> int(model[1].num_batches_tracked)
    10
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from trainflat.flat.choices import run_pass, trainable
from trainflat.flat.compose import compose
from trainflat.flat.metrics import adaptive
from trainflat.flat.radius import Radius
from trainflat.flat.rule import Dropout
from trainflat.types import Closure, Gradient, Params

__all__ = ["asam", "plain", "sam"]


def plain() -> Gradient:
    """The gradient at the weights themselves: ordinary training, one backward pass a step.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> plain()(closure, {"w": w}, 0.0), w.grad
        (tensor(1.), tensor([2.]))
    """

    def rule(closure: Closure, params: Params, t: float) -> Float[Tensor, ""]:
        trainable(params, t)
        return run_pass(closure)

    return rule


def sam(rho: Radius = 0.05, *, eps: float = 1e-12, dropout: Dropout = "fresh") -> Gradient:
    """The gradient at the worst point of a ball around the weights: dL/dw at w + rho * g / (|g| + eps).

    Foret et al. 2021, eq. (2)-(3), arXiv:2010.01412; first-order maximiser, second-order term dropped as there. |g| is the
    L2 norm over all parameters together. Two backward passes on the same micro-batches. A gradient that a mask holds at
    zero moves nothing, so a pruned weight is never perturbed. For float16 and batch norms see `trainflat.flat.gradients`.

    Args:
        rho: Radius in weight space, >= 0, a number or a schedule; 0 is `plain`, random stream included. ``"auto"`` finds it
            without an extra pass, see `trainflat.flat.auto.Auto`. Default: 0.05, as Na et al. 2022 for BERT.
        eps: Added to |g|, outside the square root; a gradient of zero then moves nothing. Default: as in the common PyTorch
            implementation; the authors' own code divides by |g| alone.
        dropout: ``"fresh"`` draws new dropout masks in the second pass, as the common PyTorch implementation does and so
            most likely Na et al.; ``"replay"`` repeats the first pass's, as Foret et al.'s own code (one key for both
            passes), and leaves the random stream where one pass would.

    Raises:
        ValueError: If rho is negative at some step, or ``dropout`` is neither word.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> _ = sam(rho=0.5)(closure, {"w": w}, 0.0)
        >>> w.grad, w.data                                   # 2 (w + 0.5), and w is where it was
        (tensor([3.]), tensor([1.]))
    """

    return compose(rho, eps=eps, dropout=dropout)


def asam(rho: Radius = 0.5, *, eta: float = 0.01, eps: float = 1e-12, dropout: Dropout = "fresh") -> Gradient:
    """SAM in a ball that scales with each weight: dL/dw at w + rho * T^2 g / (|T g| + eps), with T = |w| + eta.

    Kwon et al. 2021, algorithm 1, arXiv:2102.11600. Rescaling a layer and its successor inversely changes nothing (for
    eta = 0). A weight of exactly zero under a mask is not perturbed, since its gradient is zero. In the authors' code T is 1
    for every parameter that is not named "weight", so for biases; here they scale as all others.

    Args:
        rho: Radius in the scaled space, >= 0, or ``"auto"`` as for `sam`; 0 is `plain`. Default: 0.5, as Kwon et al. for
            CIFAR-10 with their code, ten times SAM's; with scaled biases their first author found 2 best there.
        eta: Keeps small weights movable, >= 0. Default: 0.01, that of the authors' class.
        eps: Added to |T g|.
        dropout: As for `sam`.

    Raises:
        ValueError: If rho is negative at some step, eta is negative, or ``dropout`` is neither word.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([2.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> _ = asam(rho=0.5, eta=0.0)(closure, {"w": w}, 0.0)
        >>> w.grad                                           # w moves by 0.5 * T = 1, so 2 (2 + 1)
        tensor([6.])
    """
    return compose(rho, metric=adaptive(eta), eps=eps, dropout=dropout)
