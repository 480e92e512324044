"""A ticket by a score alone, without any training: what training a ticket has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trainflat import train
from trainflat.compress import Mask, Ticket, prune
from trainflat.experiments.resolve import Spec, build, component
from trainflat.experiments.work import TASKS, Work, make_task

__all__ = ["Draw"]

SCORES = ("trainflat.compress.scores",)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Prunes ``task.model(seed)`` as it is. By default at random, over all prunable weights together: the random tickets of
    Chen et al. 2020 (their helper prunes globally) and Na et al. 2022, table 6. ``score`` = "magnitude" draws the ticket that
    the pretrained weights' size alone says. The seed of the run draws the random scores.
    """

    VERSION: ClassVar[int] = 1
    task: Spec = component(*TASKS)
    sparsity: float
    score: Spec = component(*SCORES, default="random", given=1)
    scope: Literal["global", "tensor"] = "global"

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is the share that is pruned and must be in (0, 1), got {self.sparsity}")

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        model = task.model(work.seed)
        scores = build(self.score, SCORES, model, seed=work.seed)
        mask = prune(scores, self.sparsity, within=Mask.dense(model, task.prunable), scope=self.scope)
        Ticket(mask, train.snapshot(model)).save(work.folder / "ticket.safetensors")
        row = {"task": task.name, "model": getattr(task, "model_name", None), "variant": f"drawn {self.score.name}"}
        return [{**row, "sparsity": mask.sparsity, "sparsity_total": mask.sparsity_in(model)}]

    def tickets(self) -> list[float]:
        """The sparsity of the one ticket that it leaves."""
        return [self.sparsity]
