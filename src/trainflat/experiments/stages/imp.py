"""Iterative magnitude pruning: train, prune, rewind, again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from trainflat import train
from trainflat.compress import Mask, Ticket, prune, rounds, save_mask
from trainflat.compress.tickets import load_mask
from trainflat.experiments.resolve import Spec, build, component
from trainflat.experiments.stages.training import SCHEDULES, Training
from trainflat.experiments.work import Work, listed, make_task, nearest, point, ticket_file
from trainflat.flat.averages import swa
from trainflat.train.files import put_together, read, take_apart, write
from trainflat.types import Schedule

__all__ = ["Imp"]

SCORES = ("trainflat.compress.scores",)


@dataclass(frozen=True, kw_only=True)
class Imp(Training):
    """``rounds`` times train and prune by equal absolute steps up to ``sparsity``, then train the ticket itself.

    Frankle & Carbin 2019; for BERT as Chen et al. 2020 and Na et al. 2022 (nine rounds of 10 %, ten trainings). The row of
    a training carries the sparsity that it trained *with*. Each training has a new optimizer and its own schedule.

    Args:
        rewind: True puts the starting weights back after pruning; False goes on from the pruned ones ("standard pruning").
        schedule: Whether ``lr`` runs its course in every "round" or once over the whole "run", which then never restarts (Chen et
            al.'s scripts for standard pruning). Default: "round", the natural reading of Na et al.
        keep_at: The sparsity whose trained model is left for other stages. Default: the last.
        head: What rewinding does to the task's head: "keep" it in training (Chen et al.'s code, the default), "rewind" it to
            its initial values, or "reinit" it from a new seed each round.
        particles: Trainings of every ticket, one after the other, each with its own data order and dropout; the mean of their
            weights is scored, pruned and rewound. SWAMP, Choi et al. 2023, arXiv:2305.14852, who average the iterates of each
            as well (here ``average = "swa"``) and begin at a matching ticket, such as pretrained weights: from a random start
            particles may end in basins of their own, whose mean is no model. So many times the cost. Default: 1, no mean.
    """

    VERSION: ClassVar[int] = 1
    sparsity: float = 0.9
    rounds: int = 9
    rewind: bool = True
    schedule: Literal["round", "run"] | None = None
    keep_at: float | None = None
    head: Literal["keep", "reinit", "rewind"] = "keep"
    score: Spec = component(*SCORES, default="magnitude", given=1)
    scope: Literal["global", "tensor"] = "global"
    particles: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = [0.0, *rounds(self.sparsity, self.rounds)]
        if self.keep_at is not None and nearest(self.keep_at, levels) is None:
            raise ValueError(f"keep_at {self.keep_at} is none of the sparsities that are trained: {listed(levels)}")
        if self.particles is not None and self.particles < 1:
            raise ValueError(f"particles counts the trainings of a ticket and must be at least 1, got {self.particles}")

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        model = work.place(task.model(work.seed))
        start = train.snapshot(model)
        levels = rounds(self.sparsity, self.rounds)
        kept = len(levels) if self.keep_at is None else nearest(self.keep_at, [0.0, *levels])
        mask, rows, carried = self._resume(work, model, task)
        for level in range(len(rows), len(levels) + 1):
            cost = self._round(work, task, model, Ticket(mask, start), carried, level)
            about = {
                "variant": "imp" if self.rewind else "std",
                "sparsity": mask.sparsity,
                "kept": level == kept or None,
            }
            rows.append(point(task, task.evaluate(model), **about, sparsity_total=mask.sparsity_in(model), **cost))
            if level == kept:
                train.save_weights(work.folder / "model.safetensors", model)
            if 0 < level < len(levels):
                Ticket(mask, start).save(work.folder / ticket_file(levels[level - 1]))
            if level < len(levels):
                mask = prune(build(self.score, SCORES, model), levels[level], within=mask, scope=self.scope)
                carried = self._carried(model, task)
                save_mask(work.folder / "round.safetensors", mask, _under("carried", carried), rows=rows)
                work.forget("state.safetensors", "best.safetensors", "particles.safetensors")
            else:
                Ticket(mask, start).save(work.folder / "ticket.safetensors")
        return rows

    def _round(
        self, work: Work, task: Any, model: nn.Module, ticket: Ticket, carried: dict[str, Tensor], level: int
    ) -> dict[str, float]:
        """Train every particle from the ticket, and leave their mean in the model; returns the cost of all."""
        count = self.particles or 1
        mean, path = swa(checkpoints=count, share=1.0), work.folder / "particles.safetensors"
        cost: dict[str, float] = {"seconds": 0.0, "passes": 0, "steps": 0}
        first = level * count
        if path.exists():
            tensors, header = read(path, work.device)
            if first < header["next"]:  # else of the round before: killed between recording it and forgetting this
                first, cost = header["next"], header["cost"]
                mean.load_state_dict(put_together(header["mean"], tensors))
        params = dict(model.named_parameters())
        for particle in range(first, level * count + count):
            _drop_others(work.folder / "state.safetensors", particle)
            self._begin(model, task, ticket, carried, level, work.seed)
            with ticket.mask.on(model):
                own = self.train(work, task, model, round=particle, lr=self._lr(level))
            cost = {name: value + own[name] for name, value in cost.items()}
            mean(params, (particle % count + 1) / count)
            if particle % count + 1 < count:
                tensors = {}
                document = take_apart("mean", mean.state_dict(), tensors)
                write(path, tensors, {"next": particle + 1, "cost": cost, "mean": document})
                work.forget("state.safetensors", "best.safetensors")
        mean.apply_to(model)
        return cost

    def tickets(self) -> list[float]:
        """The sparsities of the tickets that it leaves, one a round."""
        return rounds(self.sparsity, self.rounds)

    def _lr(self, level: int) -> Schedule | None:
        """A piece of the one schedule over all trainings, or None for a round of its own."""
        if self.schedule != "run":
            return None
        whole: Schedule = build(self.lr, SCHEDULES)
        return lambda t: whole((level + t) / (self.rounds + 1))

    def _resume(self, work: Work, model: nn.Module, task: Any) -> tuple[Mask, list[dict[str, Any]], dict[str, Tensor]]:
        """The mask to train with next, the rows so far, and what the last round hands on."""
        path = work.folder / "round.safetensors"
        if not path.exists():
            return Mask.dense(model, task.prunable), [], {}
        tensors, header = read(path)
        carried = {name.removeprefix("carried/"): t for name, t in tensors.items() if name.startswith("carried/")}
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


def _drop_others(state: Path, training: int) -> None:
    """Forget the state of another training: killed between recording its end and forgetting it."""
    if state.exists() and read(state)[1]["extra"]["round"] != training:
        state.unlink()
