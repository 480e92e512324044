"""A shrunk model on disk: safetensors and a JSON of its shape; read back into the architecture's own modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from trainflat.compress.dialects import structure
from trainflat.compress.shrink import Shape, carve, shape_of
from trainflat.compress.units import Structure
from trainflat.train.files import read, write

__all__ = ["SHAPE", "WEIGHTS", "is_small", "load_small", "load_tensors", "save_small", "save_tensors"]

SHAPE, WEIGHTS = "small.json", "model.safetensors"


def save_small(folder: Path, model: nn.Module) -> None:
    """Write a shrunk model into a folder: ``small.json``, its shape, and ``model.safetensors``, its weights and buffers.

    Raises:
        ValueError: If the model was not made by `trainflat.compress.shrink`.
    """
    shape = shape_of(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, model)
    (folder / SHAPE).write_text(json.dumps(shape.as_dict()) + "\n", encoding="utf-8")


def is_small(folder: Path) -> bool:
    """Whether a folder holds a shrunk model."""
    return (Path(folder) / SHAPE).is_file()


def load_small(
    folder: Path, build: Callable[[], nn.Module], *, parts: Callable[[nn.Module], Structure] = structure
) -> nn.Module:
    """The shrunk model that `save_small` wrote, in evaluation mode, without gates and without pickle.

    Args:
        build: Makes the whole model of the architecture, whatever its weights; called where tensors have no memory
            (``torch.device("meta")``), so it costs nothing.
        parts: Reads its structure; default: `trainflat.compress.structure`.

    Raises:
        FileNotFoundError: If the folder has no shrunk model.
        ValueError: If its files are damaged, or of another architecture.

    Example:
        >>> import tempfile
        >>> from trainflat import compress
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small().eval()
        >>> small = compress.shrink(model, compress.structure(model), {"attention": torch.tensor([0.0, 1.0])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     compress.save_small(folder, small)
        ...     again = compress.load_small(folder, zoo.vit_small)
        >>> bool((again(torch.ones(1, 8, 8)) == small(torch.ones(1, 8, 8))).all())
        True
    """
    folder = Path(folder)
    if not is_small(folder):
        raise FileNotFoundError(f"{folder} has no {SHAPE}, so it holds no shrunk model; save_small writes one")
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"there is no file {folder / WEIGHTS}")
    try:
        shape = Shape.of(json.loads((folder / SHAPE).read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{folder / SHAPE} is damaged: {error}") from error
    with torch.device("meta"):
        model = build()
    carve(model, parts(model), shape)
    load_tensors(folder / WEIGHTS, model)
    return model.eval()


def save_tensors(path: Path, model: nn.Module) -> None:
    """Parameters and buffers of a model of any shape as safetensors, those included that a state dict leaves out."""
    shape = getattr(model, "trainflat_shape", None)
    header = {"small": shape.as_dict()} if isinstance(shape, Shape) else {}
    write(path, {name: tensor.clone() for name, tensor in _tensors(model).items()}, header)


def load_tensors(path: Path, model: nn.Module) -> None:
    """What `save_tensors` wrote, into a model of the same shape, one without memory included.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it is damaged or of another architecture.
    """
    tensors, _ = read(path)
    own = _tensors(model)
    if differ := sorted(name for name in own.keys() | tensors.keys() if _shape(own, name) != _shape(tensors, name)):
        raise ValueError(f"{path} is of another architecture: {differ[0]!r} and {len(differ) - 1} more tensors differ")
    for name, mapped in tensors.items():
        tensor = mapped.clone()  # into aligned memory of its own: the file may go, and kernels round as they did
        at, _, key = name.rpartition(".")
        inner = model.get_submodule(at)
        if key in inner._parameters:
            inner._parameters[key] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        else:
            inner._buffers[key] = tensor


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, those included that a state dict leaves out: a model without memory cannot recompute them."""
    return {name: tensor.detach() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def _shape(tensors: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
