"""A quantized model of any kind as one safetensors file, without pickle, and back to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainflat.compress.grouped import GroupedLinear
from trainflat.compress.integers import check_same, granularity, load_int8, plain_tensors, quantized, save_int8
from trainflat.compress.static_linear import StaticLinear
from trainflat.compress.weight_only import weight_only
from trainflat.train.files import read, write

__all__ = ["grid", "load_quantized", "save_quantized"]


def grid(model: nn.Module) -> dict[str, Any] | None:
    """Which quantizer made a model, and with what; None if none did.

    >>> from trainflat.compress import dynamic_int8
    >>> grid(dynamic_int8(nn.Linear(4, 2))), grid(nn.Linear(4, 2))
    ({'name': 'dynamic_int8', 'granularity': 'per_channel'}, None)
    """
    for layer in model.modules():
        if isinstance(layer, GroupedLinear):
            return {"name": "weight_only", "bits": layer.bits, "group_size": layer.group}
    static = any(isinstance(layer, StaticLinear) for layer in quantized(model).values())
    found = granularity(model)
    return {"name": "static_int8" if static else "dynamic_int8", "granularity": found} if found else None


def save_quantized(path: Path, model: nn.Module) -> None:
    """Any quantized model as one safetensors file; what `dynamic_int8` and `static_int8` made as `save_int8` writes it.

    Raises:
        ValueError: If the model has no quantized layer.
    """
    found = grid(model)
    if found is None or found["name"] != "weight_only":
        save_int8(path, model)
        return
    tensors = {name: tensor.cpu() for name, tensor in plain_tensors(model).items()}
    write(path, tensors, {"weight_only": {key: found[key] for key in ("bits", "group_size")}})


def load_quantized(path: Path, model: nn.Module) -> nn.Module:
    """What `save_quantized` wrote, bit for bit, given any float model of the same architecture, whose device it goes to.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a file of `save_quantized`, or of another architecture.

    Example:
        >>> import tempfile
        >>> small, x = weight_only(nn.Linear(4, 2), bits=4), torch.ones(1, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_quantized(Path(folder) / "small.safetensors", small)
        ...     again = load_quantized(Path(folder) / "small.safetensors", nn.Linear(4, 2))
        >>> torch.equal(again(x), small(x))
        True
    """
    tensors, header = read(path)
    said = header.get("weight_only")
    if said is None:
        return load_int8(path, model)
    loaded = weight_only(model, **said)
    own = plain_tensors(loaded)
    check_same(path, own, tensors)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return loaded
