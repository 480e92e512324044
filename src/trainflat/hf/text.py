"""Your own labelled table as a task: its kind found from the columns, its own split, and a note that says both."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from trainflat.hf import checkpoints, metrics, sources
from trainflat.hf.prepared import Labelled, Prepared, identity, prepare, title
from trainflat.hf.sequences import SequenceTask
from trainflat.hf.table import Columns
from trainflat.train.evaluate import evaluate
from trainflat.types import Batch

__all__ = ["Text", "fingerprint", "steps_per_epoch", "text"]


def text(
    data: str | Path,
    *,
    text: str,
    label: str,
    model: str | Path,
    text2: str | None = None,
    kind: str | None = None,
    validation: str | Path | None = None,
    groups: str | None = None,
    batch_size: int = 32,
    max_length: int = 128,
    holdout: float | None = None,
    seed: int = 0,
) -> Text:
    """A task from a table of texts with labels: classification or regression, of texts or of pairs, found from the labels.

    In a recipe: ``task = { name = "text", data = "reviews.csv", text = "review", label = "stars", model = "minilm" }``.
    Defaults of batch size and length: Na et al. 2022, arXiv:2205.12694.

    Args:
        data: A CSV, TSV, JSON Lines or Parquet file, see `trainflat.hf.formats.open_file`; or a data set on the hub,
            ``owner/name`` or ``owner/name:configuration``, of which the split ``train`` is read.
        text: The column with the texts.
        label: The column with the labels: texts, numbers, true and false. See `trainflat.hf.columns.find`.
        model: A folder, a name on the hub, or ``"minilm"``; see `trainflat.hf.load`.
        text2: The column with the second texts, if the label is about a pair.
        kind: ``"classification"`` or ``"regression"`` where what is found would be wrong.
        validation: A second file with the same columns, or a split of the data set on the hub, to be scored. Training rows
            with the same texts are left out, and the note says how many. Default: the hub's split ``validation`` if there
            is one, else a split of our own.
        groups: A column whose rows belong together (a customer, an article): never on both sides of our own split.
        batch_size: Examples of a training batch.
        max_length: Tokens of an example; longer ones are cut.
        holdout: Share of the rows, in (0, 0.5], for our own split: stratified by label, rows with the same texts (up to
            case and blanks) on one side. Default: 0.1, about what RTE, MRPC and CoLA have.
        seed: Draws that split. It is the same for all runs of a study, so their differences are paired.

    Raises:
        LookupError: If there is no such column, data set or checkpoint; names the nearest column.
        FileNotFoundError: If there is no such file, or the hub is needed and does not answer.
        ValueError: If the table is not sound, its labels are no labels, or its rows too few; names the row or column.
        ImportError: If transformers, pyarrow or the package of ``"minilm"`` is not installed.
    """
    scored = None if validation is None else str(validation)
    prepared = prepare(str(data), Columns(text, label, text2, groups), kind, scored, holdout, seed)
    return Text(title(str(data)), prepared, str(model), batch_size, max_length)


class Text(SequenceTask):
    """See `text`, which makes it.

    ``note`` says in one sentence what was found, split and left out; ``remarks`` the same one by one; ``labels`` are the
    label names, none for regression; ``held_out`` has the texts that are scored, in the file's order. ``official`` is
    False: there is no published score to set beside.

    For regression the model's output is the score in standard deviations of the training scores from their mean, so that
    the same learning rates serve stars and prices; `predicted` has it in the table's unit.
    """

    official = False

    def __init__(self, name: str, prepared: Prepared, model: str, batch_size: int, max_length: int):
        super().__init__(model, batch_size, max_length, prepared.target.names)
        self.name, self.kind, self.remarks = name, prepared.target.kind, prepared.remarks
        self._train, self._held_out = prepared.train, {"validation": prepared.held_out}
        rows = sources.describe(name, {"train": prepared.train, "validation": prepared.held_out}, 0.0, model)
        self.note = "; ".join([rows, str(prepared.target), *self.remarks])

    @property
    def held_out(self) -> Labelled:
        """What is scored."""
        return self._held_out["validation"]

    @cached_property
    def unit(self) -> tuple[float, float]:
        """Mean and standard deviation of the training scores; (0, 1) for classification."""
        if self.labels:
            return 0.0, 1.0
        scores = self._train.labels.astype(np.float64)
        return float(scores.mean()), float(scores.std())

    def objective(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, or the mean squared error of scores in standard deviations: ((s - mean) / s.d. - z)^2."""
        inputs, labels = batch
        mean, deviation = self.unit
        return super().objective(model, (inputs, labels if self.labels else (labels - mean) / deviation))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy, macro F1 and, of two classes, F1 of the second; or Pearson, Spearman and the errors in the table's unit."""
        return evaluate(model, self._evaluation("validation"), self._metrics)

    def predicted(self, logits: Float[np.ndarray, "batch out"]) -> list[str] | list[float]:
        """What the model says: label names, or scores in the table's unit."""
        if self.labels:
            return [self.labels[i] for i in logits.argmax(axis=-1)]
        mean, deviation = self.unit
        return (logits[:, 0].astype(np.float64) * deviation + mean).tolist()

    def save(self, folder: str | Path, model: nn.Module, *, notes: str = "") -> None:
        """As `SequenceTask.save`; of a regression the configuration says ``score_mean`` and ``score_deviation``."""
        if not self.labels:
            model = copy.copy(model)  # the caller's keeps its configuration
            config: Any = copy.deepcopy(model.config)
            config.score_mean, config.score_deviation = self.unit
            model.config = config
        super().save(folder, model, notes=notes)

    def _metrics(
        self, logits: Float[np.ndarray, "batch out"], labels: Shaped[np.ndarray, " batch"]
    ) -> dict[str, float]:
        if self.labels:
            return metrics.classification(logits, labels)
        return metrics.regression(np.asarray(self.predicted(logits)), labels)


def fingerprint(
    data: str,
    *,
    text: str,
    label: str,
    model: str,
    text2: str | None = None,
    validation: str | None = None,
    groups: str | None = None,
    **other: Any,
) -> str:
    """What the arguments do not say: the digest of the table's and the checkpoint's files. The columns are checked.

    Raises:
        LookupError, FileNotFoundError, ValueError, ImportError: As `text`, for what is missing.
    """
    return f"{identity(data, Columns(text, label, text2, groups), validation)} {checkpoints.identity(model)}"


def steps_per_epoch(
    data: str,
    *,
    text: str,
    label: str,
    text2: str | None = None,
    kind: str | None = None,
    validation: str | None = None,
    groups: str | None = None,
    batch_size: int = 32,
    holdout: float | None = None,
    seed: int = 0,
    **other: Any,
) -> int:
    """Batches of an epoch: the table is read and split, since only then it is known how many rows are of use.

    Raises:
        As `text`.
    """
    prepared = prepare(data, Columns(text, label, text2, groups), kind, validation, holdout, seed)
    return -(-len(prepared.train) // batch_size)


text.fingerprint = fingerprint  # pyright: ignore[reportFunctionMemberAccess]
text.steps_per_epoch = steps_per_epoch  # pyright: ignore[reportFunctionMemberAccess]
