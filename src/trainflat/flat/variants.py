"""SAM with two passes or more, changed in one respect each: what is added to its gradient, on what, or where it moves."""

from __future__ import annotations

from trainflat.flat.ascent import Unfamiliar
from trainflat.flat.combine import Decomposed, TwoSided
from trainflat.flat.compose import compose
from trainflat.flat.metrics import per_neuron
from trainflat.flat.places import last_layers as layers
from trainflat.flat.places import norm_layers
from trainflat.flat.radius import Radius, Smooth
from trainflat.types import Gradient, Schedule

__all__ = [
    "adasap",
    "bilateral_sam",
    "friendly_sam",
    "gsam",
    "last_layers",
    "m_sam",
    "sam_on",
    "smoothness_adaptive",
]


def gsam(rho: Radius = 0.05, *, alpha: float = 0.4) -> Gradient:
    """`sam` that also closes the gap between its loss and the plain one: g_s - alpha * (g's part orthogonal to g_s).

    g is the gradient at w, g_s that at w + rho g / |g|. Zhuang et al. 2022, algorithm 1, arXiv:2203.08065, with rho as given
    (they tie it to the learning rate; give a schedule). With alpha = 0 it is `sam`. Two passes a step, two copies of the
    weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        alpha: Weight of the orthogonal part. Default: 0.4, as in the example of the authors' code.

    Raises:
        ValueError: If rho is negative.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> def closure(): w.grad, loss = None, w[0] ** 2 / 2 + w[1]; loss.backward(); return loss.detach()
        >>> _ = gsam(rho=2**0.5, alpha=0.4)(closure, {"w": w}, 0.0)
        >>> w.grad                                              # g = (1, 1), g_s = (2, 1): less 0.4 * (-0.2, 0.4)
        tensor([2.0800, 0.8400])
    """
    return compose(rho, combine=Decomposed(alpha))


def friendly_sam(rho: Radius = 0.05, *, sigma: float = 1.0, decay: float = 0.9) -> Gradient:
    """`sam` along what is particular to this batch: dL/dw at w + rho d / |d|, d = g - sigma m.

    m is the running average of the gradients at the weights before this step, an estimate of the full gradient. Li et al. 2024,
    arXiv:2403.12350, as in the authors' code: m begins as the first gradient, with which the first step is `sam`. With
    sigma = 0 it is `sam`. Two passes a step, two copies of the weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.05, that of the authors' class; their script for CIFAR-100 has 0.2.
        sigma: Share of the average that is taken off. Default: 1, as theirs.
        decay: Of the average, in [0, 1]. Default: 0.9, that of their class; their script has 0.6.

    Raises:
        ValueError: If decay is outside [0, 1] or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), friendly_sam(rho=0.5)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> for weight in (1.0, 0.5):                           # up along g; then g = 1 is below the average 2: down
        ...     _ = w.data.fill_(weight)
        ...     _ = rule(closure, {"w": w}, 0.0)
        ...     print(w.grad.item())
        3.0
        0.0
    """
    return compose(rho, direction=Unfamiliar(sigma, decay))


def bilateral_sam(rho: Radius = 0.05) -> Gradient:
    """Flat upwards and downwards: g_s + g - g_b, with g_s at w + e and g_b at w - e, e = rho g / |g|.

    The gradient of max L(w + e) + (L(w) - min L(w + e)), each extreme at first order as SAM's: the objective of BSAM, Deng et
    al. 2024, arXiv:2409.13173. The authors' code does otherwise in three respects: it rescales g_b to the length of g_s (which
    makes training on digits fail here); its radius downwards falls to 0 as the learning rate does; and its steps set out from
    w - e, since e is taken off the stored weights in place. Three passes a step, two copies of the weights.

    Args:
        rho: Radius on both sides, >= 0; 0 is `plain`. Default: `sam`'s, which is where both of theirs begin.

    Raises:
        ValueError: If rho is negative.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
        >>> def closure(): w.grad, loss = None, w[0] ** 2 / 2 + w[0] * w[1]; loss.backward(); return loss.detach()
        >>> _ = bilateral_sam(rho=2**0.5)(closure, {"w": w}, 0.0)
        >>> w.grad                                              # g = (1, 1), g_s = (3, 2), g_b = (-1, 0)
        tensor([5., 3.])
    """
    return compose(rho, combine=TwoSided())


