"""Saving a run and resuming it exactly: weights, optimizer, rule, random streams and position in one safetensors file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.train.files import put_together, read, take_apart, write
from trainflat.train.weights import restore, snapshot

__all__ = ["load_state", "save_state"]


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
