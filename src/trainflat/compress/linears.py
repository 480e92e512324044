"""The layers that a grid is for: every module that is exactly ``nn.Linear``, found, checked and replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

__all__ = ["linears", "put", "repeated", "replaced", "runnable"]


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name; as in torch not those of a subclass, such as the output matrix of ``nn.MultiheadAttention``.

    Raises:
        ValueError: If there is none, one holds NaN or infinity, or the weight of one is computed by a parametrization or a hook.

    Example:
        >>> list(linears(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))))
        ['0', '2']
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and is_parametrized(module, "weight"):
            raise ValueError(
                f"the weight of {name!r} is made anew in every pass by a parametrization, such as weight_norm, and is none that "
                "could be stored: first torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
    layers: dict[str, nn.Linear] = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    for name, layer in layers.items():
        if "weight" not in layer._parameters:
            raise ValueError(
                f"the weight of {name!r} is made anew in every pass by a hook of torch.nn.utils, and none that could be stored: "
                "first remove_weight_norm(layer), remove_spectral_norm(layer) or prune.remove(layer, 'weight') of that module"
            )
    if not layers:
        raise ValueError(f"there is nothing to quantize: {type(model).__name__} has no nn.Linear layer")
    for name, layer in layers.items():
        if not layer.weight.is_meta and not bool(torch.isfinite(layer.weight).all()):
            raise ValueError(
                f"the weight of {name!r} holds NaN or infinity, which no grid can represent; did the training diverge?"
            )
    return layers


def runnable(model: nn.Module, what: str) -> dict[str, nn.Linear]:
    """The linear layers, if torch's 8-bit kernels can run them here.

    Raises:
        ValueError: As `linears`, or if a weight is not on the CPU or not float32.
        LookupError: If this build of torch has no 8-bit engine.
    """
    if torch.backends.quantized.engine == "none":
        raise LookupError("this build of torch has no 8-bit kernels for this processor; install an official CPU wheel")
    layers = linears(model)
    for name, layer in layers.items():
        weight, at = layer.weight, f"the weight of {name!r}"
        if weight.device.type != "cpu":
            raise ValueError(f"{what} runs on the CPU only and {at} is on {weight.device}; use .cpu() first")
        if weight.dtype != torch.float32:
            raise ValueError(f"{at} is {weight.dtype}; {what} starts from float32: use .float() first")
    return layers


def replaced(model: nn.Module, make: Callable[[str, nn.Linear], nn.Module]) -> nn.Module:
    """A copy of the model in evaluation mode with ``make(name, layer)`` in place of every linear layer.

    The model itself may be one. A layer that stands in two places is made once and stands in both again.
    """
    small = copy.deepcopy(model).eval()
    made: dict[int, nn.Module] = {}
    for name, module in list(small.named_modules(remove_duplicate=False)):
        if type(module) is not nn.Linear:
            continue
        if id(module) not in made:
            made[id(module)] = make(name, module).eval()
        small = put(small, name, made[id(module)])
    return small


def repeated(model: nn.Module, small: nn.Module) -> nn.Module:
    """The small model, with each linear layer that stands in several places of the model in all of them again, in place."""
    first: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) is nn.Linear and first.setdefault(id(module), name) != name:
            small = put(small, name, small.get_submodule(first[id(module)]))
    return small


def put(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The model with the module where ``name`` says, in place; the module itself if the name is empty."""
    if not name:
        return module
    at, _, key = name.rpartition(".")
    setattr(model.get_submodule(at), key, module)
    return model
