"""Rules that tell the examples of a batch apart: only the sharpest, weighted by curvature, or clipped one by one.

They need ``closure.losses`` (see `trainflat.types.Closure`): the loop has it for every objective that returns what
`trainflat.train.cross_entropy` or `mean_squared_error` returns, such as the tasks'.
"""

from __future__ import annotations

from trainflat.flat.ascent import Drawn, LastGradient
from trainflat.flat.compose import compose
from trainflat.flat.examples import Curved, Private, Sharpest
from trainflat.flat.radius import Radius
from trainflat.types import Gradient

__all__ = ["delta_sam", "dp_sat", "esam"]


def esam(rho: Radius = 0.05, *, share: float = 0.5, p: float = 0.6, seed: int = 0) -> Gradient:
    """`sam` whose ascent moves some parameters and whose last pass is over the examples that it hurts most.

    e = (rho / p) m g / |m g|, where m keeps each parameter tensor with probability p; then the mean of dl_i/dw at w + e over
    the ``share`` of the batch with the largest l_i(w + e) - l_i(w). Du et al. 2022, arXiv:2110.03141: stochastic weight
    perturbation and sharpness-sensitive data selection. As in the authors' code m is drawn by tensor (by weight in the paper)
    and the norm is over what it keeps. That code keeps the examples *above* the k-th largest rise, which is one less; here it
    is k. The losses at w + e are found with the first pass's dropout, or the rise would be mostly that of another dropout.

    With share = 1 and p = 1 it is `sam`. A whole pass, a forward pass, and a whole one over the share: 1 + 1/3 + share passes a
    step, 1.83 by default, less what the first one saves by the gradients that it need not find (for BERT-base about 1.45 times
    a step of Adam was measured, and 1.9 times for `sam`). One copy of the weights. The draws depend on (seed, step), so it
    counts its steps and has a state.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.05, as in the authors' script for a ResNet-18, and `sam`'s.
        share: Of the examples in the last pass, in (0, 1]. Default: 0.5, as in that script (gamma).
        p: Of the parameters that move, in (0, 1]. Default: 0.6, as in that script (beta).
        seed: Decides which parameters.

    Raises:
        TypeError: If the closure does not tell the examples apart.
        ValueError: If share or p is outside (0, 1] or rho negative.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model, batch = torch.nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.tensor([-6.0, 0.0, 0.0, 2.0]))
        >>> _ = model.weight.data.fill_(0.0)                    # the mean gradient of (w - y)^2 is 2: up, away from -6
        >>> sgd, rule = torch.optim.SGD(model.parameters(), lr=0.0), esam(rho=0.5, share=0.25, p=1.0)
        >>> steps = train.fit(model, train.mean_squared_error, [batch], sgd, steps=1, gradient=rule)
        >>> model.weight.grad.item(), round(steps[0].passes, 3)                         # 2 * (0.5 + 6)
        (13.0, 1.583)
    """
    return compose(rho, direction=Drawn(p, seed), examples=Sharpest(share))


