"""On which grid, activations included: 8-bit integers whose grids are all fixed beforehand, from a few batches of data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from trainflat.compress.fake import Place, place
from trainflat.compress.integers import quantized
from trainflat.compress.linears import put, repeated, runnable
from trainflat.compress.quantize import Granularity, dynamic_int8
from trainflat.compress.ranges import ranges
from trainflat.compress.static_linear import StaticLinear
from trainflat.types import Batch

__all__ = ["static_int8"]

ENGINES = ("x86", "fbgemm")


def static_int8(
    model: nn.Module,
    batches: Iterable[Batch] | None = None,
    *,
    granularity: Granularity = "per_channel",
    coverage: float = 1.0,
    calibrate: int = 8,
) -> nn.Module:
    """`dynamic_int8` with the activations' grids fixed beforehand: what they are is looked up in batches of data.

    Weights are those of `dynamic_int8`, integer for integer. What goes into a layer is stored as round(x / s) + z, with one
    s and z for the layer, from the smallest and largest activation that the batches show; zero lies on the grid. No batch has
    to be searched for its range at run time, an answer does not depend on what else is in the batch, and one short text is
    answered about a tenth faster; many at once are not. In exchange, an input unlike the batches is clipped.

    Layers that no batch reaches stay as `dynamic_int8` makes them. CPU only, on FBGEMM's kernels (x86).

    Args:
        batches: Pairs ``(inputs, labels)``, labels unused, such as ``task.batches(seed=0)``; may be endless. In a recipe the
            stage gives the task's training batches, in the order of its seed.
        granularity: Of the weights, as in `dynamic_int8`.
        coverage: Share of a layer's activations that every batch has within the range, in (0.9, 1]; below 1 the outermost are
            clipped, evenly at both ends, which makes the steps finer (Wu et al. 2020, arXiv:2004.09602, calibrate by such
            percentiles, of absolute values). Default: 1, all of them.
        calibrate: How many batches are looked at. Default: 8. For MiniLM on SST-2 and MRPC, in batches of 32, one is slightly
            worse, and 4, 8 and 16 are alike.

    Raises:
        ValueError: As `dynamic_int8`; if there are no batches, an activation is not finite, or coverage or calibrate is out of
            range.
        LookupError: If this processor has other kernels.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, 1.0]]))
        >>> small = static_int8(layer, [(torch.tensor([[-1.0, 126.0]]), None)])
        >>> small.input_scale, small.input_zero_point
        (1.0, 1)
        >>> small(torch.tensor([[1.0, 0.4]]))                # 1 and 0 steps of 1, and 0.5 is stored as 64 / 127.5
        tensor([[0.5020]])
    """
    if batches is None:
        raise ValueError("static int8 looks its activations up in data: give it batches, such as task.batches(seed=0)")
    if not 0.9 < coverage <= 1:
        raise ValueError(f"coverage is the share of activations within the range, in (0.9, 1], got {coverage}")
    if calibrate < 1:
        raise ValueError(f"calibrate counts batches and must be at least 1, got {calibrate}")
    layers = runnable(model, "static int8")
    if torch.backends.quantized.engine not in ENGINES:
        raise LookupError(
            f"static int8 has kernels for the engines {' and '.join(ENGINES)}, and this is "
            f"{torch.backends.quantized.engine}; use dynamic_int8"
        )
    found = ranges(model, layers, batches, calibrate, coverage)
    small = dynamic_int8(model, granularity=granularity)
    for name, layer in quantized(small).items():
        if name in found:
            small = put(small, name, StaticLinear.of(layer, *found[name].grid))
    return repeated(model, small)


def _place(*, granularity: Granularity = "per_channel", coverage: float = 1.0, calibrate: int = 8) -> Place:
    """The weights of `dynamic_int8`; activations stay as they are: see `trainflat.compress.fake`."""
    return place(dynamic_int8, granularity=granularity)


static_int8.place = _place  # pyright: ignore[reportFunctionMemberAccess]
