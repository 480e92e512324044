"""Saving and resuming exactly: weights, optimizer, rule, random streams and position in one safetensors file."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = [
    "load_state",
    "load_weights",
    "put_together",
    "read",
    "restore",
    "save_state",
    "save_weights",
    "snapshot",
    "take_apart",
    "upheld",
    "write",
]

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
    for again in _UPHELD.get(model, ()):
        again(model)


@contextmanager
def upheld(model: nn.Module, again: Callable[[nn.Module], None]) -> Iterator[None]:
    """While open, `restore` ends with ``again(model)``, which makes true of the weights what has to be, such as their zeros.

    It is noted here and not in the model, so that a copy of the model is free of it.
    """
    _UPHELD.setdefault(model, []).append(again)
    try:
        yield
    finally:
        _UPHELD[model].remove(again)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    own = model.state_dict()
    for name, value in own.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"this {type(model).__name__} keeps a {type(value).__name__} at {name!r}, where a tensor belongs; one in int8 is "
                f"saved by compress.save_quantized and copied by copy.deepcopy"
            )
    return own


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Tensors and a JSON header as one safetensors file that is there whole or not at all (written aside, synced, renamed).

    Raises:
        TypeError: If JSON does not hold what is in the header; nothing is written then.
        OSError: If it cannot be written.
    """
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    metadata = {"trainflat": json.dumps(header, default=_no_json)}
    try:
        aside.unlink(missing_ok=True)
        aside.touch()
        mode = aside.stat().st_mode & 0o777  # what the umask gives; safetensors' own file is for its owner alone
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside, metadata)
        aside.chmod(mode)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except SafetensorError as error:  # safetensors reports a full disk or a missing folder as its own error
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _no_json(value: Any) -> None:
    raise TypeError(
        f"{value!r} is a {type(value).__name__}, and beside the tensors only what JSON has is kept: numbers, texts, lists and "
        "dicts of Python's own; of a NumPy number or array, or a tensor, take .tolist()"
    )


def read(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote: the tensors and the header.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole safetensors file with a header of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {})["trainflat"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or was not written by trainflat ({error}); delete it to compute it again"
        ) from error


def save_weights(path: Path, model: nn.Module, **header: Any) -> None:
    """The model's weights and buffers as safetensors; tied weights are written once for each name."""
    write(path, snapshot(model), header)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load what `save_weights` wrote into a model of the same shape; returns the header."""
    tensors, header = read(path)
    restore(model, tensors)
    return header


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    gradient: Any = None,
    average: Any = None,
    objective: Any = None,
    **header: Any,
) -> None:
    """Everything that decides how a run goes on, after ``step`` finished steps.

    Weights and buffers; the optimizer's own state dict (with the base learning rate that schedules multiply); the
    ``state_dict`` of the rule, the average and the objective if they have one; the random streams of torch (CPU and the
    model's GPU), NumPy and Python. The position in the data and in every schedule is ``step``
    itself. ``header`` is kept beside it as JSON.

    Raises:
        TypeError, OSError: As `write`.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": tensor for name, tensor in snapshot(model).items()}
    plain = take_apart("optimizer", optimizer.state_dict(), tensors)
    memories = {"gradient": gradient, "average": average, "objective": objective}
    kept = {
        name: take_apart(name, of.state_dict(), tensors) for name, of in memories.items() if hasattr(of, "state_dict")
    }
    tensors["random/torch"] = torch.get_rng_state()
    device = next(model.parameters()).device
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    kind, keys, *rest = np.random.get_state(legacy=True)
    tensors["random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    streams = {"numpy": [kind, *rest], "python": random.getstate()}
    write(path, tensors, {"step": step, "optimizer": plain, **kept, "random": streams, "extra": header})


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    gradient: Any = None,
    average: Any = None,
    objective: Any = None,
) -> tuple[int, dict]:
    """Put back what `save_state` wrote; returns the number of finished steps and the extra header.

    The rule, the average and the objective are made as they were for the run, and then remember what those did.

    Raises:
        FileNotFoundError, ValueError: As `read` and `restore`.
        ValueError: If a memory was saved and there is nobody here to take it, or the other way round, or it is of another kind;
            the model and the optimizer are not changed then.
    """
    tensors, header = read(path)
    memories = {"gradient": gradient, "average": average, "objective": objective}
    for name, memory in memories.items():
        _check_memory(path, name, header.get(name), memory)
    for name, memory in memories.items():  # first, since they refuse what is another kind's
        if header.get(name) is not None and hasattr(memory, "load_state_dict"):
            memory.load_state_dict(put_together(header[name], tensors))
    restore(model, {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")})
    optimizer.load_state_dict(put_together(header["optimizer"], tensors))
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], next(model.parameters()).device)
    kind, *rest = header["random"]["numpy"]
    np.random.set_state((kind, tensors["random/numpy"].numpy().astype(np.uint32), *rest))
    version, words, gauss = header["random"]["python"]
    random.setstate((version, tuple(words), gauss))
    return header["step"], header["extra"]


def _check_memory(path: Path, name: str, saved: dict[str, Any] | None, memory: Any) -> None:
    """A run that forgets, or remembers nothing of what it did, would go on otherwise than if it had never stopped."""
    held, here = saved is not None and any(saved.values()), hasattr(memory, "load_state_dict")
    if held and not here:
        given = "" if memory is None else f"; what is given remembers nothing: {memory!r}"
        raise ValueError(
            f"{path} holds the memory of the run's {name}, without which the run would not go on as it was: load it with "
            f"{name}=..., made as it was for the run{given}"
        )
    if not held and here and memory.state_dict():
        raise ValueError(
            f"{path} holds no memory of the run's {name}, so that this one would begin anew: save the run with {name}=..., too, "
            f"or leave {name} out here if it is to begin"
        )


def take_apart(at: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """The tensors of a nested state dict go to ``tensors``; what stays is JSON. Keys keep their type as [key, value] pairs."""
    if isinstance(value, Tensor):
        tensors[at] = value.detach().clone()
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"dict": [[key, take_apart(f"{at}/{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [take_apart(f"{at}/{i}", item, tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(
        f"the state at {at} holds a {type(value).__name__}; only tensors, numbers, texts and containers can be saved"
    )


def put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `take_apart` took apart."""
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: put_together(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        return (tuple if kind == "tuple" else list)(put_together(item, tensors) for item in content)
    return content
