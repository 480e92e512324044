"""Tensors and plain data as one safetensors file, whole or not at all, and nested state dicts as what such a file can hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["put_together", "read", "take_apart", "write"]


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


def _no_json(value: Any) -> None:
    raise TypeError(
        f"{value!r} is a {type(value).__name__}, and beside the tensors only what JSON has is kept: numbers, texts, lists and "
        "dicts of Python's own; of a NumPy number or array, or a tensor, take .tolist()"
    )
