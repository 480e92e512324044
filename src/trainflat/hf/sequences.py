"""An encoder with a head on texts or pairs of texts: what GLUE's tasks and your own table have in common."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from trainflat.hf import checkpoints, models, small, tokens
from trainflat.train.batches import Stream, to_length
from trainflat.train.objectives import cross_entropy, mean_squared_error
from trainflat.types import Batch

__all__ = ["Examples", "SequenceTask"]

EVALUATION_BATCH = 64


class Examples(Sized, Protocol):
    """Texts with labels."""

    @property
    def texts(self) -> Sequence[Sequence[str]]:
        """One sequence for each text column."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """Class numbers (int64), or scores (float32)."""
        ...


class SequenceTask:
    """A `trainflat.types.Task` but for ``name`` and ``evaluate``: tokens once encoded, length-bucketed batches, a fresh head.

    Args:
        model: A folder, a name on the hub, or ``"minilm"``; see `trainflat.hf.load`.
        batch_size: Examples of a training batch.
        max_length: Tokens of an example; longer ones are cut.
        labels: The label names; none for regression.

    Raises:
        ValueError: If the batch size or the length is outside its range.
        LookupError, FileNotFoundError: If there is no such checkpoint.
    """

    name: str
    _train: Examples
    _held_out: dict[str, Any]  # Examples by split, what is shown and measured first

    def __init__(self, model: str, batch_size: int, max_length: int, labels: Sequence[str]):
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is below 1")
        self.model_name, self.batch_size, self.max_length, self.labels = model, batch_size, max_length, tuple(labels)
        skeleton = models.skeleton(model, num_labels=len(labels) or 1)
        self.head = models.head(skeleton)
        self._prunable = models.prunable(skeleton)
        models.check_length(skeleton, max_length, model)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every training example once."""
        return -(-len(self._train) // self.batch_size)

    def model(self, seed: int) -> nn.Module:
        """The pretrained encoder with a head drawn from the seed, in float32."""
        return models.build(self.model_name, seed=seed, num_labels=len(self.labels) or 1, labels=self.labels)

    def objective(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, or the mean squared error of scores."""
        return (cross_entropy if self.labels else mean_squared_error)(model, batch)

    def batches(self, seed: int) -> Stream:
        """Training batches of examples of similar length, padded to their longest."""
        encoded, labels = self._encoded("train"), torch.from_numpy(self._train.labels)
        return Stream(
            len(encoded),
            self.batch_size,
            lambda indices: (encoded.batch(indices), labels[indices]),
            seed=seed,
            lengths=encoded.lengths.tolist(),
        )

    def held_out_batches(self, first: int | None = None) -> Iterator[Batch]:
        """The first held-out split (MNLI's matched one), or the first so many of its rows, in batches as large as in training."""
        return self._evaluation(next(iter(self._held_out)), self.batch_size, first)

    def prunable(self, name: str, parameter: nn.Parameter) -> bool:
        """The encoder's linear matrices and the pooler's; see `trainflat.hf.models.prunable`."""
        return name in self._prunable

    def inputs(self, size: int = 32, length: int | None = None) -> dict[str, Tensor]:
        """The first ``size`` held-out examples as the model's keyword arguments, some twice if there are fewer.

        Padded to the longest of them, or padded and cut to ``length`` tokens, ``max_length`` at most.
        """
        encoded = self._encoded(next(iter(self._held_out)))
        batch = encoded.batch(np.arange(size) % len(encoded))
        return batch if length is None else to_length(batch, length, longest=self.max_length, padding=encoded.padding)

    @property
    def lengths(self) -> Int[np.ndarray, " examples"]:
        """How many tokens the held-out examples have, in their order, ``max_length`` at most."""
        return self._encoded(next(iter(self._held_out))).lengths

    def encode(self, texts: Iterable[Any]) -> dict[str, Tensor]:
        """New texts, or pairs of texts, as the model's keyword arguments, padded to the longest of them.

        Raises:
            TypeError: If one is no text, or no pair of texts where the task is about pairs.
        """
        rows = [tuple(one) if isinstance(one, (tuple, list, np.ndarray)) else (one,) for one in texts]
        count = len(self._train.texts)
        sound = [len(row) == count and all(isinstance(part, str) for part in row) for row in rows]
        if isinstance(texts, str) or not all(sound):
            given = texts if isinstance(texts, str) else rows[sound.index(False)]
            raise TypeError(
                f"{self.name} reads {'texts' if count == 1 else 'pairs of texts'} and takes a list of them; got "
                f"{given[0] if len(given) == 1 else given!r:.60}"
            )
        limits = {"truncation": True, "max_length": self.max_length, "padding": True}
        return dict(self._tokenizer(*map(list, zip(*rows)), return_tensors="pt", **limits))

    def save(self, folder: str | Path, model: nn.Module, *, notes: str = "") -> None:
        """Keep a trained model as `trainflat.hf.small.save` does, with its tokenizer, which then cuts where the task does."""
        words = copy.deepcopy(self._tokenizer)
        words.model_max_length = self.max_length
        small.save(folder, model, words, notes=notes, pairs=len(self._train.texts) == 2)

    def _evaluation(self, split: str, size: int = EVALUATION_BATCH, first: int | None = None) -> Iterator[Batch]:
        """Longest first, so that little is padded and memory is known at once; metrics do not depend on the order."""
        encoded, labels = self._encoded(split), torch.from_numpy(self._held_out[split].labels)
        order = np.argsort(-encoded.lengths[:first], kind="stable")
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            yield encoded.batch(indices), labels[indices]

    def _encoded(self, split: str) -> tokens.Encoded:
        if split not in self._cache:
            rows = self._train if split == "train" else self._held_out[split]
            self._cache[split] = tokens.encode(
                self._tokenizer,
                rows.texts,
                max_length=self.max_length,
                identity=checkpoints.tokenizer_identity(self.model_name),
            )
        return self._cache[split]

    @cached_property
    def _cache(self) -> dict[str, tokens.Encoded]:
        return {}

    @cached_property
    def _tokenizer(self) -> Any:
        return models.tokenizer(self.model_name)
