"""What is minimised. An objective is a function ``(model, batch) -> loss``; a batch is ``(inputs, labels)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from trainflat.train.batches import pair
from trainflat.types import Batch, Objective

__all__ = ["cross_entropy", "each_example", "l1", "logits", "mean_squared_error"]

_REDUCTION: ContextVar[str] = ContextVar("reduction", default="mean")


def logits(model: nn.Module, inputs: Any) -> Float[Tensor, "batch ..."]:
    """The model's output for ``inputs``: a tensor, or a dict of keyword arguments; an output with ``.logits`` is unpacked.

    An output with ``.start_logits`` and ``.end_logits``, of a model that finds spans, becomes one tensor ``batch seq 2``.

    Raises:
        TypeError: If the output is something else, such as a tuple.
    """
    output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    if not hasattr(output, "logits"):
        raise TypeError(
            f"the model gives a {type(output).__name__}; the logits are a tensor, or the .logits of an output: let the model's "
            "forward return them; to train, an objective of your own, (model, batch) -> loss, may call the model as it likes"
        )
    return output.logits


@contextmanager
def each_example() -> Iterator[None]:
    """Meanwhile `cross_entropy` and `mean_squared_error` give the loss of each example instead of the mean of them.

    And so does every objective that returns theirs, such as a task's. What an objective adds to them (`l1`, distillation)
    is added to each: it counts alike for all examples.

    Example:
        >>> batch = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])
        >>> with each_example():
        ...     mean_squared_error(nn.Identity(), batch)
        tensor([0., 4.])
    """
    before = _REDUCTION.set("none")
    try:
        yield
    finally:
        _REDUCTION.reset(before)


def cross_entropy(model: nn.Module, batch: Batch) -> Float[Tensor, " ..."]:
    """Mean negative log-likelihood of the labels: -1/n sum_i log softmax(z_i)[y_i], in nats.

    Labels are class indices (int64, shape ``batch``), logits have shape ``batch classes``.

    Example:
        >>> import math
        >>> import torch
        >>> loss = cross_entropy(nn.Identity(), (torch.zeros(2, 4), torch.tensor([0, 3])))
        >>> bool(torch.isclose(loss, torch.tensor(math.log(4))))
        True
    """
    inputs, labels = pair(batch)
    return _negative_log_likelihood(logits(model, inputs), labels)


def mean_squared_error(model: nn.Module, batch: Batch) -> Float[Tensor, " ..."]:
    """Mean of (z_i - y_i)^2 for regression; logits have shape ``batch`` or ``batch 1``, labels shape ``batch``.

    Example:
        >>> import torch
        >>> mean_squared_error(nn.Identity(), (torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])))
        tensor(2.)
    """
    inputs, labels = pair(batch)
    return _squared_error(logits(model, inputs), labels)


def l1(
    objective: Objective, *, strength: float = 1e-5, where: Callable[[str, nn.Parameter], bool] | None = None
) -> Objective:
    """Another objective plus an l1 penalty: L(w) + strength * sum |w_i|, which drives weights towards zero.

    Tibshirani 1996; the control of Na et al. 2022, appendix A.7: is it small weights that make SAM's models compressible? They
    do not give the coefficient; the sum is over the prunable weights if ``where`` is the task's ``prunable``, as in recipes.

    Args:
        objective: What is penalised.
        strength: >= 0; 0 is the objective itself. Default: 1e-5, the middle of the sweep 1e-6 to 1e-4 over which recipes run it.
        where: Which parameters; default: all that require a gradient.

    Raises:
        ValueError: If the strength is negative; in training, if there is no such parameter.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -3.0]]))
        >>> l1(lambda model, batch: torch.tensor(1.0), strength=0.5)(model, None)       # 1 + 0.5 * 4
        tensor(3., grad_fn=<AddBackward0>)
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0, got {strength}")

    def penalised(model: nn.Module, batch: Batch) -> Float[Tensor, " ..."]:
        loss = objective(model, batch)
        if strength == 0:
            return loss
        chosen: list[Tensor] = [
            p for name, p in model.named_parameters() if p.requires_grad and (where is None or where(name, p))
        ]
        if not chosen:
            raise ValueError(
                "an l1 penalty has nothing to penalise: `where` selects no parameter of this model that requires a gradient"
            )
        return loss + strength * torch.stack(torch._foreach_norm(chosen, 1)).sum()

    return penalised


def _negative_log_likelihood(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " ..."]:
    return nn.functional.cross_entropy(logits, labels, reduction=_REDUCTION.get())


def _squared_error(
    logits: Float[Tensor, "batch 1"] | Float[Tensor, " batch"], labels: Real[Tensor, " batch"]
) -> Float[Tensor, " ..."]:
    return nn.functional.mse_loss(logits.reshape(labels.shape), labels.float(), reduction=_REDUCTION.get())
