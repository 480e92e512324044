"""On which grid, weights alone: 8- or 4-bit integers in groups, for the memory that they save; activations stay floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from torch import Tensor, nn

from trainflat.compress.grids import Bits, Group, nearest
from trainflat.compress.grouped import GroupedLinear
from trainflat.compress.linears import linears, replaced

__all__ = ["weight_only"]


def weight_only(model: nn.Module, *, bits: Bits = 8, group_size: Group = 128) -> nn.Module:
    """A copy of the model, in evaluation mode, whose linear layers store few-bit integers; the model stays as it was.

    Each weight is q s with q of ``bits`` bits and one s for every ``group_size`` neighbours in a row, by round-to-nearest
    (`trainflat.compress.grids.quantize`): no weight moves by more than s / 2, and a pruned one stays exactly zero. No data is
    needed. The integers become floats again in every forward pass, so the model runs on any device and in any float type and is
    as exact as its weights, and takes a quarter (8 bits) or an eighth (4) of the memory. It is not faster: on a CPU it takes a
    tenth longer in 8 bits, up to twice as long in 4 where a pass is short. It is for models that do not fit; for speed on a CPU
    there is `dynamic_int8`, and on a GPU `trainflat.int8.torchao_weights`, which multiplies on the integers.

    Every module that is exactly an ``nn.Linear`` is replaced. Embeddings, norms and biases stay floats.

    Args:
        bits: 8, or 4 with two weights in a byte.
        group_size: Inputs that share a scale, at least 2, or ``"row"`` for all that one output has; the last group of a row
            may be shorter. Scales are float32: at 128 they add a quarter of a bit to each weight. Default: 128, as torchao
            for 4 bits; Frantar et al. 2022 (GPTQ, arXiv:2210.17323) group as well.

    Raises:
        ValueError: If bits or group_size is another, the model has no ``nn.Linear``, or a weight is not finite.

    Example:
        >>> import torch
        >>> layer = nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 1.5, 0.1, -0.1]]))
        >>> small = weight_only(layer, bits=4, group_size=2)       # 1.5 is 7.5 steps of 0.2, and nearest 8 is no integer here
        >>> small.whole(), small.scale
        (tensor([[ 0,  7,  7, -8]], dtype=torch.int8), tensor([[0.2000, 0.0133]]))
    """
    _check(bits, group_size)
    linears(model)
    return replaced(model, lambda name, layer: GroupedLinear.of(layer, bits, group_size))


def _check(bits: int, group_size: Group) -> None:
    if bits not in get_args(Bits):
        raise ValueError(f"bits must be 8 or 4, got {bits!r}")
    if group_size != "row" and not (type(group_size) is int and group_size >= 2):
        raise ValueError(
            f'group_size counts the inputs that share a scale, at least 2, or is "row"; got {group_size!r}'
        )


def _place(*, bits: Bits = 8, group_size: Group = 128) -> Callable[[Tensor], Tensor]:
    """The same numbers in floats: see `trainflat.compress.fake`."""
    _check(bits, group_size)
    return lambda weight: nearest(weight, bits, group_size)


weight_only.place = _place  # pyright: ignore[reportFunctionMemberAccess]
