"""An endless stream of batches that can be entered at any position: the data half of exact resume."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import cycle, islice, repeat
from operator import length_hint
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from trainflat.train.seeds import derive
from trainflat.types import Batch

__all__ = ["Stream", "enter", "examples", "finite", "first_part", "pair", "part", "pick", "to_device", "to_length"]

MEGABATCH = 50  # batches whose examples are sorted by length together, as transformers' LengthGroupedSampler


class Stream:
    """Batches without end, epoch after epoch, each epoch in its own seeded order.

    The order of epoch ``e`` depends on ``(seed, e)`` alone, so a run resumed at batch 1,000,000 sees what the
    uninterrupted run saw without drawing the batches before it. Each epoch holds every example once; its last batch
    may be smaller.

    With ``lengths``, batches hold examples of similar length, so that dynamic padding wastes little: a random
    permutation is cut into pieces of 50 batches, each piece is sorted by length and cut into batches, and the batches
    are shuffled. (The grouping of transformers' ``group_by_length``; there the batches are not shuffled again.)

    Args:
        size: Number of examples.
        batch_size: Examples in a batch.
        collate: From a list of example indices to a batch.
        seed: Decides the order.
        lengths: Length of each example, or None for plain shuffling.

    Raises:
        ValueError: If there are no examples or the batch size is below 1.

    Example:
        >>> stream = Stream(5, 2, list, seed=0)
        >>> epoch = [next(batches) for batches in [iter(stream)] for _ in range(stream.per_epoch)]
        >>> sorted(sum(epoch, []))
        [0, 1, 2, 3, 4]
        >>> next(stream.at(2)) == epoch[2]
        True
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        collate: Callable[[list[int]], Batch],
        *,
        seed: int,
        lengths: Sequence[int] | None = None,
    ):
        if size < 1:
            raise ValueError("there are no training examples; a stream needs at least one")
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is below 1")
        self.size, self.batch_size, self.collate, self.seed = size, batch_size, collate, seed
        self.lengths = None if lengths is None else torch.as_tensor(lengths)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return math.ceil(self.size / self.batch_size)

    def order(self, epoch: int) -> list[list[int]]:
        """The example indices of every batch of one epoch."""
        generator = torch.Generator().manual_seed(derive("batches", self.seed, epoch))
        shuffled = torch.randperm(self.size, generator=generator)
        if self.lengths is None:
            return [piece.tolist() for piece in shuffled.split(self.batch_size)]
        batches: list[Tensor] = []
        for piece in shuffled.split(MEGABATCH * self.batch_size):
            by_length = piece[self.lengths[piece].argsort(descending=True, stable=True)]
            batches += by_length.split(self.batch_size)
        return [batches[i].tolist() for i in torch.randperm(len(batches), generator=generator)]

    def at(self, position: int) -> Iterator[Batch]:
        """The stream from its batch number ``position`` on; nothing before it is built."""
        epoch, within = divmod(position, self.per_epoch)
        while True:
            for indices in self.order(epoch)[within:]:
                yield self.collate(indices)
            epoch, within = epoch + 1, 0

    def __iter__(self) -> Iterator[Batch]:
        return self.at(0)


def enter(batches: Any, position: int) -> Iterator[Batch]:
    """Any iterable of batches from a position on: directly if it is a `Stream`, else by drawing what comes before."""
    if hasattr(batches, "at"):
        return batches.at(position)
    return islice(iter(batches), position, None)


def finite(batches: Iterable[Batch]) -> Iterable[Batch]:
    """The same, for a pass over all of them.

    Raises:
        ValueError: If it can be seen that they have no end: a `Stream`, ``itertools.repeat`` or ``cycle``.
    """
    if isinstance(batches, Stream) or (isinstance(batches, (cycle, repeat)) and length_hint(batches, -1) < 0):
        raise ValueError(
            f"these batches have no end, a {type(batches).__name__}, and to measure takes all there are: give so many of them, "
            "itertools.islice(batches, 10), or a task's held_out_batches()"
        )
    return batches


