"""Second derivatives that are there and right: what torch's fast kernels lack of them, or get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from trainflat.train.compiled import uncompiled

__all__ = ["twice_differentiable"]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """While open, forward passes are made of operations that can be differentiated twice.

    Attention runs on torch's plain kernels and a compiled model as it was before, since the fused ones have no second
    derivative. That of weight normalisation's kernel is wrong on a CPU (torch 2.13: its ``gradgradcheck`` fails), so it is
    computed as it is defined.
    """
    with uncompiled(), sdpa_kernel(SDPBackend.MATH), _PlainWeightNorm():
        yield


class _PlainWeightNorm(TorchFunctionMode):
    """v g / |v| as three operations wherever a model normalises a weight, by `torch.nn.utils` of either kind."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _weight_norm if func is torch._weight_norm else func
        return found(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))
