"""What a rule calls in one step: forward and backward over its micro-batches, a part or pieces of them, or chosen examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from time import perf_counter
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainflat.train.batches import examples, first_part, part, pick
from trainflat.train.objectives import each_example
from trainflat.types import Batch, Objective

__all__ = ["Backward", "MicroBatches", "Precision", "loss_of", "losses_of"]

Precision = Literal["fp32", "bf16"]

FORWARD = Fraction(1, 3)  # of a pass: its backward half takes two products of matrices for each of the forward's


class MicroBatches(ABC):
    """The micro-batches of one step, each with the weight of its loss, and how they are cut.

    ``scales``: those weights. Default: 1 / their number, so that the loss is their mean.
    """

    def __init__(self, micro: list[Batch], scales: list[Fraction] | None = None):
        self.micro, self.scales = micro, scales or [Fraction(1, len(micro))] * len(micro)

    @abstractmethod
    def over(self, micro: list[Batch], scales: list[Fraction] | None = None) -> Self:
        """The same over other micro-batches."""

    @property
    def count(self) -> int:
        """Examples in all micro-batches together."""
        return sum(map(examples, self.micro))

    def part(self, fraction: float) -> Self:
        """The same over the first part of every micro-batch: for rules that ascend on less data."""
        return self.over([first_part(batch, fraction) for batch in self.micro])

    def pieces(self, count: int) -> list[Self]:
        """The batch cut in ``count``, each micro-batch alike; losses and gradients of the pieces add up to the whole's.

        There are fewer pieces if no micro-batch has that many examples.
        """
        sizes = [examples(batch) for batch in self.micro]
        pieces = []
        for i in range(min(count, max(sizes))):
            cut = [part(batch, i, min(count, max(sizes))) for batch in self.micro]
            kept = [(piece, scale * examples(piece) / size) for piece, scale, size in zip(cut, self.scales, sizes)]
            micro, scales = zip(*[(piece, scale) for piece, scale in kept if scale])
            pieces.append(self.over(list(micro), list(scales)))
        return pieces


class Backward(MicroBatches):
    """Forward and backward over the micro-batches of one step; remembers each pass: its losses, share of the work, seconds."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        micro: list[Batch],
        precision: Precision,
        beside: Sequence[nn.Parameter],
        scales: list[Fraction] | None = None,
    ):
        super().__init__(micro, scales)
        self.model, self.objective, self.beside = model, objective, beside
        self.precision: Precision = precision
        self.share = Fraction(1)
        self.seen: list[Tensor] = []
        self.shares: list[Fraction] = []
        self.seconds: list[float] = []

    def __call__(self) -> Tensor:
        total = None
        with self._timed():
            self._forget_beside()
            for batch, scale in zip(self.micro, self.scales, strict=True):
                with self._autocast():
                    loss = loss_of(self.objective, self.model, batch) * scale.numerator / scale.denominator
                loss.backward()
                total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        self.seen.append(total)
        self.shares.append(self.share)
        return total

    def losses(self, weights: Float[Tensor, " batch"] | None = None) -> Float[Tensor, " batch"]:
        """The losses of the single examples, whose mean is the loss: of all micro-batches, in order, without a graph.

        With weights, the gradient of ``(weights * losses).mean()`` is added; an example of weight 0 is not run, and its loss
        is given as 0. Without them there is no backward pass, and this counts as a third of one.

        Raises:
            TypeError: If the objective gives one number for the batch, see `trainflat.train.objectives.each_example`.
        """
        with self._timed():
            every, run = self._losses(weights)
        self.seen.append(every.mean())
        self.shares.append(self.share * Fraction(run, self.count) * (1 if weights is not None else FORWARD))
        return every

    def _losses(self, weights: Float[Tensor, " batch"] | None) -> tuple[Float[Tensor, " batch"], int]:
        """The losses, and of how many examples they were computed."""
        count, found, run = self.count, [], 0
        if weights is not None:
            self._forget_beside()
        start = 0
        for batch, scale in zip(self.micro, self.scales, strict=True):
            size = examples(batch)
            own = torch.ones(size) if weights is None else weights[start : start + size]
            start, chosen = start + size, own.nonzero()[:, 0]
            if len(chosen) < size:
                batch = pick(batch, chosen)
            losses = torch.zeros(0, device=own.device)
            if len(chosen):
                with self._autocast(), torch.set_grad_enabled(weights is not None):
                    losses = losses_of(self.objective, self.model, batch) * float(scale * count / size)
                if weights is not None:
                    (losses * own[chosen].to(losses)).sum().div(count).backward()
            whole = losses.new_zeros(size)
            whole[chosen.to(whole.device)] = losses.detach()
            found.append(whole)
            run += len(chosen)
        device = next(self.model.parameters()).device
        return torch.cat([each.to(device) for each in found]), run

    def over(self, micro: list[Batch], scales: list[Fraction] | None = None) -> Self:
        piece = type(self)(self.model, self.objective, micro, self.precision, self.beside, scales)
        piece.share = Fraction(piece.count, self.count)
        piece.seen, piece.shares, piece.seconds = self.seen, self.shares, self.seconds
        return piece

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = perf_counter()
        yield
        self.seconds.append(perf_counter() - began)

    def _forget_beside(self) -> None:
        for p in self.beside:
            p.grad = None

    def _autocast(self):
        if self.precision == "fp32":
            return nullcontext()
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)


def loss_of(objective: Objective, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """The mean loss of a batch, with a graph behind it.

    Raises:
        TypeError: If the objective gives no tensor, or is one of torch's losses, which take outputs and labels.
        ValueError: If it gives more than one number.

    Example:
        >>> loss_of(nn.CrossEntropyLoss(), nn.Identity(), (torch.eye(2), torch.tensor([0, 1])))      # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: an objective is called with the model and a batch, as train.cross_entropy is; CrossEntropyLoss() takes ...
    """
    if isinstance(objective, nn.modules.loss._Loss):
        raise TypeError(
            f"an objective is called with the model and a batch, as train.cross_entropy is; {objective} takes outputs "
            "and labels, so lambda model, batch: loss(model(batch[0]), batch[1])"
        )
    loss = objective(model, batch)
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"an objective gives the mean loss of a batch, a 0-d tensor; this one gave a {type(loss).__name__}"
        )
    if loss.ndim:
        raise ValueError(
            f"an objective gives the mean loss of a batch, a 0-d tensor; this one has shape {tuple(loss.shape)}"
        )
    return loss


def losses_of(objective: Objective, model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """The loss of each example of a batch, with a graph behind it.

    Raises:
        TypeError: If the objective gives one number for the batch.

    Example:
        >>> from trainflat.train import mean_squared_error
        >>> losses_of(mean_squared_error, nn.Identity(), (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))
        tensor([0., 4.])
    """
    with each_example():
        losses = objective(model, batch)
    if losses.shape != (examples(batch),):
        raise TypeError(
            f"this rule needs the loss of each of the {examples(batch)} examples, and the objective gives a tensor of shape "
            f"{tuple(losses.shape)}: return what train.cross_entropy or train.mean_squared_error returns, or take sam or m_sam"
        )
    return losses
