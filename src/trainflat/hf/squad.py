"""SQuAD v1.1 with any encoder: sliding windows over long contexts, answers cut from the text, official EM and F1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.hf import answers, checkpoints, models, questions, sources, splits
from trainflat.hf.pieces import pieces
from trainflat.hf.windows import Frame, Windows, frame, slide
from trainflat.train.batches import Stream, to_length
from trainflat.train.evaluate import predict
from trainflat.train.objectives import logits
from trainflat.types import Batch

__all__ = ["Squad", "fingerprint", "span_cross_entropy", "squad", "steps_per_epoch"]

KIND = "QuestionAnswering"
WINDOWS = 88641 / 87599  # for a training question; see `steps_per_epoch`
EVALUATION_BATCH = 64


def squad(
    *,
    model: str | Path = "bert-base-uncased",
    batch_size: int = 16,
    max_length: int = 384,
    stride: int = 128,
    holdout: float = 0.0,
    data: str | Path | None = None,
) -> Squad:
    """SQuAD v1.1: find the answer to a question in a text, scored by F1 over all 10,570 validation questions.

    Rajpurkar et al. 2016, arXiv:1606.05250; with a start and an end logit for each token as Devlin et al. 2019, section
    4.2, arXiv:1810.04805. Defaults of model, batch size and length: Na et al. 2022, arXiv:2205.12694; of the stride:
    Chen et al. 2020, arXiv:2007.12223. They train for 2 epochs with a learning rate of 3e-5.

    Args:
        model: A folder, a name on the hub, or ``"minilm"``; see `trainflat.hf.load`. BERT has no pooler here, so the
            prunable set is 72 matrices.
        batch_size: Windows of a training batch.
        max_length: Tokens of a window.
        stride: How many tokens a window begins after the one before; see `trainflat.hf.windows.slide`.
        holdout: Share of the *training* questions, in [0, 1), that is taken out of training and scored instead of the
            validation split: for choosing hyper-parameters without touching what is reported. Whole articles, as the
            official splits differ in articles; the same ones for every seed.
        data: A folder with ``squad/<split>.parquet``. Default: ``TRAINFLAT_DATA``, else the hub.

    Raises:
        LookupError, FileNotFoundError: If there is no such file or checkpoint.
        ValueError: If a file or checkpoint is not sound, or an option is outside its range.
        ImportError: If transformers or the package of ``"minilm"`` is not installed.
    """
    return Squad(str(model), batch_size, max_length, stride, holdout, None if data is None else str(data))


class Squad:
    """See `squad`, which makes it.

    ``official`` says whether every published question is there and the validation split is what is scored.
    """

    name = "squad"

    def __init__(self, model: str, batch_size: int, max_length: int, stride: int, holdout: float, data: str | None):
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is below 1")
        if stride < 1:
            raise ValueError(f"stride {stride} is below 1: it is how many tokens a window begins after the one before")
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is a share of the training questions and must be in [0, 1), got {holdout}")
        self.model_name, self.batch_size, self.max_length, self.stride = model, batch_size, max_length, stride
        skeleton = models.skeleton(model, kind=KIND)
        self.head = models.head(skeleton)
        self._prunable = models.prunable(skeleton)
        models.check_length(skeleton, max_length, model)
        rows = questions.read(data)
        self.note = sources.describe(questions.TITLE, rows, holdout, model) + _guesses(questions.guessed_starts(data))
        self.official = not holdout and all(len(found) == found.official for found in rows.values())
        self._train, self._held_out = rows["train"], rows["validation"]
        if holdout:
            out = splits.of_whole_articles(rows["train"].titles, holdout)
            self._train, self._held_out = (rows["train"].take(np.flatnonzero(side)) for side in (~out, out))

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every training *window* once, those without the answer included.

        How many windows there are is known when the texts are tokenised: the first time this takes as long as that,
        afterwards the tokens come from the cache.
        """
        return -(-len(self._train_windows) // self.batch_size)

    def model(self, seed: int) -> nn.Module:
        """The pretrained encoder with a head for start and end drawn from the seed, in float32."""
        return models.build(self.model_name, seed=seed, kind=KIND)

    def objective(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean of the cross-entropies of start and end."""
        return span_cross_entropy(model, batch)

    def batches(self, seed: int) -> Stream:
        """Training batches of windows of similar length, padded to their longest; labels are positions, ``batch 2``."""
        windows, labels = self._train_windows, self._labels
        return Stream(
            len(windows),
            self.batch_size,
            lambda indices: (windows.batch(indices), labels[indices]),
            seed=seed,
            lengths=windows.lengths.tolist(),
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The official F1 and exact match over all held-out questions, whichever of their windows has the answer."""
        texts = self.predictions(model)
        return answers.score(texts, dict(enumerate(self._held_out.answers)))

    def predictions(self, model: nn.Module) -> dict[int, str]:
        """The answer to every held-out question by its number, cut from the context; none where no window has a token.

        Raises:
            ValueError: If a logit is not a finite number.
        """
        windows, rows = self._held_out_windows, self._held_out
        found: dict[int, list[answers.Window]] = {}
        for outputs, indices in predict(model, self._evaluation()):
            if not np.isfinite(outputs).all():
                raise ValueError("the model's output is not finite for some questions; it has diverged")
            for output, window in zip(outputs, indices, strict=True):
                first, last = windows.first[window], windows.last[window]
                inside = output[windows.inside[window] :][: last - first]
                starts, ends = windows.contexts.starts[first:last], windows.contexts.ends[first:last]
                found.setdefault(int(windows.asked[window]), []).append(
                    answers.Window(inside[:, 0], inside[:, 1], starts, ends)
                )
        best = {question: answers.n_best(found[question]) for question in sorted(found)}
        return {
            question: rows.contexts[rows.context[question]][ranked[0].start : ranked[0].end]
            for question, ranked in best.items()
            if ranked
        }

    def held_out_batches(self, first: int | None = None) -> Iterator[Batch]:
        """The held-out windows, or the first so many of them, with the position of the first gold answer as in training."""
        windows, rows = self._held_out_windows, self._held_out
        labels = self._positions(rows, windows)
        order = np.argsort(-windows.lengths[:first], kind="stable")
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            yield windows.batch(indices), labels[indices]

    def prunable(self, name: str, parameter: nn.Parameter) -> bool:
        """The encoder's linear matrices; see `trainflat.hf.models.prunable`."""
        return name in self._prunable

    def inputs(self, size: int = 32, length: int | None = None) -> dict[str, Tensor]:
        """The first ``size`` held-out windows as the model's keyword arguments, some twice if there are fewer.

        Padded to the longest of them, or padded and cut to ``length`` tokens, ``max_length`` at most.
        """
        windows = self._held_out_windows
        batch, padding = windows.batch(np.arange(size) % len(windows)), windows.frame.padding
        return batch if length is None else to_length(batch, length, longest=self.max_length, padding=padding)

    def _evaluation(self) -> Iterator[Batch]:
        """Windows and their numbers, longest first, so that little is padded and memory is known at once."""
        windows = self._held_out_windows
        order = np.argsort(-windows.lengths, kind="stable")
        for start in range(0, len(order), EVALUATION_BATCH):
            indices = order[start : start + EVALUATION_BATCH]
            yield windows.batch(indices), torch.from_numpy(indices)

    @cached_property
    def _train_windows(self) -> Windows:
        return self._windows(self._train)

    @cached_property
    def _held_out_windows(self) -> Windows:
        return self._windows(self._held_out)

    @cached_property
    def _labels(self) -> Tensor:
        return self._positions(self._train, self._train_windows)

    @staticmethod
    def _positions(rows: questions.Questions, windows: Windows) -> Tensor:
        """Positions of the first answer, the only one that training questions have."""
        begin = np.array([starts[0] for starts in rows.starts])
        end = begin + np.array([len(texts[0]) for texts in rows.answers])
        return torch.from_numpy(windows.labels(rows.context, begin, end))

    def _windows(self, rows: questions.Questions) -> Windows:
        identity = checkpoints.tokenizer_identity(self.model_name)
        asked = [" ".join(text.split()) for text in rows.texts]  # one question begins with 12,000 blanks
        asked, contexts = (pieces(self._tokenizer, texts, identity=identity) for texts in (asked, rows.contexts))
        return slide(asked, contexts, rows.context, self._frame, max_length=self.max_length, stride=self.stride)

    @cached_property
    def _tokenizer(self) -> Any:
        return models.tokenizer(self.model_name)

    @cached_property
    def _frame(self) -> Frame:
        return frame(self._tokenizer)


def span_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """(CE(start logits, first) + CE(end logits, last)) / 2 in nats, each over the positions of the batch.

    Devlin et al. 2019, section 4.2, arXiv:1810.04805, and the loss of transformers' models for question answering: a
    position outside the batch's width does not count. Labels are int64 of shape ``batch 2``.

    Example:
        >>> import math
        >>> four = torch.zeros(1, 4, 2)                                         # one example, four tokens, no preference
        >>> loss = span_cross_entropy(nn.Identity(), (four, torch.tensor([[1, 3]])))
        >>> bool(torch.isclose(loss, torch.tensor(math.log(4))))
        True
    """
    inputs, labels = batch
    output = logits(model, inputs)
    outside = output.shape[1]
    labels = labels.clamp(0, outside)
    losses = [
        nn.functional.cross_entropy(output[..., side], labels[..., side], ignore_index=outside) for side in (0, 1)
    ]
    return (losses[0] + losses[1]) / 2


def fingerprint(
    *,
    model: str = "bert-base-uncased",
    data: str | None = None,
    batch_size: int = 16,
    max_length: int = 384,
    stride: int = 128,
    holdout: float = 0.0,
) -> str:
    """What the arguments do not say: the digest of the data's and the checkpoint's files.

    Raises:
        LookupError, FileNotFoundError, ValueError, ImportError: As `squad`, for what is missing.
    """
    rows = sources.identity(questions.files(data), questions.HUB, questions.REVISION)
    return f"{rows} {checkpoints.identity(model)}"


def steps_per_epoch(*, batch_size: int = 16, holdout: float = 0.0, data: str | None = None, **other: Any) -> int:
    """About how many batches an epoch has, from the number of questions alone: for planning; a run counts its windows.

    For every 87,599 questions 88,641 windows, as BERT's tokenizer makes them at the default length and stride.
    """
    found = questions.files(data)
    rows = sources.rows(found["train"]) if found else questions.SIZES["train"]
    return math.ceil(rows * (1 - holdout) * WINDOWS / batch_size)


squad.fingerprint = fingerprint  # pyright: ignore[reportFunctionMemberAccess]
squad.steps_per_epoch = steps_per_epoch  # pyright: ignore[reportFunctionMemberAccess]


def _guesses(count: int) -> str:
    return f"; {count:,} training answers placed at the first of several occurrences" if count else ""
