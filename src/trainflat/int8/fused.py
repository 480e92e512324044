"""Weights alone in 8 or 4 bits through torchao: packed in memory, multiplied by kernels that read the integers."""

from __future__ import annotations

import copy
import importlib
from typing import Literal

import torch
from torch import nn

from trainflat.int8 import by_torchao

__all__ = ["torchao_weights"]


def torchao_weights(model: nn.Module, *, bits: Literal[8, 4] = 8, group_size: int = 128) -> nn.Module:
    """A copy in evaluation mode whose linear layers keep their weights in few bits, packed as torchao's kernels want them.

    In 8 bits each weight is q s with one s for every output row, s = max|w| / 127.5 (that of `trainflat.compress.weight_only`
    is max|w| / 127). In 4 bits ``group_size`` inputs share a scale and a zero point; the layout is that of torch's own kernels,
    ``tile_packed_to_4d``, which want CUDA and bfloat16 (torchao's default one wants another package). Activations stay floats,
    so a pass is faster only where reading the weights is what takes the time: a large model and a small batch.

    torchao's packed weights live in memory only. What is to be kept is the model in floats, packed again where it serves;
    `trainflat.compress.weight_only` can be kept as it is, needs no torchao and runs on any device, and is not faster.

    Args:
        model: Where it shall run, in the float type in which it shall compute; stays as it is.
        bits: 8, or 4.
        group_size: With 4 bits, the inputs that share a scale. Default: 128, torchao's.

    Raises:
        ImportError: If torchao is not installed.
        ValueError: If bits is another.
        RuntimeError: If torchao has no such kernel for this device and float type.
    """
    if bits not in (8, 4):
        raise ValueError(f"bits must be 8 or 4, got {bits!r}")
    if (why := by_torchao.missing()) is not None:
        raise ImportError(
            f"weights in {bits} bits through torchao: {why}; trainflat.compress.weight_only needs no torchao"
        )
    with by_torchao.silent():
        made = importlib.import_module("torchao.quantization")
        small = copy.deepcopy(model).eval()
        try:
            few = {"group_size": group_size, "int4_packing_format": "tile_packed_to_4d"}
            how = made.Int8WeightOnlyConfig() if bits == 8 else made.Int4WeightOnlyConfig(**few)
            made.quantize_(small, how)
        except Exception as error:  # each kernel says in its own way what it lacks
            first = next(model.parameters())
            raise RuntimeError(
                f"torchao has no kernel for {bits}-bit weights of {first.dtype} on {first.device.type} here: "
                f"{' '.join(str(error).split())[:120]}; trainflat.compress.weight_only runs on any device"
            ) from error
    return small


def check(bits: Literal[8, 4], device: str, dtype: torch.dtype) -> None:
    """Whether torchao has a kernel for these bits there, tried on one layer.

    Raises:
        ImportError, RuntimeError: As `torchao_weights`.
    """
    torchao_weights(nn.Linear(256, 256).to(device, dtype), bits=bits)
