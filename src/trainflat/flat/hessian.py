"""Curvature at the weights: the Hessian's largest eigenvalue, its spectrum, each with residuals, and its trace with its error.

All need only products H v (`Loss.hessian_times`); the matrix itself is never there. Of a loss with a mask they are those of
the Hessian between live coordinates, as they are while a mask is on the model. An 8-bit model has no derivatives: measure one
with its weights as floats on the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from trainflat.flat.choices import check_count
from trainflat.flat.losses import Loss, check_loss, dot, norm
from trainflat.train.seeds import derive

__all__ = ["Eigenvalue", "Spectrum", "Trace", "spectrum", "top_eigenvalue", "trace"]


class Eigenvalue(NamedTuple):
    """The value l, its residual |H v - l v| / |l| for the unit vector v that was found, and the steps that it took.

    Some eigenvalue is within residual * |l| of the value (the Hessian is symmetric); without a residual it would be a guess.
    """

    value: float
    residual: float
    iterations: int


class Spectrum(NamedTuple):
    """Values in ascending order, each with its residual |H v - l v| for a unit vector v, and its weight; the weights sum to 1.

    Some eigenvalue is within the residual of each value. A value's weight is the share of the spectrum near it: sum_i w_i f(l_i)
    estimates tr f(H) / n, for n live weights.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    weights: tuple[float, ...]


class Trace(NamedTuple):
    """The estimate, its standard error, and how many probes made it."""

    value: float
    error: float
    probes: int


def top_eigenvalue(loss: Loss, *, tolerance: float = 1e-2, max_iterations: int = 30, seed: int = 0) -> Eigenvalue:
    """The Hessian's largest eigenvalue (the algebraically largest: how sharply the loss can bend *upwards*).

    Lanczos 1950 with full reorthogonalisation, from a random start: the top of a tridiagonal matrix, until its own estimate
    of the residual is below the tolerance. Then one product more gives the value v'Hv and the true residual of the vector
    itself. Memory: a vector of the weights' size for each iteration, and four.

    Args:
        loss: Over the data that the Hessian is of.
        tolerance: Relative residual at which to stop, > 0. Default: 1e-2, which needs some ten products for a BERT.
        max_iterations: Stop here in any case; the residual says how good it is then. Default: 30.
        seed: Of the start.

    Raises:
        TypeError: If ``loss`` is no `Loss`, or a count no whole number.
        ValueError: If an argument is out of range.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> scales = torch.tensor([1.0, 3.0])
        >>> f = Loss(model, lambda model, batch: (scales * model.weight**2).sum() / 2, [(None, torch.zeros(1))])
        >>> value, residual, iterations = top_eigenvalue(f)
        >>> round(value, 4), residual < 1e-2, iterations
        (3.0, True, 2)
    """
    check_loss(loss)
    check_count("max_iterations", max_iterations, "products with the Hessian")
    if tolerance <= 0 or max_iterations < 1:
        raise ValueError(
            f"tolerance must be above 0 and max_iterations at least 1, got {tolerance} and {max_iterations}"
        )

    def enough(diagonal: list[float], beside: list[float]) -> bool:
        values, vectors = _solved(diagonal, beside)
        return beside[-1] * abs(vectors[-1, -1]) <= tolerance * abs(values[-1])

    basis, diagonal, beside = _lanczos(loss, seed, max_iterations, enough)
    shares = _solved(diagonal, beside)[1][:, -1]
    vector = torch.zeros_like(basis[0])
    for share, q in zip(shares, basis, strict=True):
        vector.add_(q, alpha=float(share))
    vector.div_(norm(vector))
    product = loss.hessian_times(vector)
    value = dot(vector, product)
    rest = norm(product.add_(vector, alpha=-value))
    residual = rest / abs(value) if value else math.inf if rest else 0.0
    return Eigenvalue(value, residual, len(basis))


