"""The nine GLUE tasks with any encoder, scored by their official metrics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainflat.hf import checkpoints, models, sources, tokens
from trainflat.hf import data as glue_data
from trainflat.hf.digests import digest_files
from trainflat.hf.needs import need
from trainflat.train.batches import Stream, to_length
from trainflat.train.objectives import cross_entropy, mean_squared_error
from trainflat.train.seeds import derive
from trainflat.types import Batch

__all__ = ["Glue", "fingerprint", "glue", "metrics"]

EVALUATION_BATCH = 64


def glue(
    subset: str,
    *,
    model: str = "bert-base-uncased",
    batch_size: int = 32,
    max_length: int = 128,
    holdout: float = 0.0,
    data: str | None = None,
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
    return Glue(subset, model, batch_size, max_length, holdout, data)


class Glue:
    """See `glue`, which makes it. ``official`` says whether every published row is there and the validation split is scored."""

    def __init__(self, subset: str, model: str, batch_size: int, max_length: int, holdout: float, data: str | None):
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is below 1")
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is a share of the training split and must be in [0, 1), got {holdout}")
        self.name, self.model_name, self.batch_size, self.max_length = subset, model, batch_size, max_length
        self.published = glue_data.official(subset)
        skeleton = models.skeleton(model, num_labels=self._outputs)
        self.head = models.head(skeleton)
        self._prunable = models.prunable(skeleton)
        models.check_length(skeleton, max_length, model)
        rows = glue_data.read(subset, data)
        train, self._held_out = rows.pop("train"), rows
        self.note = sources.describe(self.published.title, {"train": train, **rows}, holdout, model)
        self.official = not holdout and not any(found.is_subset for found in [train, *rows.values()])
        if holdout:
            inside, outside = _divide(train.labels, holdout)
            train, self._held_out = train.take(inside), {"holdout": train.take(outside)}
        self._train = train
        self.steps_per_epoch = -(-len(train) // batch_size)

    def model(self, seed: int) -> nn.Module:
        """The pretrained encoder with a head drawn from the seed, in float32."""
        labels = self.published.labels
        return models.build(self.model_name, seed=seed, num_labels=self._outputs, labels=labels)

    def objective(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, or the mean squared error for STS-B."""
        return (cross_entropy if self.published.labels else mean_squared_error)(model, batch)

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

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The official metrics on the validation split; MNLI's mismatched one has a key of its own."""
        from trainflat.train.evaluate import evaluate

        scores: dict[str, float] = {}
        for split in self._held_out:
            suffix = "_mismatched" if split.endswith("_mismatched") else ""
            found = evaluate(model, self._evaluation(split), lambda z, y: metrics(self.name, z, y))
            scores |= {key + suffix: value for key, value in found.items()}
        return scores

    def held_out_batches(self, first: int | None = None) -> Iterator[Batch]:
        """The validation split (MNLI's matched one), or the first so many of its rows, in batches as large as in training."""
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

    @property
    def _outputs(self) -> int:
        return len(self.published.labels) or 1


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
    lost = int((~np.isfinite(logits)).reshape(len(logits), -1).any(axis=1).sum())
    if lost:
        raise ValueError(f"the model's output is not finite for {lost} of {len(logits)} examples; it has diverged")
    if subset == "stsb":
        return _correlations(logits.reshape(-1).astype(np.float64), labels.astype(np.float64))
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
    found = glue_data.files(subset, data)
    rows = f"hub:{glue_data.HUB}@{glue_data.REVISION[:12]}" if found is None else digest_files(found.values())[:16]
    return f"{rows} {checkpoints.identity(model)}"


def steps_per_epoch(
    subset: str, *, batch_size: int = 32, holdout: float = 0.0, data: str | None = None, **other: Any
) -> int:
    """Batches of an epoch, from the number of rows alone: for planning. The rest of `glue`'s arguments do not matter."""
    found = glue_data.files(subset, data)
    rows = (
        need("pyarrow.parquet").read_metadata(found["train"]).num_rows
        if found
        else glue_data.official(subset).sizes["train"]
    )
    return -(-(rows - round(holdout * rows)) // batch_size)


glue.fingerprint = fingerprint  # pyright: ignore[reportFunctionMemberAccess]
glue.steps_per_epoch = steps_per_epoch  # pyright: ignore[reportFunctionMemberAccess]


def _correlations(predicted: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    stats = need("scipy.stats")
    if np.ptp(predicted) == 0 or np.ptp(scores) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(predicted, scores).statistic),
        "spearman": float(stats.spearmanr(predicted, scores).statistic),
    }


def _divide(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows that stay and those taken out, in file order: the share of every class (of every rounded score)."""
    draw = np.random.default_rng(derive("holdout", len(labels)))
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(np.rint(labels)):
        rows = draw.permutation(np.flatnonzero(np.rint(labels) == label))
        out[rows[: round(share * len(rows))]] = True
    if out.all() or not out.any():
        raise ValueError(
            f"holdout {share} of {len(labels)} rows leaves nothing to {'train on' if out.all() else 'score'}"
        )
    return np.flatnonzero(~out), np.flatnonzero(out)