def m_sam(rho: Radius = 0.05, *, pieces: int = 4) -> Gradient:
    """A ball for each piece of the batch: the mean over pieces of dL_i/dw at w + rho g_i / |g_i|.

    The m-sharpness of Foret et al. 2021, section 4.1, arXiv:2010.01412 (what SAM does on so many accelerators that do not
    share the first gradient); their m is the examples in a piece. Each micro-batch is cut alike. With pieces = 1 it is `sam`.
    Two passes a step, in smaller pieces; two copies of the weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        pieces: How many, >= 1; at most one for each example. Default: 4, eight examples of BERT's usual 32 in each.

    Raises:
        TypeError: If the closure has no ``pieces``.
        ValueError: If pieces is below 1 or rho negative.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model, batch = torch.nn.Linear(1, 1, bias=False), (torch.tensor([[1.0], [1.0]]), torch.tensor([-2.0, 4.0]))
        >>> _ = model.weight.data.fill_(0.0)                    # the mean gradient of (w + 2)^2 and (w - 4)^2 is 4 - 8
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> for rule in (m_sam(rho=0.5, pieces=2), m_sam(rho=0.5, pieces=1)):
        ...     _ = train.fit(model, train.mean_squared_error, [batch], sgd, steps=1, gradient=rule)
        ...     print(model.weight.grad.item())                 # (2 * 2.5 - 2 * 4.5) / 2, and that at -0.5
        -2.0
        -3.0
    """
    return compose(rho, pieces=pieces)


def sam_on(rho: Radius = 0.5) -> Gradient:
    """`sam` that moves the parameters of normalisation layers alone, and whose norm is over theirs; all are trained.

    Müller et al. 2023, arXiv:2306.04226: often better than moving all, though the loss is then no flatter. Which layers is
    decided by their type, in the authors' code by "norm" or "bn" in the name. Two passes a step, the first without the gradients
    of all others.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.5, that of the authors' script, ten times `sam`'s.

    Raises:
        TypeError: If the closure does not say whose it is (``closure.model``).
        ValueError: If the model has no such layer to train, or rho is negative.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model, seen = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)), []
        >>> def objective(model, batch):
        ...     seen.append(train.snapshot(model))
        ...     return train.cross_entropy(model, batch)
        >>> batch, sgd = (torch.eye(2), torch.tensor([0, 1])), torch.optim.SGD(model.parameters(), lr=0.1)
        >>> _ = train.fit(model, objective, [batch], sgd, steps=1, gradient=sam_on())
        >>> [name for name in seen[0] if not torch.equal(seen[0][name], seen[1][name])]
        ['1.weight', '1.bias']
    """
    return compose(rho, where=norm_layers)


def last_layers(rho: Radius = 0.05, *, count: int = 4) -> Gradient:
    """`sam` that moves the last layers alone, and whose norm is over theirs; all are trained.

    With count = 0 it moves what comes after the layers: Springer et al. 2024, arXiv:2405.20439, who use it to take SAM's
    effect on features apart. The first pass ends at the last layers: with 4 of BERT's 12, 0.54 of a pass was measured. With at
    least as many as there are it is `sam`.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        count: Layers, >= 0: of the longest ``nn.ModuleList`` or ``nn.Sequential`` of modules of one type. Default: 4.

    Raises:
        TypeError: If the closure does not say whose it is (``closure.model``).
        ValueError: If count or rho is negative, or there is nothing to move.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(2, 2, bias=False) for _ in range(3)])
        >>> batch, sgd, seen = (torch.eye(2), torch.tensor([0, 1])), torch.optim.SGD(model.parameters(), lr=0.1), []
        >>> def objective(model, batch):
        ...     seen.append(train.snapshot(model))
        ...     return train.cross_entropy(model, batch)
        >>> _ = train.fit(model, objective, [batch], sgd, steps=1, gradient=last_layers(count=1))
        >>> [name for name in seen[0] if not torch.equal(seen[0][name], seen[1][name])]
        ['2.weight']
    """
    return compose(rho, where=layers(count))


