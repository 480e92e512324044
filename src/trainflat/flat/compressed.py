"""The gradient where the weights are compressed: training that knows what will be done to the model afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from trainflat.flat.ascent import LastGradient
from trainflat.flat.combine import Summed
from trainflat.flat.compose import compose
from trainflat.flat.points import Dense, Pruned, Quantized
from trainflat.flat.radius import Radius
from trainflat.flat.when import Every
from trainflat.types import Gradient

__all__ = ["cram", "saq", "stale_cram"]


def cram(
    rho: Radius = 0.05,
    *,
    sparsity: Sequence[float] = (0.4, 0.9),
    every: int = 1,
    dense: Dense = (),
    sparse_grad: bool = False,
    grow: float = 0.0,
    seed: int = 0,
) -> Gradient:
    """The gradient at the weights plus that at the *pruned* ascent point: g(w) + dL/dw at prune(w + rho g / |g|).

    CrAM+, Peste et al. 2023, arXiv:2207.14200. The smallest weights of the linear and convolutional layers are set to zero,
    all layers ranked together, at a sparsity drawn anew each time. Unlike theirs the ascent has length rho (they multiply the
    gradient by rho), the sparsity is any in a range (they draw from a few), and what the second gradient says of the pruned
    weights is kept (their option ``sparse_grad``, which they advise, drops it). 1 + 1/every passes a step; two copies of the
    weights, the point and the first gradient, both of which have to be there during the second pass.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.05, `sam`'s; Peste et al. have the same number, but as a factor.
        sparsity: Lowest and highest share of these weights to prune, in [0, 1]; a pruned one under a mask counts. Default:
            0.4 and 0.9, from this project's first trial on digits; Peste et al. draw from 0.5, 0.7, 0.9 on ImageNet.
        every: In steps 0, every, 2 every, …, and `plain` in the others. Default: 1. With 5 a step costs 1.2 passes.
        dense: Beginnings of the names of parameters that are not pruned, such as ``["classifier"]``; or ``"head"``, what is
            outside the encoder of a transformers model, and of any other the last of these layers. Default: none. (Of frozen
            layers nothing is pruned; the adapter beside them, LoRA's, would be.)
        sparse_grad: Whether what the second gradient says of the weights that are pruned there is left out, as Peste et al.
            advise. Default: no, with which digits were tried first.
        grow: Share of the training, in [0, 1], over which the highest sparsity rises in a straight line from the lowest to its
            value. Default: 0, it is there from the first step.
        seed: Decides the sparsities, with the number of the step.

    Raises:
        TypeError: If the closure does not say whose it is (``closure.model``).
        ValueError: If an argument is out of range or there is no such layer.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 3.0]]))
        >>> half = lambda model, batch: (model.weight ** 2).sum() / 2                   # its gradient is w
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> rule = cram(rho=10**0.5, sparsity=(0.5, 0.5))       # w + rho w / |w| is (2, 6), pruned (0, 6)
        >>> _ = train.fit(model, half, [torch.ones(1)], sgd, steps=1, gradient=rule)
        >>> model.weight.grad                                   # (1, 3) + (0, 6)
        tensor([[1., 9.]])
    """
    point = _pruned(sparsity, dense, seed, sparse_grad, grow)
    return compose(rho, point=point, combine=Summed(), when=Every(every))


def stale_cram(
    rho: Radius = 0.1,
    *,
    sparsity: Sequence[float] = (0.4, 0.9),
    every: int = 3,
    dense: Dense = (),
    sparse_grad: bool = False,
    grow: float = 0.0,
    seed: int = 0,
) -> Gradient:
    """`cram` for one pass a step: in every third step the gradient at the pruned stale ascent point, else that at the weights.

    dL/dw at prune(w + rho g' / |g'|) in steps 0, every, 2 every, …, and at w in the others, where g' is the gradient of the step
    before, as in `stale_sam`, so that the ascent costs no pass; and the two gradients that `cram` adds up in one step take turns,
    which spares the other. The first step is `plain`. This project's, of CrAM (Peste et al. 2023, arXiv:2207.14200) and S2-SAM
    (Ji et al. 2024). With every = 1 and nothing pruned it is `stale_sam`. The loss that is returned is that at the pruned point
    in these steps. One copy of the weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.1, quickstart's of SAM, with which digits and docstrings were tried first.
        sparsity: As `cram`'s.
        every: In steps 0, every, 2 every, …, and `plain` in the others. Default: 3. With 2 both tasks keep more and digits' dense
            models are 0.7 points below Adam's instead of 0.5, with 4 they keep less (results/flat-confirm, twenty seeds).
        dense: As `cram`'s.
        sparse_grad: As `cram`'s.
        grow: As `cram`'s.
        seed: As `cram`'s.

    Raises:
        TypeError: If the closure does not say whose it is (``closure.model``).
        ValueError: If an argument is out of range or there is no such layer.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 3.0]]))
        >>> half = lambda model, batch: (model.weight ** 2).sum() / 2                   # its gradient is w
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> rule = stale_cram(rho=10**0.5, sparsity=(0.5, 0.5), every=1)
        >>> for _ in train.loop(model, half, [torch.ones(1)] * 2, sgd, steps=2, gradient=rule):
        ...     print(model.weight.grad)                        # w; then w + rho w / |w| is (2, 6), pruned (0, 6)
        tensor([[1., 3.]])
        tensor([[0., 6.]])
    """
    point = _pruned(sparsity, dense, seed, sparse_grad, grow)
    return compose(rho, direction=LastGradient(), point=point, when=Every(every))


def saq(rho: Radius = 0.05, *, bits: int = 8, perturb: Literal["quantized", "latent"] = "quantized") -> Gradient:
    """`sam` on quantized weights, with a straight-through gradient: dL/dw at Q(w) + rho g / |g|, g the gradient at Q(w).

    Liu, Cai & Zhuang 2021, arXiv:2111.12273. Q rounds the weights of linear and convolutional layers to ``bits``, one
    symmetric grid for each output row, s = max|w| / (2^(bits-1) - 1). Unlike theirs the grid has no learned clipping, and
    activations stay as they are. Two passes a step; one copy of the weights. The loss that is returned is that of the
    quantized weights (with ``"latent"`` that of the weights themselves).

    Args:
        rho: Radius, >= 0; 0 is `plain`, so give a tiny one for quantization-aware training alone. Default: `sam`'s; Liu et
            al.'s scripts for 4 bits have 0.4 and 0.3, of weights that are standardised before Q.
        bits: From 2 to 16. Default: 8, as `trainflat.compress` quantizes.
        perturb: ``"quantized"`` moves the quantized weights, as Liu et al.; ``"latent"`` quantizes the moved ones, dL/dw at
            Q(w + rho g / |g|) with g at w, as `cram` does with pruning.

    Raises:
        TypeError: If the closure does not say whose it is (``closure.model``).
        ValueError: If an argument is out of range or there is no such layer.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.2, 1.5]]))
        >>> half = lambda model, batch: (model.weight ** 2).sum() / 2                   # its gradient is w
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> _ = train.fit(model, half, [torch.ones(1)], sgd, steps=1, gradient=saq(rho=1.0, bits=2))
        >>> model.weight.grad                                   # the grid is 1.5 / 1, so Q(w) = (0, 1.5), and 1 further (0, 2.5)
        tensor([[0.0000, 2.5000]])
    """
    if perturb not in ("quantized", "latent"):
        raise ValueError(f"perturb must be 'quantized' or 'latent', got {perturb!r}")
    grid = Quantized(bits)
    return compose(rho, start=grid) if perturb == "quantized" else compose(rho, point=grid)


def _pruned(sparsity: Sequence[float], dense: Dense, seed: int, sparse_grad: bool, grow: float) -> Pruned:
    if not isinstance(sparsity, Sequence) or len(sparsity) != 2:
        raise ValueError(f"sparsity is a range, its lowest and its highest value, such as [0.4, 0.9]; got {sparsity!r}")
    low, high = sparsity
    return Pruned(low, high, dense, seed, sparse_grad, grow)
