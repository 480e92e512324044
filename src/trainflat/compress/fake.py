"""Train behind a grid: the model computes with the weights that its quantizer would store, and learns the ones behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trainflat.compress.linears import linears
from trainflat.train.compiled import unfused
from trainflat.types import Quantizer

__all__ = ["Place", "place", "quantize_aware"]

Place = Callable[[Float[Tensor, "out inp"]], Float[Tensor, "out inp"]]
"""Where weights land: a matrix to the one that its integers stand for."""


@contextmanager
def quantize_aware(model: nn.Module, quantizer: Quantizer, **options: Any) -> Iterator[nn.Module]:
    """While open, every linear layer multiplies by Q(w) instead of w, and w gets the gradient that Q(w) has::

        y = x Q(w)' + b,    dL/dw := dL/dq at q = Q(w)

    The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432) on simulated quantization of the weights
    (Jacob et al. 2018, arXiv:1712.05877, section 3). Q(w) are the very numbers that ``quantizer(model)`` stores, bit for bit, of
    the weights as they are in that pass. Activations stay floats. Nothing is clipped, since no weight is beyond its own grid, and
    scales are looked up anew, not learnt.

    Like a mask, it wraps nothing and keeps the names of parameters and state dict. It composes with whatever calls forward and
    backward: under `trainflat.flat.sam` both gradients are taken at quantized weights, Q(w) and Q(w + e). Evaluating inside
    scores the quantized weights; afterwards the model computes with w again, and ``quantizer(model)`` makes the small one. A copy
    of the model that is made inside is behind the same grid for as long; of two grids, one within the other, the inner one holds.

    Args:
        quantizer: `dynamic_int8`, `static_int8` (whose weights are the same) or `weight_only`; or one of yours that has
            ``place(**options)``, which returns the function from a weight to where it lands.
        options: The quantizer's.

    Raises:
        TypeError: If the quantizer does not say where weights land.
        ValueError: If an option is none of the quantizer's values, the model has no ``nn.Linear``, or one holds NaN or infinity.

    Example:
        >>> from trainflat.compress import weight_only
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[15.0, 5.0]]))          # steps of 2: the first to 7, the second to 2
        >>> with quantize_aware(layer, weight_only, bits=4):
        ...     y = layer(torch.tensor([[1.0, 1.0]]))
        >>> y.square().sum().backward()
        >>> y.item(), layer.weight.grad                                       # 14 + 4, and 2 y x
        (18.0, tensor([[36., 36.]]))
    """
    landed = place(quantizer, **options)
    layers = list(linears(model).values())
    before = [vars(layer).get("forward") for layer in layers]

    def forward(layer: nn.Linear, input: Tensor) -> Tensor:
        weight = _Through.apply(layer.weight, landed) if layers else layer.weight  # a copy may outlive the grid
        return functional.linear(input, weight, layer.bias)

    for layer in layers:
        layer.forward = MethodType(forward, layer)  # of a copy deepcopy makes it the copy's own
    try:
        with unfused():
            yield model
    finally:
        while layers:
            layer, was = layers.pop(), before.pop()
            del layer.forward  # the class's own is there again,
            if was is not None:  # or that of another grid around this one
                layer.forward = was


def place(quantizer: Quantizer, **options: Any) -> Place:
    """The quantizer's function from a weight to where it lands.

    Raises:
        TypeError, ValueError: As `quantize_aware`.
    """
    found = getattr(quantizer, "place", None)
    if found is None:
        name = getattr(quantizer, "__name__", repr(quantizer))
        raise TypeError(
            f"{name} does not say where weights land, so nothing can be trained for it; give it {name}.place(**options), "
            f"which returns a function from a weight to the one that is stored"
        )
    return found(**options)


class _Through(torch.autograd.Function):
    """Forward where the weights land, backward as if they were there already."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, landed: Place) -> Tensor:
        return landed(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
