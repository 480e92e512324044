"""What a trained model's features and surroundings look like, and how it lies to another, on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from trainflat import flat, train
from trainflat.experiments.resolve import parent
from trainflat.experiments.stages.measured import Measured
from trainflat.experiments.work import Work, row_of
from trainflat.flat.features import Features
from trainflat.flat.metrics import adaptive

__all__ = ["Geometry"]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Feature rank and scale-invariant sharpness of the model of another stage; with a second one CKA and barrier between both.

    The row has no ``value`` and its numbers under ``geometry``: ``loss``; ``feature rank`` (components for 99 % of the variance),
    ``effective rank`` and ``features`` (how many there are); ``adaptive ascent`` (`trainflat.flat.ascent_sharpness` in the
    metric that scales with the weights; every weight moves but those of zero). With ``other`` also ``cka`` (absent if a model's
    features are the same for all examples), ``barrier``, ``barrier at`` (the second model's share there) and ``path`` (the
    losses from the one to the other); ``variant`` and ``sparsity`` are those of ``model``.

    Args:
        model: A stage that leaves a model.
        other: Another of the same task, as the round before or the next rule's. Default: none.
        layer: The layer whose outputs are the features. Default: what goes into the task's head.
        tokens: Which vector of a sequence; see `trainflat.flat.features`.
        examples: The first so many held-out examples, for everything. Default: all.
        rho: Radius of the ascent. Default: 0.5, as `asam`'s.
        points: On the line between both models; each is a pass over the data.
    """

    VERSION: ClassVar[int] = 1
    model: str = parent()
    other: str | None = parent(default=None)
    layer: str | None = None
    tokens: Literal["mean", "first"] = "mean"
    examples: int | None = None
    rho: float = 0.5
    points: int = 11

    def __post_init__(self) -> None:
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}; leave it out for all")
        if self.rho < 0 or self.points < 3:
            raise ValueError(f"rho must be at least 0 and points at least 3, got {self.rho} and {self.points}")

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """What can only be seen with the parents at hand; called while planning."""
        if len({str(getattr(stage, "task", None)) for stage in parents.values()}) > 1:
            raise ValueError(f"{self.model!r} and {self.other!r} are of two tasks; a line between models needs one")

    def run(self, work: Work) -> list[dict[str, Any]]:
        source, second = work.parents["model"], work.parents.get("other")
        task, model = source.task(), work.place(source.model(work.seed))
        measured = Measured(work, of=3 if second is None else 5)
        batches = list(task.held_out_batches(self.examples))
        loss = flat.Loss(model, task.objective, batches, after=measured.pause)
        found: dict[str, Any] = {"loss": measured.once("loss", loss.value)}
        seen = self._features(model, batches, task)
        rank = lambda: {"feature rank": flat.feature_rank(seen), "effective rank": flat.effective_rank(seen)}
        found |= {**measured.once("rank", rank), "features": seen.shape[1]}
        ascent = lambda: flat.ascent_sharpness(loss, rho=self.rho, metric=adaptive(0.0))
        found["adaptive ascent"] = measured.once("ascent", ascent)
        if second is not None:
            neighbour = work.place(second.model(work.seed))
            alike = measured.once("cka", lambda: flat.cka(seen, self._features(neighbour, batches, task)))
            ends = train.snapshot(model), neighbour.state_dict()
            line = measured.once(
                "barrier", lambda: flat.barrier(model, *ends, lambda _: loss.value(), points=self.points)
            )
            found |= {"cka": None if math.isnan(alike) else alike}
            found |= dict(zip(("barrier", "barrier at", "path"), line, strict=True))
        measured.forget()
        about = {"variant": source.row["variant"], "sparsity": source.row["sparsity"], "examples": loss.examples}
        known = {name: value for name, value in found.items() if value is not None}
        return [row_of(task, **about, geometry=known)]

    def _features(self, model: nn.Module, batches: list[Any], task: Any) -> Features:
        if self.layer is not None:
            return flat.features(model, batches, self.layer, tokens=self.tokens)
        return flat.features(model, batches, task.head[0].rstrip("."), side="input", tokens=self.tokens)
