"""8-bit layers as what they are: integers and their grid, counted, written without pickle, and read back to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float64, Int8, Shaped
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as QuantizedLinear
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from trainflat.compress.linears import put, repeated
from trainflat.compress.quantize import dynamic_int8, silent
from trainflat.compress.static_linear import StaticLinear
from trainflat.train.files import read, write

__all__ = [
    "QuantizedLinear",
    "check_same",
    "engine",
    "granularity",
    "load_int8",
    "plain_tensors",
    "quantized",
    "save_int8",
]


def engine() -> str:
    """The kernels that run int8 here: x86, fbgemm, onednn or qnnpack. Rounding differs, so a result names them."""
    return torch.backends.quantized.engine


def quantized(model: nn.Module) -> dict[str, QuantizedLinear]:
    """The 8-bit linear layers of a model by name; empty for a model that was not quantized."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Everything the model needs on disk as ordinary tensors, so that it can be written without pickle.

    A quantized layer gives its int8 ``weight``, float32 ``bias``, and the grid as ``weight.scale`` (float64, exact) and
    ``weight.zero_point`` (int8): one number each, or one for each output row; a static one the grid of what goes into it
    besides, ``input.scale`` and ``input.zero_point`` (uint8). What is not quantized, and what a weight-only layer stores, is
    there under its state-dict name; a tensor that wraps others, as torchao's packed weights do, as these: ``weight.qdata``. A
    tensor with two names (tied weights) is there once.

    Example:
        >>> small = dynamic_int8(nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)))
        >>> {name: tuple(tensor.shape) for name, tensor in plain_tensors(small).items() if name.startswith("0")}
        {'0.weight': (2, 4), '0.weight.scale': (2,), '0.weight.zero_point': (2,), '0.bias': (2,)}
    """
    layers = quantized(model)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        weight, bias = layer.weight(), layer.bias()
        at = f"{name}." if name else ""
        tensors[f"{at}weight"] = weight.int_repr()
        scale, zero_point = _grid(weight)
        tensors[f"{at}weight.scale"], tensors[f"{at}weight.zero_point"] = scale, zero_point
        if isinstance(layer, StaticLinear):
            tensors[f"{at}input.scale"] = torch.tensor(layer.input_scale, dtype=torch.float64)
            tensors[f"{at}input.zero_point"] = torch.tensor(layer.input_zero_point, dtype=torch.uint8)
        if bias is not None:
            tensors[f"{at}bias"] = bias.detach()
    places = model.named_modules(remove_duplicate=False)  # a layer may stand in several
    inside = tuple(f"{name}." if name else "" for name, module in places if isinstance(module, QuantizedLinear))
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.startswith(inside) and id(tensor) not in seen:
            seen.add(id(tensor))
            tensors |= dict(_unwrapped(name, tensor.detach()))
    return tensors


def _unwrapped(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    for inner in tensor.__tensor_flatten__()[0]:
        yield from _unwrapped(f"{name}.{inner}", getattr(tensor, inner))


def save_int8(path: Path, model: nn.Module) -> None:
    """An 8-bit model as one safetensors file: `plain_tensors`, and which granularity and engine it was made for.

    Raises:
        ValueError: If the model has no quantized layer.
    """
    found = granularity(model)
    if found is None:
        raise ValueError("this model is not quantized; use dynamic_int8 first, or train.save_weights for a float model")
    write(path, plain_tensors(model), {"int8": found, "engine": engine()})


def granularity(model: nn.Module) -> str | None:
    """``"per_channel"`` or ``"per_tensor"`` for an 8-bit model, None for another.

    >>> granularity(dynamic_int8(nn.Linear(4, 2))), granularity(nn.Linear(4, 2))
    ('per_channel', None)
    """
    layers = quantized(model).values()
    if not layers:
        return None
    return "per_channel" if any(x.weight().qscheme() == torch.per_channel_affine for x in layers) else "per_tensor"


def load_int8(path: Path, model: nn.Module) -> nn.Module:
    """The quantized model that `save_int8` wrote, bit for bit, given any float model of the same architecture.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a file of `save_int8`, or of another architecture.

    Example:
        >>> import tempfile
        >>> small, x = dynamic_int8(nn.Linear(4, 2)), torch.ones(1, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_int8(Path(folder) / "small.safetensors", small)
        ...     again = load_int8(Path(folder) / "small.safetensors", nn.Linear(4, 2))
        >>> torch.equal(again(x), small(x))
        True
    """
    tensors, header = read(path)
    if header.get("int8") not in ("per_channel", "per_tensor"):
        raise ValueError(f"{path} does not hold an 8-bit model; read it with train.load_weights")
    loaded = dynamic_int8(model, granularity=header["int8"])
    for name, layer in quantized(loaded).items():
        at = f"{name}." if name else ""
        if f"{at}input.scale" in tensors and f"{at}input.zero_point" in tensors:
            grid = float(tensors[f"{at}input.scale"]), int(tensors[f"{at}input.zero_point"])
            loaded = put(loaded, name, StaticLinear.of(layer, *grid))
    loaded = repeated(model, loaded)
    own = plain_tensors(loaded)
    check_same(path, own, tensors)
    for name, layer in quantized(loaded).items():
        at = f"{name}." if name else ""
        layer.set_weight_bias(_regrid(tensors, at), tensors.get(f"{at}bias"))
    with torch.no_grad():
        for name, tensor in loaded.state_dict().items():
            if isinstance(tensor, Tensor) and name in own and not tensor.is_quantized:
                tensor.copy_(tensors[name])
    return loaded


def check_same(path: Path, own: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Whether the tensors of a file are those of a model, by name, type and shape.

    Raises:
        ValueError: If not.
    """
    forms = [{name: (tensor.dtype, tensor.shape) for name, tensor in of.items()} for of in (own, tensors)]
    if differ := {name for name, _ in forms[0].items() ^ forms[1].items()}:
        raise ValueError(
            f"{path} is of another architecture: {min(differ)!r} and {len(differ) - 1} more tensors differ"
        )


def _grid(weight: Shaped[Tensor, "out inp"]) -> tuple[Float64[Tensor, "*rows"], Int8[Tensor, "*rows"]]:
    """Scale (float64) and zero point (int8) of a quantized matrix: 0-d, or one for each row."""
    if weight.qscheme() == torch.per_channel_affine:
        return weight.q_per_channel_scales().double(), weight.q_per_channel_zero_points().to(torch.int8)
    return torch.tensor(weight.q_scale(), dtype=torch.float64), torch.tensor(weight.q_zero_point(), dtype=torch.int8)


def _regrid(tensors: dict[str, Tensor], at: str) -> Shaped[Tensor, "out inp"]:
    """The quantized matrix from its plain tensors: the integer q stands for s * (q - zero), which rounds to q again."""
    integers, scale, zero = (tensors[f"{at}weight{part}"] for part in ("", ".scale", ".zero_point"))
    zero = zero.to(torch.int64)
    rows = scale.unsqueeze(-1) if scale.ndim else scale
    values = (rows * (integers - (zero.unsqueeze(-1) if zero.ndim else zero))).float()
    with silent():
        if scale.ndim:
            return torch.quantize_per_channel(values, scale, zero, axis=0, dtype=torch.qint8)
        return torch.quantize_per_tensor(values, float(scale), int(zero), torch.qint8)
