"""SAM for less than two passes a step: now and then, late, at random, where it pays, on a part of the batch, or from memory."""

from __future__ import annotations

from trainflat.flat.ascent import LastGradient, Momentum, Part
from trainflat.flat.combine import Reused
from trainflat.flat.compose import compose
from trainflat.flat.draws import Entries, Noise
from trainflat.flat.radius import Radius
from trainflat.flat.when import Every, From, HighNorm, Sometimes
from trainflat.types import Gradient, Schedule

__all__ = [
    "adaptive_sam",
    "interval",
    "late",
    "looksam",
    "momentum_sam",
    "noise",
    "quarter_batch",
    "stale_sam",
    "stochastic",
]


def interval(rho: Radius = 0.05, *, k: int = 5) -> Gradient:
    """`sam` in steps 0, k, 2k, …, `plain` in all others: 1 + 1/k passes a step.

    As MosaicML's Composer does (its SAM has an option ``interval``). With k = 1 it is `sam`. It counts its steps and so has a
    state.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s. Composer advises one in proportion to k: 0.5 with k = 10.
        k: Steps from one to the next, >= 1. Default: 5, so that a step costs 1.2 passes.

    Raises:
        ValueError: If k is below 1 or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), interval(rho=0.5, k=2)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> [rule(closure, {"w": w}, 0.0) and w.grad.item() for step in range(4)]
        [3.0, 2.0, 3.0, 2.0]
    """
    return compose(rho, when=Every(k))


def late(rho: Radius = 0.05, *, t0: float = 0.7) -> Gradient:
    """`plain` at first, `sam` from progress t0 on: 2 - t0 passes a step, on average.

    Zhou et al. 2025, "Sharpness-aware minimization efficiently selects flatter minima late in training", arXiv:2410.10373.
    With t0 = 0 it is `sam`.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        t0: Progress in [0, 1] at which SAM begins. Default: 0.7, with which a run costs 1.3 passes a step.

    Raises:
        ValueError: If t0 is outside [0, 1] or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), late(rho=0.5, t0=0.5)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> [rule(closure, {"w": w}, t) and w.grad.item() for t in (0.0, 0.25, 0.5, 0.75)]
        [2.0, 2.0, 3.0, 3.0]
    """
    return compose(rho, when=From(t0))


def stochastic(rho: Radius = 0.05, *, p: float = 0.5, seed: int = 0) -> Gradient:
    """`sam` with probability p in each step, else `plain`: 1 + p passes a step, on average.

    SS-SAM, Zhao, Zhang & Hu 2022, arXiv:2203.09962, with a constant p. With p = 1 it is `sam`. The draw of step n depends
    on (seed, n) alone, so that resuming and other processes agree; the rule counts its steps and so has a state.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        p: Probability in [0, 1]. Default: 0.5, the middle.
        seed: Decides in which steps.

    Raises:
        ValueError: If p is outside [0, 1] or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), stochastic(rho=0.5, p=0.5)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> drawn = [rule(closure, {"w": w}, 0.0) and w.grad.item() for step in range(1000)]
        >>> sorted(set(drawn)), 450 < drawn.count(3.0) < 550
        ([2.0, 3.0], True)
    """
    return compose(rho, when=Sometimes(p, seed))


