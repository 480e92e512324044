"""Learning from a teacher: its predictions, and what its layers say. An objective made from another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainflat.compress.dialects import Dialect, layers, structure
from trainflat.compress.gates import Gates
from trainflat.compress.matching import RULES, Exists, fixed, spread
from trainflat.compress.shrink import Shape
from trainflat.train.compiled import uncompiled
from trainflat.train.objectives import logits
from trainflat.types import Batch, Objective

__all__ = ["Distillation", "distill", "prediction_loss"]


def prediction_loss(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, dim: int = -1) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), the mean over everything but the classes.

    Hinton et al. 2015, section 2, arXiv:1503.02531. A model with a single output (regression) has no distribution: there it
    is the mean of the squared difference.

    Args:
        dim: The axis of the classes; 1 for spans (``batch seq 2``: positions compete, start and end are averaged).

    Example:
        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> prediction_loss(z, z + 5.0), prediction_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
        (tensor(0.), tensor(4.))
    """
    if student.shape[dim] == 1:
        return functional.mse_loss(student, teacher)
    own, theirs = (torch.log_softmax(z / temperature, dim=dim) for z in (student, teacher))
    return functional.kl_div(own, theirs, reduction="none", log_target=True).sum(dim).mean() * temperature**2


def distill(
    objective: Objective,
    teacher: nn.Module,
    student: nn.Module,
    *,
    temperature: float = 2.0,
    predictions: float = 0.1,
    states: float = 0.9,
    labels: float = 0.0,
    matching: str = "dynamic",
    teacher_layers: Sequence[int] | None = None,
    gates: Gates | None = None,
    dim: int = -1,
    dialect: Dialect | None = None,
) -> Distillation:
    """labels * objective + predictions * T^2 KL(teacher || student) + states * sum_i MSE(W h_m(i), teacher's h_i).

    Xia et al. 2022 (CoFi), section 3.2, arXiv:2204.00408, for students under gates, shrunk ones, and any smaller encoder: W is
    one linear layer, learnt, that starts as the identity; m is the layer that the rule ``matching`` finds. Give the optimizer
    ``distillation.parameters()`` as well: W is not the model's.

    Args:
        objective: What the labels say, in a forward pass of its own; not asked if ``labels`` is 0.
        teacher: Fixed, in evaluation mode, on the student's device; no part of ``parameters()`` or of the state dict.
        student: The model that will be trained (its names and width are read, nothing else).
        temperature: T. Default: 2, as CoFi's script and Na et al. 2022.
        predictions, states: Weights. Default: 0.1 and 0.9, those of CoFi's code; Na et al. 2022, table 7, have them for SST-2 and
            QNLI (QQP, MNLI: 0.3 and 0.7).
        labels: Default: 0; CoFi learns from the teacher alone.
        matching: ``"fixed"`` (same share of the depth), ``"dynamic"``, ``"monotone"``, ``"v3"`` or ``"v4"``: see
            `trainflat.compress.matching`.
        teacher_layers: Counted from 0. Default: four at equal distances, as CoFi: 2, 5, 8, 11 of 12.
        gates: Those that are on the student, if any: they say which of its layers exist.
        dim: As for `prediction_loss`.
        dialect: Of both models; default: found out.

    Raises:
        ValueError: If a weight is negative or all are zero, the temperature is not positive, the rule is unknown, or the
            teacher has no such layer.

    Example:
        >>> from trainflat import train
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small().eval()
        >>> same = distill(train.cross_entropy, model, model)
        >>> same(model, (torch.ones(2, 8, 8), torch.tensor([0, 1]))).item()                    # its own teacher
        0.0
    """
    if min(predictions, states, labels) < 0 or not predictions + states + labels > 0:
        raise ValueError(f"weights must be at least 0 and not all 0, got {predictions=}, {states=}, {labels=}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if matching not in ("fixed", *RULES):
        raise ValueError(f"matching must be one of {', '.join(['fixed', *RULES])}; got {matching!r}")
    names = layers(teacher, dialect)
    chosen = spread(len(names)) if teacher_layers is None else tuple(teacher_layers)
    if not chosen or min(chosen) < 0 or max(chosen) >= len(names) or sorted(set(chosen)) != list(chosen):
        raise ValueError(f"teacher_layers must rise within 0 to {len(names) - 1}, got {list(chosen)}")
    settings = _Settings(temperature, predictions, states, labels, matching, chosen, dim)
    return Distillation(objective, teacher, student, settings, gates, dialect)


@dataclass(frozen=True)
class _Settings:
    temperature: float
    predictions: float
    states: float
    labels: float
    matching: str
    chosen: tuple[int, ...]
    dim: int


class Distillation(nn.Module):
    """What `distill` returns: an objective with a ``projection`` to learn; ``matched`` is the last step's match."""

    def __init__(
        self,
        objective: Objective,
        teacher: nn.Module,
        student: nn.Module,
        settings: _Settings,
        gates: Gates | None,
        dialect: Dialect | None,
    ):
        super().__init__()
        self.objective, self.settings = objective, settings
        self._outside = (teacher.eval(), gates)  # a tuple's modules are no sub-modules: not trained, not saved here
        self._names = (layers(student, dialect), layers(teacher, dialect))
        like = next(student.parameters())
        room = nn.Linear(_width(student, dialect), _width(teacher, dialect), device="meta", dtype=like.dtype)
        self.projection = room.to_empty(device=like.device)  # made like this it draws nothing
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.matched: list[int | None] = []

    @torch.no_grad()
    def continue_from(self, earlier: Distillation, hidden: Tensor) -> None:
        """Take the projection learnt under gates, its columns of the hidden dimensions that live (gates above 0).

        On the shrunk student it then says exactly what it said on the gated one.
        """
        self.projection.weight.copy_(earlier.projection.weight[:, hidden > 0])
        self.projection.bias.copy_(earlier.projection.bias)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum, for one batch."""
        inputs, _ = batch
        to = self.settings
        terms = []
        if to.labels:
            terms.append(to.labels * self.objective(model, batch))
        if to.predictions or to.states:
            teacher, _ = self._outside
            with torch.no_grad(), _recorded(teacher.eval(), self._names[1]) as theirs:
                wanted = logits(teacher, inputs)
            with _recorded(model, self._names[0]) as own:
                found = logits(model, inputs)
            if to.predictions:
                terms.append(to.predictions * prediction_loss(found, wanted, temperature=to.temperature, dim=to.dim))
            if to.states:
                terms.append(to.states * self.states_loss(model, own, [theirs[layer] for layer in to.chosen]))
        return torch.stack(terms).sum()

    def states_loss(self, model: nn.Module, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """The sum over the chosen teacher layers of MSE(W h, teacher's h) for the matched h; without a match 0."""
        if self.settings.matching == "fixed":
            self.matched = fixed(self.settings.chosen, len(self._names[1]), len(own))
        else:
            self.matched = self._match(model, own, theirs)
        pairs = [(own[layer], wanted) for layer, wanted in zip(self.matched, theirs) if layer is not None]
        if not pairs:
            return own[0].new_zeros(())
        return torch.stack([functional.mse_loss(self.projection(state), wanted) for state, wanted in pairs]).sum()

    @torch.no_grad()
    def _match(self, model: nn.Module, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[int | None]:
        """One table of distances, read from the device once."""
        projected = [self.projection(state) for state in own]
        table = torch.stack([functional.mse_loss(state, wanted) for wanted in theirs for state in projected])
        attention, ffn = self._exists(model, len(own), table)
        numbers = torch.cat([table.float(), attention.float(), ffn.float()]).tolist()
        width, cells = len(own), len(table)
        rows = [numbers[i : i + width] for i in range(0, cells, width)]
        flags = [bool(number) for number in numbers[cells:]]
        return RULES[self.settings.matching](rows, Exists(flags[:width], flags[width:]))

    def _exists(self, model: nn.Module, depth: int, table: Tensor) -> tuple[Tensor, Tensor]:
        _, gates = self._outside
        if gates is not None and gates.alive is not None:
            return gates.alive
        shape = getattr(model, "trainflat_shape", None)
        units = (shape.heads, shape.neurons) if isinstance(shape, Shape) else ([1] * depth, [1] * depth)
        return torch.tensor(units[0], device=table.device) > 0, torch.tensor(units[1], device=table.device) > 0


@contextmanager
def _recorded(model: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """The output of each of these modules, in the order in which they are called, while open."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [model.get_submodule(name).register_forward_hook(keep) for name in names]
    try:
        with uncompiled():
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _width(model: nn.Module, dialect: Dialect | None) -> int:
    shape = getattr(model, "trainflat_shape", None)
    return shape.hidden if isinstance(shape, Shape) else structure(model, dialect).hidden
