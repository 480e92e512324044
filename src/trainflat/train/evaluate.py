"""Scoring a model on held-out batches without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor, nn

from trainflat.train.batches import finite, pair, to_device
from trainflat.train.objectives import logits
from trainflat.types import Batch

__all__ = ["evaluate", "evaluating", "predict"]

Logits = Float32[np.ndarray, "batch ..."]
Labels = Shaped[np.ndarray, "batch ..."]
Metrics = Callable[[Logits, Labels], dict[str, float]]


def evaluate(model: nn.Module, batches: Iterable[Batch], metrics: Metrics) -> dict[str, float]:
    """``metrics(logits, labels)`` over all batches together, as float32 and int64/float32 arrays; see `predict`.

    Raises:
        TypeError, ValueError: As `predict`.

    Example:
        >>> batch = (torch.eye(3), torch.tensor([0, 1, 0]))
        >>> evaluate(nn.Identity(), [batch], lambda z, y: {"accuracy": round(float((z.argmax(-1) == y).mean()), 3)})
        {'accuracy': 0.667}
    """
    outputs, labels = zip(*predict(model, batches), strict=True)
    return metrics(np.concatenate(outputs), np.concatenate(labels))


def predict(model: nn.Module, batches: Iterable[Batch]) -> list[tuple[Logits, Labels]]:
    """Logits (float32) and labels of every batch, for metrics that need them batch by batch.

    The model is in evaluation mode meanwhile and each of its modules goes back to its own mode; no gradient and no
    weight changes, and the random stream is put back (a ``DataLoader`` draws from it), so evaluating between two
    training steps changes nothing.

    Raises:
        ValueError: If there are no batches, or no end of them.
        TypeError: If a batch is no pair, its labels are no tensor, or the model's output has no logits.

    Example:
        >>> [(logits, labels)] = predict(nn.Identity(), [(torch.eye(2), torch.tensor([0, 1]))])
        >>> logits.tolist(), labels.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    """
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    found = []
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        for batch in finite(batches):
            inputs, labels = pair(batch)
            if not isinstance(labels, Tensor):
                raise TypeError(f"the labels of a batch are a tensor; these are a {type(labels).__name__}")
            output = logits(model, to_device(inputs, device))
            found.append((output.float().cpu().numpy(), labels.cpu().numpy()))
    if not found:
        raise ValueError("there is nothing to evaluate on: no batches were given")
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; afterwards each module is in its own mode again.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     print([module.training for module in model])
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