def adaptive_sam(rho: Radius = 0.05, *, start: float = 1.0, end: float = -1.0, decay: float = 0.9) -> Gradient:
    """`sam` where the gradient is large, else `plain`: if |g|^2 >= mu + c sigma; one or two passes, about 1.5 on average.

    AE-SAM, Jiang et al. 2023, arXiv:2304.14647. mu and sigma^2 are running averages of |g|^2 and of
    (|g|^2 - mu)^2; c goes from ``start`` to ``end`` over the run, so that most SAM steps are late ones. With
    start = end = -inf it is `sam`. (Not `asam`, whose ball adapts.)

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        start: c at the beginning of the run, their lambda_2. Default: 1, one deviation above the average; whether they take
            it could not be checked, nor for ``end`` and ``decay``.
        end: c at its end, their lambda_1. Default: -1.
        decay: Share of the old average that stays in each step, in [0, 1], their delta. Default: 0.9.

    Raises:
        ValueError: If decay is outside [0, 1] or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), adaptive_sam(rho=0.5, start=0.0, end=0.0)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> for weight in (1.0, 2.0, 1.0):                      # as large as the average, larger, smaller
        ...     _ = w.data.fill_(weight)
        ...     _ = rule(closure, {"w": w}, 0.0)
        ...     print(w.grad.item())
        3.0
        5.0
        2.0
    """
    return compose(rho, when=HighNorm(start, end, decay))


def looksam(rho: Radius = 0.05, *, k: int = 5, alpha: float = 0.7) -> Gradient:
    """`sam` in every k-th step; in the others its direction orthogonal to the gradient is reused: 1 + 1/k passes a step.

    Step 0, k, …: the gradient is g_s = dL/dw at w + rho g / |g|, and v = g_s - (g_s . g / |g|^2) g is remembered. All other
    steps: g + alpha (|g| / |v|) v, in a single pass: nothing else is computed. Liu et al. 2022, algorithm 1,
    arXiv:2203.02714, without its layer-wise variant. With k = 1 it is `sam`, with alpha = 0 it is `interval`. Two copies of
    the weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        k: Steps from one SAM step to the next, >= 1. Default: 5, as Liu et al.'s LookSAM-5.
        alpha: Weight of what is reused, >= 0. Default: 0.7, as in the public implementations, Becker et al.'s among them;
            neither code nor value of the authors was found.

    Raises:
        ValueError: If k is below 1, alpha or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0, 0.0])), looksam(rho=1.0, k=2, alpha=0.5)
        >>> def closure(): w.grad, loss = None, (w[0] + w[0] * w[1]); loss.backward(); return loss.detach()
        >>> for step in range(2):                               # g = (1, 1); at w + g / |g| it is (1.71, 1.71): v is 0
        ...     _ = rule(closure, {"w": w}, 0.0)
        ...     print(w.grad)
        tensor([1.7071, 1.7071])
        tensor([1., 1.])
    """
    return compose(rho, when=Every(k), combine=Reused(alpha))


def quarter_batch(rho: Radius = 0.05, *, fraction: float = 0.25) -> Gradient:
    """`sam` whose ascent is found on the first part of the batch: 1 + fraction passes a step.

    Bahri, Mobahi & Tay 2022, arXiv:2110.08529, who ascend on a quarter of the batch for T5, at about a quarter more time. The
    loss that is returned is that of the part, at the weights. With fraction = 1 it is `sam`.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.
        fraction: Share of each micro-batch, in (0, 1]; at least one example. Default: 1/4, as Bahri et al.

    Raises:
        TypeError: If the closure has no ``part``.
        ValueError: If the fraction is outside (0, 1] or rho negative.

    Example:
        >>> import torch
        >>> from trainflat import train
        >>> model, batch = torch.nn.Linear(2, 1), (torch.ones(8, 2), torch.zeros(8))
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> [step.passes for step in train.fit(model, train.mean_squared_error, [batch], sgd, steps=1, gradient=quarter_batch())]
        [1.25]
    """
    return compose(rho, direction=Part(fraction))


