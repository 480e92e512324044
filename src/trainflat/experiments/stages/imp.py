"""Iterative magnitude pruning: train, prune, rewind, again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from trainflat import train
from trainflat.compress import Mask, Ticket, prune, rounds, save_mask
from trainflat.compress.tickets import load_mask
from trainflat.experiments.resolve import Spec, build, component
from trainflat.experiments.stages.training import Training
from trainflat.experiments.work import Work, make_task, point
from trainflat.train.state import read

__all__ = ["Imp"]

SCORES = ("trainflat.compress.scores",)


@dataclass(frozen=True, kw_only=True)
class Imp(Training):
    """``rounds`` times train and prune by equal absolute steps up to ``sparsity``, then train the ticket itself.

    Frankle & Carbin 2019; for BERT as Chen et al. 2020 and Na et al. 2022 (nine rounds of 10 %, ten trainings). The row of
    a training carries the sparsity that it trained *with*. Each training has a new optimizer and its own schedule.

    Args:
        rewind: True puts the starting weights back after pruning; False goes on from the pruned ones ("standard pruning").
        head: What rewinding does to the task's head: "keep" it in training (Chen et al.'s code, the default), "rewind" it to
            its initial values, or "reinit" it from a new seed each round.
    """

    VERSION: ClassVar[int] = 1
    sparsity: float = 0.9
    rounds: int = 9
    rewind: bool = True
    head: Literal["keep", "reinit", "rewind"] = "keep"
    score: Spec = component(*SCORES, default="magnitude", given=1)
    scope: Literal["global", "tensor"] = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self.sparsity, self.rounds)

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        model = work.place(task.model(work.seed))
        start = train.snapshot(model)
        levels = rounds(self.sparsity, self.rounds)
        mask, rows, carried = self._resume(work, model, task)
        for level in range(len(rows), len(levels) + 1):
            self._begin(model, task, Ticket(mask, start), carried, level, work.seed)
            with mask.on(model):
                cost = self.train(work, task, model, round=level)
            about = {"variant": "imp" if self.rewind else "std", "sparsity": mask.sparsity}
            rows.append(point(task, task.evaluate(model), **about, sparsity_total=mask.sparsity_in(model), **cost))
            if level < len(levels):
                mask = prune(build(self.score, SCORES, model), levels[level], within=mask, scope=self.scope)
                carried = self._carried(model, task)
                save_mask(work.folder / "round.safetensors", mask, _under("carried", carried), rows=rows)
                work.forget("state.safetensors", "best.safetensors")
            else:
                train.save_weights(work.folder / "model.safetensors", model)
                Ticket(mask, start).save(work.folder / "ticket.safetensors")
        return rows

    def _resume(self, work: Work, model: nn.Module, task: Any) -> tuple[Mask, list[dict[str, Any]], dict[str, Tensor]]:
        """The mask to train with next, the rows so far, and what the last round hands on."""
        path = work.folder / "round.safetensors"
        if not path.exists():
            return Mask.dense(model, task.prunable), [], {}
        tensors, header = read(path)
        carried = {name.removeprefix("carried/"): t for name, t in tensors.items() if name.startswith("carried/")}
        state = work.folder / "state.safetensors"
        if state.exists() and read(state)[1]["extra"]["round"] != len(header["rows"]):
            state.unlink()  # killed between recording the round and forgetting its state
        return load_mask(path), header["rows"], carried

    def _carried(self, model: nn.Module, task: Any) -> dict[str, Tensor]:
        """What the next round takes over from this one's trained weights."""
        if not self.rewind:
            return train.snapshot(model)
        if self.head == "keep":
            return {name: tensor for name, tensor in train.snapshot(model).items() if name.startswith(task.head)}
        return {}

    def _begin(
        self, model: nn.Module, task: Any, ticket: Ticket, carried: dict[str, Tensor], level: int, seed: int
    ) -> None:
        """Put the weights where a round starts."""
        if level and self.rewind and self.head == "reinit":
            fresh = task.model(train.derive("head", seed, level)).state_dict()
            carried = {name: tensor for name, tensor in fresh.items() if name.startswith(task.head)}
        train.restore(model, {**ticket.start, **carried})
        ticket.mask.apply_to(model)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
