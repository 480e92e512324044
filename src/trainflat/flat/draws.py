"""Random vectors as large as the weights, and the direction that is one: their price is what counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from trainflat.flat.ascent import ThisBatch
from trainflat.flat.choices import as_gradient
from trainflat.flat.moving import rooms
from trainflat.train.seeds import derive
from trainflat.types import Params

__all__ = ["Entries", "Noise", "fill_with_noise", "fill_with_signs"]

Entries = Literal["signs", "normal"]
ALL_64_BITS = -(2**63), None  # from where to where the integers are drawn


class Noise(ThisBatch):
    """Noise of independent entries, drawn anew for each step from (seed, step): the same after resuming, and in every process.

    With the metric l2 and a batch in one piece the point that is reached is made in its memory, which the next step's noise has
    again.
    """

    fresh, whole, remembers, spent = False, False, True, True

    def __init__(self, entries: Entries = "signs", seed: int = 0):
        super().__init__()
        if entries not in get_args(Entries):
            raise ValueError(f"entries must be 'signs' or 'normal', got {entries!r}")
        self.fill = fill_with_signs if entries == "signs" else fill_with_noise
        self.seed = seed
        self._room: dict[str, Tensor] = {}

    def vectors(self, params: Params, step: int) -> dict[str, Tensor]:
        drawn = dict(zip(params, rooms(params, self._room), strict=True))
        self.fill(drawn, derive("flat noise", self.seed, step))
        found = {name: as_gradient(params[name], z) for name, z in drawn.items()}
        whole = self.fill is fill_with_signs and all(found[name] is z for name, z in drawn.items())
        self.length = _length_of_signs(drawn.values()) if whole else None
        return found

    def spend(self, vectors: Mapping[str, Tensor]) -> None:
        self._room = {}

    def see(self, params: Params, spare: dict[str, Tensor]) -> None:
        if not self._room:
            self._room = {name: spare.pop(name) for name in params if name in spare}


def fill_with_noise(tensors: Mapping[str, Tensor], seed: int) -> None:
    """Independent numbers of the standard normal distribution, in the order of the tensors.

    4 ns each on one core; that is a tenth of a step at BERT-base size.
    """
    streams = _streams(tensors, seed)
    for x in tensors.values():
        x.normal_(generator=streams[x.device])


def fill_with_signs(tensors: Mapping[str, Tensor], seed: int) -> None:
    """Independent signs, -1 or 1 with equal probability, in the order of the tensors: 64 of each integer that is drawn.

    Example:
        >>> x = torch.empty(6400)
        >>> fill_with_signs({"x": x}, seed=0)
        >>> x.unique().tolist(), bool(x.mean().abs() < 0.05)
        ([-1.0, 1.0], True)
    """
    streams = _streams(tensors, seed)
    for x in tensors.values():
        words = torch.empty(-(-x.numel() // 64), dtype=torch.int64, device=x.device)
        eights = words.random_(*ALL_64_BITS, generator=streams[x.device]).view(torch.uint8)[: -(-x.numel() // 8)].int()
        table = _signs_of_bytes().to(x.device, x.dtype)
        if x.is_contiguous() and x.numel() % 8 == 0:
            torch.index_select(table, 0, eights, out=x.view(-1, 8))
        else:
            x.copy_(table[eights].flatten()[: x.numel()].view(x.shape))


def _length_of_signs(tensors: Collection[Tensor]) -> Tensor:
    """The square root of their number, rounded as `trainflat.flat.metrics.norm` rounds.

    >>> _length_of_signs([torch.ones(4, 3), torch.ones(4)])
    tensor(4.)
    """
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return torch.linalg.vector_norm(torch.tensor([x.numel() for x in tensors], dtype=wide).sqrt())


@cache
def _signs_of_bytes() -> Tensor:
    """256 x 8: the bits of each byte, 1 as 1 and 0 as -1."""
    return 2.0 * (torch.arange(256)[:, None] >> torch.arange(8) & 1) - 1.0


def _streams(tensors: Mapping[str, Tensor], seed: int) -> dict[torch.device, torch.Generator]:
    """A stream for each device, all from the same seed."""
    streams = {device: torch.Generator(device) for device in {x.device for x in tensors.values()}}
    for stream in streams.values():
        stream.manual_seed(seed)
    return streams