def momentum_sam(rho: Radius = 0.1, *, decay: float = 0.9, sign: int = -1) -> Gradient:
    """The gradient further down along the momentum: dL/dw at w - rho m / |m|. One pass a step.

    m = decay m + (1 - decay) g is the average of the gradients before this step, in the rule's own memory (the optimizer's
    is not read). MSAM, Becker, Altrock & Risse 2024, arXiv:2401.12033, who perturb down, as Nesterov does, but by a given
    length. The first step is `plain`. The loss that is returned is that at the perturbed point. Two copies of the weights.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: 0.1, from this project's first trial on digits; Becker et al.'s examples have 3
            where those of SAM have 0.2.
        decay: In [0, 1]. Default: 0.9, as Adam's and SGD's momentum in their code.
        sign: -1 goes down along the momentum, 1 up. Default: -1, as Becker et al.; on digits up costs 15 points of accuracy.

    Raises:
        ValueError: If decay is outside [0, 1], the sign is neither, or rho negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), momentum_sam(rho=0.5)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> [rule(closure, {"w": w}, 0.0) and w.grad.item() for step in range(2)]         # 2 w, then 2 (w - 0.5)
        [2.0, 1.0]
    """
    return compose(rho, direction=Momentum(decay, sign))


def stale_sam(rho: Radius = 0.05) -> Gradient:
    """`sam` that ascends along the gradient of the step before: dL/dw at w + rho g' / |g'|. One pass a step.

    g' is what the step before left in ``p.grad``, before clipping. S2-SAM, Ji et al. 2024, "A single-step, sharpness-aware
    minimization is all you need to achieve efficient and accurate sparse training" (NeurIPS). AsyncSAM, Jo, Lim & Lee 2025,
    arXiv:2503.11147, is near: its stale gradient is one at the weights, found on another device. It is also the flat half of
    `dp_sat`, Park et al. 2023, arXiv:2306.05651, which clips each example's gradient and adds noise, so that the released
    gradient is used twice at no cost in privacy. The first step is `plain`. The loss that is returned is that at the perturbed
    point. One copy of the weights: what is remembered is not needed any more once it has been ascended along.

    Args:
        rho: Radius, >= 0; 0 is `plain`. Default: `sam`'s.

    Raises:
        ValueError: If rho is negative.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.tensor([1.0])), stale_sam(rho=0.5)
        >>> def closure(): w.grad, loss = None, (w**2).sum(); loss.backward(); return loss.detach()
        >>> [rule(closure, {"w": w}, 0.0) and w.grad.item() for step in range(2)]         # 2 w, then 2 (w + 0.5)
        [2.0, 3.0]
    """
    return compose(rho, direction=LastGradient())


def noise(rho: float | Schedule = 4.0, *, entries: Entries = "signs", seed: int = 0) -> Gradient:
    """The gradient at a random point of the sphere: dL/dw at w + rho z / |z|, the entries of z independent. One pass a step.

    A smoothed loss rather than the worst one: the control for whether the direction matters. To second order it is
    L(w) + rho^2 tr(H) / 2n, n weights and H the Hessian, with entries of either kind. After LPF-SGD, Bisla, Wang & Choromanska
    2022, arXiv:2201.08025; there each filter has normal noise in proportion to its norm, of random length, a new one for each
    piece of the batch, while here one draw for all weights has a given length. Pruned weights do not move. The loss that is
    returned is that at the random point. One copy of the weights.

    Args:
        rho: Length of the noise over all weights together, >= 0; 0 is `plain`. Default: 4, from this project's first trial on
            digits.
        entries: Of z: ``"signs"``, -1 or 1, or ``"normal"``. A sum of many has the same distribution. Default: signs, since 64
            of them cost one random integer; normal numbers cost a tenth of a step at BERT-base size on one core.
        seed: Decides the noise, with the number of the step.

    Raises:
        ValueError: If rho is negative or ``entries`` neither word.

    Example:
        >>> import torch
        >>> w, rule = torch.nn.Parameter(torch.zeros(100)), noise(rho=3.0)
        >>> def closure(): w.grad, loss = None, (w**2).sum() / 2; loss.backward(); return loss.detach()
        >>> _ = rule(closure, {"w": w}, 0.0)
        >>> w.grad[:3].abs()                                    # the gradient of |w|^2 / 2 is w
        tensor([0.3000, 0.3000, 0.3000])
    """
    return compose(rho, direction=Noise(entries, seed))
