"""A lottery ticket: a mask and the weights to start from. On disk one bit a weight and the fingerprint of the start."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.compress.masks import Mask
from trainflat.train.files import read, write
from trainflat.train.weights import restore

__all__ = ["Ticket", "fingerprint", "load_mask", "save_mask"]


@dataclass(frozen=True)
class Ticket:
    """A mask and the weights to rewind to. Frankle & Carbin 2019, arXiv:1803.03635; Chen et al. 2020, arXiv:2007.12223.

    Example:
        >>> from trainflat import train
        >>> model = nn.Linear(4, 1)
        >>> ticket = Ticket(Mask.dense(model, lambda name, p: p.ndim == 2), start=train.snapshot(model))
        >>> _ = nn.init.zeros_(model.weight)
        >>> ticket
        Ticket(mask=Mask(1 tensors, 4 weights, 0.0% pruned))
        >>> ticket.rewind(model)
        >>> torch.equal(model.weight, ticket.start["weight"])
        True
    """

    mask: Mask
    start: Mapping[str, Tensor] = field(repr=False)  # or printing a ticket printed the model

    def rewind(self, model: nn.Module, keep: Iterable[str] = ()) -> None:
        """Put the start back and zero what is pruned; parameters whose name begins with a prefix in ``keep`` stay as they are.

        Chen et al. keep the task's head in training over all rounds: ``keep=task.head``.

        Raises:
            ValueError: If the model and the start differ in names or shapes, or a prefix in ``keep`` begins no name.
        """
        own = model.state_dict()
        prefixes = _prefixes(keep, own)
        stay = {name: tensor for name, tensor in own.items() if name.startswith(prefixes)}
        restore(model, {**self.start, **stay})
        self.mask.apply_to(model)

    def transplant(self, model: nn.Module, head: Iterable[str] = ()) -> None:
        """Put the ticket into a model for another task: same encoder, its own head (names that begin with ``head``).

        Raises:
            ValueError: If anything but the head differs in names or shapes, or a prefix in ``head`` begins no name in either.
        """
        own = model.state_dict()
        prefixes = _prefixes(head, [*own, *self.start])
        encoder = {name: tensor for name, tensor in self.start.items() if not name.startswith(prefixes)}
        heads = {name: tensor for name, tensor in own.items() if name.startswith(prefixes)}
        restore(model, {**encoder, **heads})
        self.mask.apply_to(model)

    def save(self, path: Path, *, weights: bool = False) -> None:
        """One safetensors file: the mask at one bit a weight and the start's fingerprint; with ``weights`` the start too."""
        extra = {f"start/{name}": tensor for name, tensor in self.start.items()} if weights else {}
        save_mask(path, self.mask, extra, start=fingerprint(self.start))

    @classmethod
    def load(cls, path: Path, start: Mapping[str, Tensor] | None = None) -> Ticket:
        """Read a ticket; its start comes from the file or, if the file has only the fingerprint, from ``start``.

        Raises:
            ValueError: If the file is not a ticket, or ``start`` is missing or not the one the ticket was drawn from.
        """
        tensors, header = read(path)
        mask = _unpack(path, tensors, header)
        own = {name.removeprefix("start/"): t for name, t in tensors.items() if name.startswith("start/")}
        if own:
            return cls(mask, own)
        if start is None:
            raise ValueError(
                f"{path} holds no weights, only their fingerprint: give the start, e.g. start=train.snapshot(model)"
            )
        if header.get("start") != fingerprint(start):
            raise ValueError(
                f"{path} was drawn from other weights: its start is {header.get('start')}, given {fingerprint(start)}"
            )
        return cls(mask, start)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that name these weights: BLAKE2b over names, dtypes, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_mask(path: Path, mask: Mask, extra: Mapping[str, Tensor] | None = None, **header: object) -> None:
    """The mask as packed bits (``ceil(n / 8)`` bytes a tensor), with further tensors and header fields beside it."""
    packed = {f"mask/{name}": _pack(tensor) for name, tensor in mask.items()}
    shapes = {name: list(tensor.shape) for name, tensor in mask.items()}
    write(path, {**packed, **(extra or {})}, {**header, "shapes": shapes})


def load_mask(path: Path) -> Mask:
    """Read the mask of a file that `save_mask` or `Ticket.save` wrote.

    Raises:
        FileNotFoundError, ValueError: If there is no such file or it holds no mask.
    """
    return _unpack(path, *read(path))


def _prefixes(given: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    prefixes = (given,) if isinstance(given, str) else tuple(given)  # "head" is one prefix, not four letters
    names = list(names)
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ValueError(
                f"no weight's name begins with {prefix!r}, so nothing would be kept; names begin with {parts}"
            )
    return prefixes


def _pack(tensor: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(tensor.cpu().reshape(-1).numpy()))


def _unpack(path: Path, tensors: Mapping[str, Tensor], header: Mapping) -> Mask:
    if "shapes" not in header:
        raise ValueError(f"{path} holds no mask; a ticket is written by Ticket.save or by an Imp stage")
    alive = {}
    for name, shape in header["shapes"].items():
        count, packed = math.prod(shape), tensors.get(f"mask/{name}")
        if packed is None or packed.dtype != torch.uint8 or packed.shape != (math.ceil(count / 8),):
            raise ValueError(f"{path} is damaged: the bits of the mask of {name!r} do not fit its shape {shape}")
        bits = np.unpackbits(packed.numpy(), count=count).astype(bool)
        alive[name] = torch.from_numpy(bits).view(shape)
    return Mask(alive)