def spectrum(loss: Loss, *, iterations: int = 30, seed: int = 0) -> Spectrum:
    """The Hessian's spectrum as Lanczos sees it from one random start: both ends, and how much lies where between them.

    Values and vectors of the tridiagonal matrix T of `top_eigenvalue` (Lanczos 1950, with full reorthogonalisation): a value l
    of T with the unit vector s has the residual beta |s_m|, m the last of its entries, and the weight s_1^2. Ten times the
    rounding of the largest value is added to each residual. The ends come first, and the weights are those of stochastic Lanczos
    quadrature (Golub & Welsch 1969; Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159, for networks), of one draw. Memory: a
    vector of the weights' size for each iteration, and two.

    Args:
        loss: Over the data that the Hessian is of.
        iterations: Values, each one product; fewer if the Hessian has fewer different ones. Default: 30.
        seed: Of the start.

    Raises:
        TypeError: If ``loss`` is no `Loss`, or a count no whole number.
        ValueError: If iterations is below 1.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> scales = torch.tensor([1.0, 3.0])
        >>> f = Loss(model, lambda model, batch: (scales * model.weight**2).sum() / 2, [(None, torch.zeros(1))])
        >>> found = spectrum(f)
        >>> [round(value, 4) for value in found.values], max(found.residuals) < 1e-4
        ([1.0, 3.0], True)
    """
    check_loss(loss)
    check_count("iterations", iterations, "products with the Hessian")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    _, diagonal, beside = _lanczos(loss, seed, iterations, lambda diagonal, beside: False)
    values, vectors = _solved(diagonal, beside)
    residuals = beside[-1] * np.abs(vectors[-1]) + _rounding(loss) * np.abs(values).max()
    return Spectrum(*(tuple(map(float, of)) for of in (values, residuals, vectors[0] ** 2)))


def trace(loss: Loss, *, probes: int = 30, seed: int = 0) -> Trace:
    """The sum of the Hessian's eigenvalues by Hutchinson's estimate: the mean of v'Hv over random signs v, with its error.

    Hutchinson 1990. The standard error is s / sqrt(probes), s the sample standard deviation of the v'Hv. Exact with one probe
    for a diagonal Hessian.

    Args:
        loss: Over the data that the Hessian is of.
        probes: Random vectors, each one product; >= 2, for there to be an error. Default: 30.
        seed: Of the probes.

    Raises:
        TypeError: If ``loss`` is no `Loss`, or a count no whole number.
        ValueError: If there are fewer than two probes.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> scales = torch.tensor([1.0, 3.0])
        >>> f = Loss(model, lambda model, batch: (scales * model.weight**2).sum() / 2, [(None, torch.zeros(1))])
        >>> trace(f, probes=2)
        Trace(value=4.0, error=0.0, probes=2)
    """
    check_loss(loss)
    check_count("probes", probes, "products with the Hessian")
    if probes < 2:
        raise ValueError(f"probes must be at least 2, or the estimate has no error; got {probes}")
    generator = torch.Generator().manual_seed(derive("hutchinson", seed))
    found = []
    for _ in range(int(probes)):
        signs = torch.randint(0, 2, (loss.size,), dtype=torch.int8, generator=generator)
        probe = loss.freeze(signs.mul_(2).sub_(1).to(loss.device, loss.dtype))
        found.append(dot(probe, loss.hessian_times(probe)))
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1)) / math.sqrt(probes), probes)


def _lanczos(
    loss: Loss, seed: int, most: int, enough: Callable[[list[float], list[float]], bool]
) -> tuple[list[torch.Tensor], list[float], list[float]]:
    """The basis, and the tridiagonal matrix: its diagonal, and what is beside it with the next number, the residual's beta."""
    generator = torch.Generator().manual_seed(derive("lanczos", seed))
    start = loss.freeze(torch.randn(loss.size, generator=generator).to(loss.device, loss.dtype))
    basis: list[torch.Tensor] = [start / norm(start)]
    del start
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        u = loss.hessian_times(basis[-1])
        diagonal.append(dot(basis[-1], u))
        for _ in range(2):  # twice is enough (Parlett 1980, section 6.9)
            for q in basis:
                u.add_(q, alpha=-dot(q, u))
        beside.append(norm(u))
        largest = max(map(abs, [*diagonal, *beside[:-1]]))
        exhausted = beside[-1] <= _rounding(loss) * largest  # what is left is no direction
        if exhausted or enough(diagonal, beside) or len(basis) == min(most, loss.live):
            return basis, diagonal, beside
        basis.append(u.div_(beside[-1]))


def _rounding(loss: Loss) -> float:
    """What a product with H may be off by, as a share of its largest eigenvalue."""
    return 10 * torch.finfo(loss.dtype).eps


def _solved(diagonal: list[float], beside: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the tridiagonal matrix, ascending, and its vectors."""
    return np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