def adasap(rho: Radius = 0.1, *, lowest: float = 0.005, eta: float = 0.01) -> Gradient:
    """A radius for each neuron, small ones' larger: row i of a matrix moves by rho_i T^2 g / (|T g| over the row), T = |w| + eta.

    rho_i goes from rho for the row of least L2 norm down to lowest * rho for that of the largest, linearly in the norm, matrix
    by matrix: the neurons that will be pruned come to lie in flat regions. Bair et al. 2024, arXiv:2306.14306, its first phase
    (the second prunes, the third is flat training with one radius for all). What has no rows (biases, norms) does not move. Two
    passes a step.

    Args:
        rho: Radius of the least important neuron, >= 0; 0 is `plain`. It is for each row by itself, not over all weights
            together as `asam`'s. Default: 0.1, this project's: of 0.02, 0.05, 0.1, 0.2 and 0.5 on digits, scored on a fifth of
            the training images held back, two seeds, the largest that costs the dense model no more than a point
            (results/adasap-choose). The authors' radius could not be checked; a third party's implementation has 2, with which
            digits do not train at all.
        lowest: That of the most important one, as a share of rho, in [0, 1]. Default: 0.005, that implementation's 0.01 of 2.
            (It moves a row by rho_i T g / |T g|, so by a length of rho_i whatever the weights.)
        eta: As for `asam`; that implementation has almost 0.

    Raises:
        ValueError: If lowest is outside [0, 1], eta or rho negative.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> def closure(): w.grad, loss = None, (w**2).sum() / 2; loss.backward(); return loss.detach()
        >>> _ = adasap(rho=1.0, lowest=0.0, eta=0.0)(closure, {"w": w}, 0.0)
        >>> w.grad.flatten()                                    # w + rho_i |w| with rho_i = 1, 1/2, 0
        tensor([2., 3., 3.])
    """
    return compose(rho, metric=per_neuron(lowest, eta))


def smoothness_adaptive(rho: float | Schedule = 0.05) -> Gradient:
    """`sam` that finds its radius: the ascent is s g with the largest s that the smoothness seen a step before allows.

    s = min(sqrt(1 + s' / s'') s', |e'| / (2 |g(w + e') - g(w)|)), primes for the step before, e' its ascent: the step size of
    Malitsky & Mishchenko 2020, algorithm 1, arXiv:1910.09529, applied to the ascent. The idea is that of Naganuma et al. 2024,
    "Smoothness-adaptive sharpness-aware minimization for finding flatter minima", the rule is ours: their SA-SAM finds the
    step size eta of the *descent* in this way, from this batch's gradients at the last two iterates, and ascends by sqrt(eta) in
    length. Here the optimizer keeps its learning rate. Two passes a step, two copies of the weights.

    Args:
        rho: Radius of the first step only, >= 0; 0 is `plain`. Default: `sam`'s.

    Raises:
        ValueError: If rho is negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), smoothness_adaptive(rho=0.5)
        >>> def closure(): w.grad, loss = None, (4 * w**2).sum() / 2; loss.backward(); return loss.detach()
        >>> [rule(closure, {"w": w}, 0.0) and w.grad.item() for step in range(2)]       # 4 (w + 0.5), 4 (w + 4 / (2 * 4))
        [6.0, 6.0]
    """
    return compose(Smooth(rho))
