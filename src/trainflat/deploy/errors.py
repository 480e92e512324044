"""Where a small model errs, and the texts on which it and the large one differ most: what a report shows of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import train

__all__ = ["held_out", "mistakes"]

MOST = 10
ROOM = 2000  # characters of a text that a report keeps


def mistakes(task: Any, small: nn.Module, large: nn.Module) -> dict[str, Any]:
    """``confusion`` (true labels by answers) and ``disagreements`` of two models on the held-out texts of a task.

    The shift of a text is the total variation distance of the two models' probabilities, half the sum of |p - q|, from 0 to 1;
    of a regression the absolute difference of their numbers, in the labels' unit, and it has no confusion.
    """
    texts, truth = held_out(task)
    told = {"small": _outputs(task, small, texts), "large": _outputs(task, large, texts)}
    if not task.labels:
        numbers = {name: np.asarray(task.predicted(output), dtype=float) for name, output in told.items()}
        shift = np.abs(numbers["small"] - numbers["large"])
        says = {name: list(map(_plain, found)) for name, found in numbers.items()}
        return {"disagreements": _worst(texts, list(map(_plain, truth)), says, shift)}
    shift = 0.5 * np.abs(told["small"] - told["large"]).sum(-1)
    answers = {name: output.argmax(-1) for name, output in told.items()}
    counts = np.zeros((len(task.labels), len(task.labels)), dtype=int)
    np.add.at(counts, (np.asarray(truth, dtype=int), answers["small"]), 1)
    says = {name: [task.labels[i] for i in found] for name, found in answers.items()}
    labels = [str(label) for label in task.labels]
    return {
        "confusion": {"labels": labels, "counts": counts.tolist()},
        "disagreements": _worst(texts, [task.labels[int(i)] for i in truth], says, shift),
    }


def held_out(task: Any) -> tuple[list[Any], np.ndarray]:
    """The texts that are scored, or pairs of them, and their labels."""
    columns = task.held_out.texts
    return (list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))), task.held_out.labels


def _plain(value: float) -> str:
    """With all the digits that float32 has, so that years and prices stay apart.

    >>> _plain(2019.0), _plain(1250400.0), _plain(float(np.float32(4.1)))
    ('2019', '1250400', '4.1')
    """
    return f"{value:.7g}"


def _worst(texts: Any, truth: Any, says: dict[str, Any], shift: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-shift, kind="stable")[:MOST]
    said = lambda text: " / ".join(text) if isinstance(text, (tuple, list)) else str(text)
    return [
        {
            "text": said(texts[i])[:ROOM],
            "label": str(truth[i]),
            "large": str(says["large"][i]),
            "small": str(says["small"][i]),
            "shift": round(float(shift[i]), 4),
        }
        for i in order
    ]


def _outputs(task: Any, model: nn.Module, texts: Any, size: int = 64) -> np.ndarray:
    """Probabilities, or numbers, text by text in their own order."""
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    batches = ((task.encode(part), torch.zeros(len(part), dtype=torch.long)) for part in parts)
    logits = np.concatenate([output for output, _ in train.predict(model, batches)])
    if not task.labels:
        return logits.reshape(len(texts), -1)
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)
