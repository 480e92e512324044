"""A model's weights and buffers: copied, put back bit for bit, written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trainflat.train.files import read, write

__all__ = ["load_weights", "restore", "save_weights", "snapshot", "upheld", "uphold"]

_UPHELD: WeakKeyDictionary[nn.Module, list[Callable[[nn.Module], None]]] = WeakKeyDictionary()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers, on the CPU if the model is there, else on its device.

    Raises:
        TypeError: If the model keeps something else than tensors, as one in int8 does.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> start = snapshot(model)
        >>> _ = nn.init.zeros_(model.weight)
        >>> restore(model, start)
        >>> torch.equal(model.weight, start["weight"])
        True
    """
    return {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a `snapshot` back into the model, bit for bit; the parameters stay the same objects.

    While a mask is on the model, what it has pruned is zero again afterwards.

    Raises:
        TypeError: As `snapshot`.
        ValueError: If a name or shape differs, or the state is the model's own memory; the model is then unchanged.
    """
    own = _tensors(model)
    if missing := sorted(own.keys() ^ state.keys()):
        raise ValueError(
            f"this state is of another model: {missing[0]!r} and {len(missing) - 1} more are in only one of the two"
        )
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} in the model, {tuple(state[name].shape)} in the state"
            )
    if own and all(tensor.data_ptr() == state[name].data_ptr() for name, tensor in own.items()):
        raise ValueError(
            "this state is the model's own memory, which changes as the model does (state_dict() gives that): keep a copy, "
            "train.snapshot(model)"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
    uphold(model)


def uphold(model: nn.Module) -> None:
    """Make true of weights that were written what has to be true of them: see `upheld`."""
    for again in _UPHELD.get(model, ()):
        again(model)


@contextmanager
def upheld(model: nn.Module, again: Callable[[nn.Module], None]) -> Iterator[None]:
    """While open, `uphold` calls ``again(model)``, which makes true of the weights what has to be, such as their zeros.

    It is noted here and not in the model, so that a copy of the model is free of it.
    """
    _UPHELD.setdefault(model, []).append(again)
    try:
        yield
    finally:
        _UPHELD[model].remove(again)


def save_weights(path: Path, model: nn.Module, **header: Any) -> None:
    """The model's weights and buffers as safetensors; tied weights are written once for each name."""
    write(path, snapshot(model), header)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load what `save_weights` wrote into a model of the same shape; returns the header."""
    tensors, header = read(path)
    restore(model, tensors)
    return header


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    own = model.state_dict()
    for name, value in own.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"this {type(model).__name__} keeps a {type(value).__name__} at {name!r}, where a tensor belongs; one in int8 is "
                f"saved by compress.save_quantized and copied by copy.deepcopy"
            )
    return own
