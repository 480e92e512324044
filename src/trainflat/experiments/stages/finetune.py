"""Fine-tune (or train) one model, dense or as a ticket found by another stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from trainflat import train
from trainflat.compress import Ticket, load_mask
from trainflat.experiments.resolve import parent
from trainflat.experiments.stages.training import Training
from trainflat.experiments.work import Work, listed, make_task, nearest, point

__all__ = ["Finetune"]


@dataclass(frozen=True, kw_only=True)
class Finetune(Training):
    """Train ``task.model(seed)``, inside the mask of ``ticket`` if one is named.

    A ticket of the same task is checked against the weights that it was drawn from; one of another task brings its mask,
    and the model its own pretrained weights and a fresh head (Chen et al. 2020, section 5). ``at`` takes the ticket of an
    earlier round, of this sparsity, instead of the last.
    """

    VERSION: ClassVar[int] = 1
    ticket: str | None = parent(default=None)
    at: float | None = None

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """What can only be seen with the parents at hand; called while planning."""
        if "ticket" not in parents:
            if self.at is not None:
                raise ValueError("at is the sparsity of a ticket; name the stage that finds it as ticket")
            return
        source = parents["ticket"]
        if not hasattr(source, "tickets"):
            raise ValueError(f"{self.ticket!r} is a {type(source).__name__}, which leaves no ticket; Imp and Draw do")
        if self.at is not None and nearest(self.at, source.tickets()) is None:
            raise ValueError(f"at = {self.at}, but {self.ticket!r} leaves tickets at {listed(source.tickets())}")

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        model = work.place(task.model(work.seed))
        mask, variant = None, "dense"
        if self.ticket is not None:
            source = work.parents["ticket"]
            path, variant = source.ticket(self.at), "ticket"
            same = source.stage.task == self.task
            mask = Ticket.load(path, train.snapshot(model)).mask if same else load_mask(path)
        with mask.on(model) if mask else nullcontext():
            cost = self.train(work, task, model)
        train.save_weights(work.folder / "model.safetensors", model)
        sparsity = mask.sparsity if mask else 0.0
        total = mask.sparsity_in(model) if mask else 0.0
        return [point(task, task.evaluate(model), variant=variant, sparsity=sparsity, sparsity_total=total, **cost)]