def pair(batch: Batch) -> tuple[Any, Any]:
    """The inputs and the labels of a batch.

    Raises:
        TypeError: If it is something else, such as a dict in which the labels are.

    Example:
        >>> pair({"input_ids": torch.ones(2, 3), "labels": torch.ones(2)})              # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: a batch is a pair (inputs, labels), ... this is a dict of 'input_ids', 'labels'. Make pairs of them, ...
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        kind += f" of {', '.join(map(repr, batch))}"
    elif isinstance(batch, (tuple, list)):
        kind += f" of {len(batch)}"
    elif isinstance(batch, Tensor):
        kind += f" of shape {tuple(batch.shape)}, as if one batch were given instead of a list of them"
    raise TypeError(
        "a batch is a pair (inputs, labels), where inputs is a tensor or a dict of those that the model takes by name; this is "
        f"a {kind}. Make pairs of them, ({{'input_ids': ...}}, labels), or write an objective of your own, (model, batch) -> "
        "loss: train.fit and flat.Loss take any batch that it reads"
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor in it on the device."""
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def first_part(batch: Batch, fraction: float) -> Batch:
    """The first ``max(1, round(fraction * n))`` of a batch's n examples."""
    return _each(batch, lambda tensor: tensor[: max(1, round(fraction * len(tensor)))])


def part(batch: Batch, index: int, count: int) -> Batch:
    """Part number ``index`` of ``count`` nearly equal ones; it may be empty if the batch has fewer examples than that."""
    return _each(batch, lambda tensor: tensor[index * len(tensor) // count : (index + 1) * len(tensor) // count])


def pick(batch: Batch, chosen: Int[Tensor, " batch"]) -> Batch:
    """Those examples alone, in this order."""
    return _each(batch, lambda tensor: tensor[chosen.to(tensor.device)])


def examples(batch: Batch) -> int:
    """How many examples a batch holds: the length of its first tensor.

    Raises:
        TypeError: If there is no tensor in it.
    """
    sizes: list[int] = []
    _each(batch, lambda tensor: sizes.append(len(tensor)))  # pyright: ignore[reportArgumentType]
    if not sizes:
        raise TypeError(
            f"a batch of type {type(batch).__name__} has no tensor to count examples in, nor to take a part of"
        )
    return sizes[0]


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {key: _each(value, change) for key, value in batch.items()}
    if isinstance(batch, UserDict):  # such as the BatchEncoding of a tokenizer, whose keys are attributes, too
        changed = copy(batch)
        changed.data = _each(batch.data, change)
        return changed
    if isinstance(batch, (tuple, list)):
        values = [_each(value, change) for value in batch]
        return (
            type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
        )  # a named tuple, or a plain one
    return batch


def to_length(inputs: Mapping[str, Tensor], length: int, *, longest: int, padding: int = 0) -> dict[str, Tensor]:
    """Tokens as wide as asked for: cut, or padded on the right, where ``attention_mask`` is 0. For measuring, not for training:
    what is cut off may be the last [SEP].

    Args:
        inputs: A batch by keyword, ``batch seq`` each, ``input_ids`` among them.
        length: Tokens of every example.
        longest: What the task takes at most.
        padding: The padding token.

    Raises:
        ValueError: If the length is below 1 or above the longest.

    Example:
        >>> batch = {"input_ids": torch.tensor([[7, 8]]), "attention_mask": torch.ones(1, 2)}
        >>> to_length(batch, 4, longest=8, padding=9), to_length(batch, 1, longest=8)["input_ids"]
        ({'input_ids': tensor([[7, 8, 9, 9]]), 'attention_mask': tensor([[1., 1., 0., 0.]])}, tensor([[7]]))
    """
    if not 1 <= length <= longest:
        raise ValueError(f"length must be from 1 to {longest} tokens, the longest that this task takes; got {length}")
    more = length - inputs["input_ids"].shape[1]
    return {
        name: functional.pad(tensor, (0, more), value=padding if name == "input_ids" else 0)
        for name, tensor in inputs.items()
    }
