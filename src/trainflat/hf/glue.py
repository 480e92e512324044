"""The nine GLUE tasks with any encoder, scored by their official metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from trainflat.hf import checkpoints, sources, splits
from trainflat.hf import data as glue_data
from trainflat.hf.metrics import check_finite, correlations
from trainflat.hf.needs import need
from trainflat.hf.sequences import SequenceTask
from trainflat.train.evaluate import evaluate

__all__ = ["Glue", "fingerprint", "glue", "metrics"]


def glue(
    subset: str,
    *,
    model: str | Path = "bert-base-uncased",
    batch_size: int = 32,
    max_length: int = 128,
    holdout: float = 0.0,
    data: str | Path | None = None,
) -> Glue:
    """A GLUE task: pretrained encoder with a fresh head, length-bucketed batches, the official metrics.

    Wang et al. 2019, arXiv:1804.07461. Defaults of model, batch size and length: Na et al. 2022, arXiv:2205.12694.

    Args:
        subset: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli.
        model: A folder, a name on the hub, or ``"minilm"``; see `trainflat.hf.load`.
        batch_size: Examples of a training batch.
        max_length: Tokens of an example; longer ones are cut.
        holdout: Share of the *training* split, in [0, 1), that is taken out of training and scored instead of the
            validation split: for choosing hyper-parameters without touching what is reported. The same rows for
            every seed, in the same class proportions.
        data: A folder with ``glue/<subset>/<split>.parquet``. Default: ``TRAINFLAT_DATA``, else the hub.

    Raises:
        LookupError, FileNotFoundError: If there is no such task, file or checkpoint.
        ValueError: If a file or checkpoint is not sound, or an option is outside its range.
        ImportError: If transformers or the package of ``"minilm"`` is not installed.
    """
    return Glue(subset, str(model), batch_size, max_length, holdout, None if data is None else str(data))


class Glue(SequenceTask):
    """See `glue`, which makes it. ``official`` says whether every published row is there and the validation split is scored."""

    def __init__(self, subset: str, model: str, batch_size: int, max_length: int, holdout: float, data: str | None):
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is a share of the training split and must be in [0, 1), got {holdout}")
        self.name, self.published = subset, glue_data.official(subset)
        super().__init__(model, batch_size, max_length, self.published.labels)
        rows = glue_data.read(subset, data)
        train, self._held_out = rows.pop("train"), rows
        self.note = sources.describe(self.published.title, {"train": train, **rows}, holdout, model)
        self.official = not holdout and not any(found.is_subset for found in [train, *rows.values()])
        if holdout:
            out = splits.of_every_class(train.labels, holdout)
            train, self._held_out = train.take(np.flatnonzero(~out)), {"holdout": train.take(np.flatnonzero(out))}
        self._train = train

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The official metrics on the validation split; MNLI's mismatched one has a key of its own."""
        scores: dict[str, float] = {}
        for split in self._held_out:
            suffix = "_mismatched" if split.endswith("_mismatched") else ""
            found = evaluate(model, self._evaluation(split), lambda z, y: metrics(self.name, z, y))
            scores |= {key + suffix: value for key, value in found.items()}
        return scores


def metrics(subset: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """GLUE's official metrics, the main one first. A constant prediction correlates with nothing: 0.

    Raises:
        ValueError: If a logit is not a finite number.

    Example:
        >>> metrics("cola", np.eye(2)[[0, 1, 1, 1]], np.array([0, 0, 1, 1]))  # (TP TN - FP FN) / sqrt(3 * 2 * 2 * 1)
        {'matthews_correlation': 0.5773502691896258}
        >>> metrics("stsb", np.zeros((3, 1)), np.array([1.0, 2.0, 3.0]))
        {'pearson': 0.0, 'spearman': 0.0}
    """
    check_finite(logits)
    if subset == "stsb":
        return correlations(logits.reshape(-1).astype(np.float64), labels.astype(np.float64))
    scores, predicted = need("sklearn.metrics"), logits.argmax(axis=-1)
    if subset == "cola":
        return {"matthews_correlation": float(scores.matthews_corrcoef(labels, predicted))}
    found = {"accuracy": float(scores.accuracy_score(labels, predicted))}
    if subset in {"mrpc", "qqp"}:
        found["f1"] = float(scores.f1_score(labels, predicted, zero_division=0.0))
    return found


def fingerprint(
    subset: str,
    *,
    model: str = "bert-base-uncased",
    data: str | None = None,
    batch_size: int = 32,
    max_length: int = 128,
    holdout: float = 0.0,
) -> str:
    """What the arguments do not say: the digest of the data's and the checkpoint's files.

    Raises:
        LookupError, FileNotFoundError, ValueError, ImportError: As `glue`, for what is missing.
    """
    rows = sources.identity(glue_data.files(subset, data), glue_data.HUB, glue_data.REVISION)
    return f"{rows} {checkpoints.identity(model)}"


def steps_per_epoch(
    subset: str, *, batch_size: int = 32, holdout: float = 0.0, data: str | None = None, **other: Any
) -> int:
    """Batches of an epoch, from the number of rows alone: for planning. The rest of `glue`'s arguments do not matter."""
    found = glue_data.files(subset, data)
    rows = sources.rows(found["train"]) if found else glue_data.official(subset).sizes["train"]
    return -(-(rows - round(holdout * rows)) // batch_size)


glue.fingerprint = fingerprint  # pyright: ignore[reportFunctionMemberAccess]
glue.steps_per_epoch = steps_per_epoch  # pyright: ignore[reportFunctionMemberAccess]
