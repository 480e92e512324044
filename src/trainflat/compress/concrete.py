"""The hard-concrete distribution: a number in [0, 1] that is exactly 0 or 1 often enough to prune, and has a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["CLAMP", "EPS", "HIGH", "LOW", "TEMPERATURE", "expected", "open_probability", "sample", "soft"]

LOW, HIGH = -0.1, 1.1  # the concrete number is stretched to this interval, then cut at 0 and 1
TEMPERATURE = 2 / 3
EPS = 1e-6
CLAMP = (math.log(1e-2), math.log(1e2))  # where a log-alpha may move
SOFTNESS = 0.8  # of the gates in evaluation: Wang et al. 2020, arXiv:1910.04732


def sample(log_alpha: Tensor, uniform: Tensor | None = None) -> Tensor:
    """One number in [0, 1] for each log-alpha: min(1, max(0, LOW + (HIGH - LOW) sigmoid((ln u - ln(1 - u) + log_alpha) / T))).

    Louizos et al. 2018, eq. (10)-(11), arXiv:1712.01312, with u ~ U(eps, 1 - eps) and the temperature inside as in CoFi (Xia
    et al. 2022, arXiv:2204.00408): T = 2/3, interval (-0.1, 1.1), eps = 1e-6, all theirs.

    Args:
        uniform: u, of log_alpha's shape; default: drawn from the global random stream of log_alpha's device.

    Example:
        >>> sample(torch.tensor([0.0, -9.0, 9.0]), torch.tensor([0.5, 0.5, 0.5]))     # the middle; shut; open
        tensor([0.5000, 0.0000, 1.0000])
    """
    if uniform is None:
        uniform = torch.empty_like(log_alpha).uniform_(EPS, 1 - EPS)
    concrete = torch.sigmoid((torch.logit(uniform) + log_alpha) / TEMPERATURE)
    return (LOW + (HIGH - LOW) * concrete).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z > 0) = 1 - sigmoid(T ln(-LOW / HIGH) - log_alpha), the share of samples that prune nothing.

    Louizos et al. 2018, eq. (12). The probability of a zero is kept in [eps, 1 - eps], as in CoFi.

    Example:
        >>> open_probability(torch.tensor([0.0, 4.6]))
        tensor([0.8318, 0.9980])
    """
    return 1 - torch.sigmoid(TEMPERATURE * math.log(-LOW / HIGH) - log_alpha).clamp(EPS, 1 - EPS)


def soft(log_alpha: Tensor) -> Tensor:
    """How far a gate is open in evaluation if it is not shut: sigmoid(0.8 log_alpha / T), as in CoFi."""
    return torch.sigmoid(log_alpha * (SOFTNESS / TEMPERATURE))


def expected(log_alpha: Tensor, *, least: int = 0) -> Tensor:
    """The gates of one group (the last axis) in evaluation: `soft`, with as many zeros as a sample has on average.

    round(n - sum P(z > 0)) of the smallest are set to 0, ties broken by position; half rounds to even, as in CoFi; but
    ``least`` of them stay open. No number leaves the device.

    Example:
        >>> expected(torch.tensor([2.0, -2.0, 0.0, -3.0]))          # 4 - (0.97 + 0.40 + 0.83 + 0.20) = 1.6, so two are shut
        tensor([0.9168, 0.0000, 0.5000, 0.0000])
    """
    size = log_alpha.shape[-1]
    zeros = torch.round(size - open_probability(log_alpha).sum(-1, keepdim=True)).clamp(max=size - least)
    rank = log_alpha.argsort(dim=-1, stable=True).argsort(dim=-1)
    return torch.where(rank >= zeros, soft(log_alpha), 0.0)