def delta_sam(rho: Radius = 0.05, *, power: float = 1.0, sigma: float = 3e-3, seed: int = 0) -> Gradient:
    """`sam` whose ascent listens most to the examples whose loss is curved: dL/dw at w + rho d / |d|, d = mean of c_i g_i.

    c_i is |l_i(w + z) - 2 l_i(w) + l_i(w - z)|^power, divided by its mean over the batch, z Gaussian: about |z' H_i z|, how much
    the gradient of example i changes near w. The last pass counts all alike. Zhou et al. 2022 (delta-SAM), arXiv:2112.08772:
    with such weights one ascent for the batch comes closer to an ascent for each example (which is `m_sam` with as many pieces as
    examples). Their text and code were not at hand, only abstracts and reviews of them, which say: examples with larger changes
    of the gradient weigh more, and three forward passes with Gaussian perturbations say which. That these three losses make a
    second difference, its power and sigma are ours.

    With power = 0 it is `sam`. Three forward passes more than `sam`, so 3 passes a step (for BERT-base about 1.4 times a step of
    `sam` was measured; theirs is said to cost 1.18). One copy of the weights. z depends on (seed, step), so it counts its steps
    and has a state.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        power: >= 0; 0 weighs all alike. Default: 1, ours.
        sigma: Standard deviation of each weight's z, > 0. Default: 0.003, ours: on digits' small transformer the second
            difference is then 100 to 10,000 times the rounding of float32, after 400 steps of Adam and before the first (with
            0.001 it is 10 to 700 times), and, over a batch, correlates to 0.998 with that of an infinitesimal z.
        seed: Decides z.

    Raises:
        TypeError: If the closure does not tell the examples apart.
        ValueError: If power, sigma or rho is out of range.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model = torch.nn.Linear(1, 1, bias=False)           # (x w)^2 - 0: of curvature 2 x^2
        >>> batch = torch.tensor([[1.0], [-3.0]]), torch.tensor([1.0, 1.0])
        >>> _ = model.weight.data.fill_(0.0)                    # g is -2 and 6, weighed by 1 and 9: still up
        >>> sgd, rule = torch.optim.SGD(model.parameters(), lr=0.0), delta_sam(rho=1.0, sigma=0.1)
        >>> steps = train.fit(model, train.mean_squared_error, [batch], sgd, steps=1, gradient=rule)
        >>> model.weight.grad.item(), steps[0].passes           # at w = 1: the mean of 0 and 2 * (-3 - 1) * -3
        (12.0, 3)
    """
    return compose(rho, examples=Curved(power, sigma, seed))


def dp_sat(rho: Radius = 0.01, *, clip: float = 0.1, noise: float = 1.0, seed: int = 0) -> Gradient:
    """`stale_sam` with private gradients: g = (sum_i min(1, C / |g_i|) g_i + noise C z) / n at w + rho g' / |g'|, z ~ N(0, I).

    g_i is the gradient of example i, |g_i| over all parameters together, g' the private gradient of the step before: it is
    public already, so the ascent costs neither a pass nor privacy. Park et al. 2023, arXiv:2306.05651, as in the authors'
    code; g is the gradient of DP-SGD, Abadi et al. 2016, algorithm 1, arXiv:1607.00133. The noise of a coordinate has the
    standard deviation noise * clip / n. With rho = 0 it is DP-SGD, **not** `plain`; with clip = inf and noise = 0 it is
    `stale_sam`. The first step stays at the weights.

    It is no accountant: how private a run is (epsilon) follows from the noise, the number of steps and the share of the data in
    a batch, if batches are drawn at random and are of one size; compute it with Opacus's, for instance. The noise comes
    from torch's generator and the seed, so keep the seed secret: who knows it can take the noise off. The returned loss is not
    private. No batch norm, no DDP, nothing trained beside the model; and no ``clip`` of the loop, which would cut the noise.

    One pass a step, but example by example (for BERT-base and batches of 8 about 1.3 times a step of Adam was measured on a
    core; a GPU will mind more). Two copies of the weights. It has a state.

    Args:
        rho: Radius, >= 0. Default: 0.01, as in the authors' instructions; 0 is DP-SGD.
        clip: C, > 0, the largest norm of one example's gradient. Default: 0.1, as in the authors' code.
        noise: Standard deviation in units of C, >= 0. Default: 1, ours; the authors find theirs from epsilon.
        seed: Decides z, with the number of the step.

    Raises:
        TypeError: If the closure does not tell the examples apart.
        ValueError: If clip, noise or rho is out of range, or something is trained that would not be private.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model, batch = torch.nn.Linear(1, 1, bias=False), (torch.ones(2, 1), torch.tensor([-4.0, 0.25]))
        >>> _ = model.weight.data.fill_(0.0)
        >>> sgd, rule = torch.optim.SGD(model.parameters(), lr=0.0), dp_sat(rho=0.0, clip=1.0, noise=0.0)
        >>> _ = train.fit(model, train.mean_squared_error, [batch], sgd, steps=1, gradient=rule)
        >>> model.weight.grad.item()                            # of 8 and -0.5, the first is cut to 1: (1 - 0.5) / 2
        0.25
    """
    return compose(rho, direction=LastGradient(), examples=Private(clip, noise, seed))
