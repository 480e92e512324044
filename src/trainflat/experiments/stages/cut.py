"""The controls of structured pruning: the same size by plainer ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trainflat import compress
from trainflat.compress import uniform
from trainflat.compress.sizes import full_size
from trainflat.experiments.resolve import Spec, component, parent
from trainflat.experiments.stages.shrunk import RAW, leave, sizes
from trainflat.experiments.work import TASKS, Work, make_task, point

__all__ = ["Cut"]

WAYS = {"narrow": uniform.narrow, "shallow": uniform.shallow}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Cut the model of another stage at once, to be fine-tuned by a `Distill` stage: what gates have to be better than.

    Args:
        model: The stage whose model is cut.
        way: "narrow" keeps the same share of every width, of the largest weights; "shallow" drops layers from the top.
        like: The stage (`Structured`) whose size, in parameters of the layers, is the aim.
        sparsity: The aim without such a stage, in [0, 1).
    """

    VERSION: ClassVar[int] = 1
    task: Spec = component(*TASKS)
    model: str = parent()
    way: Literal["narrow", "shallow"] = "narrow"
    like: str | None = parent(default=None)
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if (self.like is None) == (self.sparsity is None):
            raise ValueError("like (a stage) or sparsity says how small to cut; give one of the two")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {self.sparsity}")

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """What can only be seen with the parents at hand; called while planning."""
        if not hasattr(parents["model"], "task"):
            raise ValueError(f"model = {self.model!r} is a {type(parents['model']).__name__}, which leaves no model")
        if "like" in parents and type(parents["like"]).__name__ != "Structured":
            raise ValueError(
                f"like = {self.like!r} is a {type(parents['like']).__name__}; it must be a Structured stage"
            )

    def run(self, work: Work) -> list[dict[str, Any]]:
        task, model = make_task(self.task), work.parents["model"].model(work.seed)
        parts = compress.structure(model)
        if self.like is None:
            asked = wanted = self.sparsity
        else:
            asked, wanted = (work.parents["like"].row[key] for key in ("sparsity", "sparsity_layers"))
        assert asked is not None
        assert wanted is not None
        shape = WAYS[self.way](parts, round((1 - wanted) * full_size(parts)))
        small = work.place(compress.shrink(model, parts, uniform.opened(model, parts, shape)))
        about = {
            "variant": f"{self.way}{RAW}",
            "sparsity": asked,
            **sizes(parts, model, small),
            **leave(work, small),
        }
        return [point(task, task.evaluate(small), **about)]
