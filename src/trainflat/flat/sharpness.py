"""How far the loss rises near the weights: in a random subspace box, as the paper measures it, and along SAM's own step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
import torch

from trainflat.flat.directions import Directions
from trainflat.flat.losses import Loss, Vector, check_loss
from trainflat.flat.metrics import Metric, l2

__all__ = ["ascent_sharpness", "sharpness"]


@torch.inference_mode(False)  # its points have to bear gradients
def sharpness(
    loss: Loss,
    *,
    eps: Sequence[float] = (5e-3, 1e-3, 5e-4),
    directions: int = 100,
    seed: int = 0,
    max_iterations: int = 10,
) -> dict[float, float]:
    """phi = 100 * (max_z f(w + A z) - f(w)) / (1 + f(w)) over the box |z_i| <= eps * (|(A^+ w)_i| + 1), for each eps.

    Keskar et al. 2017, arXiv:1609.04836, metric 2.1, as Na et al. 2022 report it in tables 3 and 4 (arXiv:2205.12694) and
    Mehta et al. 2023 compute it (arXiv:2112.09153, their code): A of 100 `Directions`, f the mean loss over the whole
    evaluation set, ten iterations of SciPy's L-BFGS-B from z = 0 with the gradient A'(df/dw). So it is the largest loss that
    was *found*, a lower bound of the maximum.

    Where we differ from that code: A is drawn again at every use; A^+ w comes from the p x p Gram matrix; and SciPy's own
    tolerances are off (a projected gradient below 1e-5, a gain below 2.2e-9): absolute numbers, at which the search would
    end where it begins if that is a minimum, however steep it is around it.

    Compare models with each other, not with the paper's tables: by this definition a MiniLM after MRPC has 0.03 at 5e-3 and
    0.003 at 5e-4 (100 held-out examples), where Na et al. print 40 and 3 for their BERT-base: a thousandth. Their code is not
    public, and that of Mehta et al., which they say theirs is based on, draws and normalises A as here.

    Of ``loss`` with a mask the frozen coordinates stay where they are (the default of our recipes; the paper does not say);
    without one all move. Peak memory beside model and data: one vector for the moved weights, one for the gradient.

    Args:
        loss: Over the held-out data, in our recipes.
        eps: Sizes of the box, > 0. Default: those of Na et al. 2022.
        directions: p, the dimension of the subspace. Default: 100, as Mehta et al.
        seed: Of A; the same for all models that are compared.
        max_iterations: Of L-BFGS-B, each of one to a few gradients. Default: 10, as Mehta et al.

    Raises:
        TypeError, ValueError: If ``loss`` is no `Loss` or its weights have 16 bits, or an argument is of the wrong kind or out
            of range.
        NonFiniteLoss: If the loss is not finite somewhere.

    Example:
        >>> w = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(w.weight, 1.0)
        >>> f = Loss(w, lambda w, batch: (w(batch[0]) ** 2).mean(), [(torch.ones(1, 1), torch.zeros(1))])
        >>> sharpness(f, eps=[0.5], directions=1)                   # A = 1: z up to 0.5 * (1 + 1), 100 * (2^2 - 1) / (1 + 1)
        {0.5: 150.0}
    """
    _check_precise(loss)
    if not isinstance(eps, Iterable) or not all(isinstance(size, Real) for size in eps):
        raise TypeError(f"eps are the sizes of the box, a list of numbers above 0, such as [0.001]; got {eps!r}")
    if not eps or min(eps) <= 0:
        raise ValueError(f"eps are the sizes of the box and must be above 0, got {list(eps)}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    from scipy.optimize import minimize  # a second of import that training does without

    a = Directions(loss.size, directions, seed=seed, alive=loss.alive, dtype=loss.dtype, device=loss.device)
    moved = loss.weights()
    reach = np.abs(a.coordinates(moved)) + 1

    def minus(z: np.ndarray) -> tuple[float, np.ndarray]:
        a.up(torch.from_numpy(z), out=moved)
        for piece, p in loss.pieces(moved):
            piece.add_(p.detach())
        with loss.at(moved):
            value, gradient = loss.gradient()
        return -value, -a.down(gradient)

    here = np.zeros(directions)
    start = minus(here)
    base, found = -start[0], {}
    for size in eps:
        highest = -minimize(
            lambda z: minus(z) if z.any() else start,  # all boxes start at the same point: once is enough
            here,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-size * r, size * r) for r in reach],
            options={"maxiter": max_iterations, "gtol": 0.0, "ftol": 0.0},
        ).fun
        found[size] = 100 * (highest - base) / (1 + base)
    return found


def ascent_sharpness(loss: Loss, *, rho: float = 0.05, metric: Metric = l2) -> float:
    """f(w + rho e) - f(w), e = g / |g|: how far the loss rises along SAM's own step, here with the gradient of the whole set.

    Foret et al. 2021, eq. (1), arXiv:2010.01412, the inner maximum to first order. What `sam` descends on, in nats or the
    loss's own unit; not divided by anything. One step and no search, so a lower bound of the maximum.

    With ``metric=flat.metrics.adaptive(0.0)`` the ball scales with each weight and e = T^2 g / |T g|, T = |w|, as `asam`'s with
    eta = 0: the same for a layer and its successor rescaled inversely, which computes the same and may have any L2
    sharpness. Kwon et al. 2021, arXiv:2102.11600; Andriushchenko et al. 2023, arXiv:2302.07011, call it adaptive worst-case
    sharpness, search the ball by Auto-PGD and look at one small batch after the other. A weight of zero does not move.

    Args:
        loss: Frozen coordinates stay.
        rho: Radius in the metric, >= 0. Default: 0.05, as Na et al. 2022 train with the L2 one; `asam`'s is 0.5.
        metric: Of `trainflat.flat.metrics`. Default: L2.

    Raises:
        TypeError, ValueError: If ``loss`` is no `Loss` or its weights have 16 bits, or rho is negative.
        NonFiniteLoss: If the loss is not finite.

    Example:
        >>> from trainflat.flat.metrics import adaptive
        >>> w = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(w.weight, 2.0)
        >>> f = Loss(w, lambda w, batch: (w(batch[0]) ** 2).mean(), [(torch.ones(1, 1), torch.zeros(1))])
        >>> ascent_sharpness(f, rho=1.0), ascent_sharpness(f, rho=1.0, metric=adaptive(0.0))    # from 2 to 3, and to 2 + 1 * 2
        (5.0, 12.0)
    """
    _check_precise(loss)
    if rho < 0:
        raise ValueError(f"rho must be at least 0, got {rho}")
    here, gradient = loss.gradient()
    with loss.at(_step(loss, gradient, rho, metric)):
        return loss.value() - here


def _check_precise(loss: Loss) -> None:
    """Refuse what would measure its own rounding: weights that do not move by so little, and a loss of three digits."""
    check_loss(loss)
    if loss.dtype.itemsize < 4:
        raise ValueError(
            f"the weights are in {str(loss.dtype).removeprefix('torch.')} and would not move by so little as is asked here; "
            "measure a copy in float32, copy.deepcopy(model).float()"
        )


def _step(loss: Loss, gradient: Vector, rho: float, metric: Metric) -> Vector:
    """w + rho e, e of length 1 in the metric; a gradient of zero moves nothing."""
    room = torch.empty_like(gradient)
    weights = [p.detach() for p in loss.params.values()]
    ascent, length = metric(weights, *([piece for piece, _ in loss.pieces(of)] for of in (gradient, room)))
    scale = rho / float(length) if length else 0.0
    for out, e, w in zip(loss.pieces(room), ascent, weights, strict=True):
        torch.add(w, e, alpha=scale, out=out[0])
    return room
