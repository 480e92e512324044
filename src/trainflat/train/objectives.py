"""What is minimised. An objective is a function ``(model, batch) -> loss``; a batch is ``(inputs, labels)``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainflat.types import Batch

__all__ = ["cross_entropy", "logits", "mean_squared_error"]


def logits(model: nn.Module, inputs: Any) -> Tensor:
    """The model's output for ``inputs``: a tensor, or a dict of keyword arguments; an output with ``.logits`` is unpacked."""
    output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return output if isinstance(output, Tensor) else output.logits


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of the labels: -1/n sum_i log softmax(z_i)[y_i], in nats.

    Labels are class indices (int64, shape ``batch``), logits have shape ``batch classes``.

    Example:
        >>> import math
        >>> import torch
        >>> loss = cross_entropy(nn.Identity(), (torch.zeros(2, 4), torch.tensor([0, 3])))
        >>> bool(torch.isclose(loss, torch.tensor(math.log(4))))
        True
    """
    inputs, labels = batch
    return nn.functional.cross_entropy(logits(model, inputs), labels)


def mean_squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of (z_i - y_i)^2 for regression; logits have shape ``batch`` or ``batch 1``, labels shape ``batch``.

    Example:
        >>> import torch
        >>> mean_squared_error(nn.Identity(), (torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])))
        tensor(2.)
    """
    inputs, labels = batch
    return nn.functional.mse_loss(logits(model, inputs).reshape(labels.shape), labels.float())
