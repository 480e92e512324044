"""On which grid: a quantizer maps a model to one whose weights are few-bit integers. Nothing is trained, no data is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.ao.quantization.qconfig import default_dynamic_qconfig, per_channel_dynamic_qconfig

from trainflat.compress.grids import nearest
from trainflat.compress.linears import repeated, runnable

__all__ = ["dynamic_int8"]

Granularity = Literal["per_channel", "per_tensor"]

_RECIPES = {"per_channel": per_channel_dynamic_qconfig, "per_tensor": default_dynamic_qconfig}


def dynamic_int8(model: nn.Module, *, granularity: Granularity = "per_channel") -> nn.Module:
    """A copy of the model, in evaluation mode, whose linear layers hold 8-bit integers; the model stays as it was.

    Weights: q = round(w / s) with s = max|w| / 127.5, symmetric, so a pruned weight stays exactly zero. Activations
    are put on an unsigned 8-bit grid anew for every batch, from its own minimum and maximum, in a range reduced to 7
    bits so that no processor overflows. Embeddings, norms and biases stay float32. The kernels are torch's own
    (``torch.ao.quantization.quantize_dynamic``, CPU only); `trainflat.compress.integers.engine` says which ones.

    Every module that is exactly an ``nn.Linear`` is replaced; subclasses (e.g. the output matrix of
    ``nn.MultiheadAttention``) are not, as in torch.

    Args:
        granularity: ``"per_tensor"`` has one s for a whole matrix: PyTorch's recipe for BERT, which Na et al. 2022 use.
            ``"per_channel"`` has one s for each output row and is never coarser: the default. It may narrow the gap
            between flat and sharp minima that the paper shows, so compare within one granularity.

    Raises:
        ValueError: If the granularity is neither word; the model has no ``nn.Linear``, is not on the CPU, or a linear
            weight is not float32 or not finite.
        LookupError: If this build of torch has no 8-bit engine.

    Example:
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 0.5, 1.0]]))
        >>> small = dynamic_int8(layer)
        >>> small.weight().int_repr()
        tensor([[  0,  64, 127]], dtype=torch.int8)
        >>> small(torch.tensor([[1.0, 1.0, 0.0]]))           # 64 / 127.5
        tensor([[0.5020]])
    """
    _check(granularity)
    runnable(model, "dynamic int8")
    with silent():
        # inside a Sequential the root itself can be replaced too
        small = quantize_dynamic(nn.Sequential(model), {nn.Linear: _RECIPES[granularity]}, dtype=torch.qint8)[0]
    return _unfused(repeated(model, small))  # torch replaces a layer where it stands first


def _unfused(model: nn.Module) -> nn.Module:
    """Torch's own encoder layers call their 8-bit layers, in place: the one kernel that they have otherwise takes floats."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        elif isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
    return model


def _check(granularity: str) -> None:
    if granularity not in _RECIPES:
        raise ValueError(f"granularity must be 'per_channel' or 'per_tensor', got {granularity!r}")


def _place(*, granularity: Granularity = "per_channel") -> Callable[[Tensor], Tensor]:
    """The same numbers in floats, on any device: see `trainflat.compress.fake`."""
    _check(granularity)
    if granularity == "per_channel":
        return lambda weight: nearest(weight, 8, "row")
    return lambda weight: nearest(weight.reshape(1, -1), 8, "row").reshape_as(weight)


dynamic_int8.place = _place  # pyright: ignore[reportFunctionMemberAccess]


@contextmanager
def silent() -> Iterator[None]:
    """Hides two warnings of torch around the one call that raises them: that its eager quantization, and the tensor
    type under it, will move to torchao. Both are still in torch 2.15, and still the fastest on a CPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*torch\.ao\.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", r"(?s).*quantized tensor creation functions", UserWarning)
        yield
