"""Learning from a teacher that another stage trained: a student of any size, without gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from trainflat import train
from trainflat.compress import Distillation, Gates
from trainflat.experiments.resolve import Spec, build, component, parent
from trainflat.experiments.stages.shrunk import RAW, leave
from trainflat.experiments.stages.training import Training
from trainflat.experiments.work import Parent, Work, make_task, point
from trainflat.tasks import zoo
from trainflat.train.files import read
from trainflat.train.objectives import cross_entropy

__all__ = ["PROJECTION", "Distill", "Distilling"]

DISTILLATIONS = ("trainflat.compress.distill",)
PROJECTION = "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Distilling(Training):
    """What the stages with a teacher share. The student starts where ``student`` says, by default from pretrained weights.

    Args:
        teacher: The stage whose model is learnt from; of the same task.
        student: The stage whose model (and, of a student of an earlier stage, whose learnt projection) to go on from.
        distillation: See `trainflat.compress.distill`. Default: CoFi's for SST-2 and QNLI.
        freeze_embeddings: Whether the tables of the student's embeddings stay as they are. Default: true, as CoFi does.
    """

    teacher: str = parent()
    student: str | None = parent(default=None)
    distillation: Spec = component(*DISTILLATIONS, default="distill", given=3)
    freeze_embeddings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective is not None:
            raise ValueError("objective has no say where a teacher has; give distillation a weight for labels instead")
        if isinstance(self.distillation, Spec):
            sound = {key: value for key, value in self.distillation.kwargs.items() if key != "teacher_layers"}
            with torch.device("meta"):
                tiny = zoo.vit_small()
            build(Spec(self.distillation.name, sound), DISTILLATIONS, cross_entropy, tiny, tiny)  # while planning

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """What can only be seen with the parents at hand; called while planning."""
        for role, source in parents.items():
            if not hasattr(source, "task"):
                raise ValueError(
                    f"{role} = {getattr(self, role)!r} is a {type(source).__name__}, which leaves no model"
                )
            if source.task != self.task:
                raise ValueError(
                    f"{role} = {getattr(self, role)!r} is about {source.task}, this stage about {self.task}; a student "
                    f"learns the task, with the labels in the order, of its teacher"
                )

    def begin(self, work: Work, task: Any) -> tuple[nn.Module, nn.Module]:
        """The teacher, fixed, and the student as it starts."""
        source = work.parents.get("student")
        student = source.model(work.seed) if source else task.model(work.seed)
        return self.pair(work, work.parents["teacher"].model(work.seed), student)

    def pair(self, work: Work, teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Both on the device, and frozen what is not to learn."""
        teacher, student = work.place(teacher).requires_grad_(False).eval(), work.place(student)
        if self.freeze_embeddings:
            for table in student.modules():
                if isinstance(table, nn.Embedding):
                    table.requires_grad_(False)
        return teacher, student

    def rehearse(self, work: Work, task: Any) -> dict[str, float]:
        """As `Training.rehearse`; the student is whole, so a step of a small one takes less."""
        teacher, student = self.pair(work, task.model(work.seed), task.model(work.seed))
        return self.train(work, task, student, objective=self.learning(task, teacher, student, None))

    def learning(
        self, task: Any, teacher: nn.Module, student: nn.Module, source: Parent | None, gates: Gates | None = None
    ) -> Distillation:
        """The objective; its projection goes on from that of the stage where the student comes from."""
        made = build(self.distillation, DISTILLATIONS, task.objective, teacher, student, gates=gates)
        if source and (source.folder / PROJECTION).exists():
            made.load_state_dict(read(source.folder / PROJECTION)[0])
        return made


@dataclass(frozen=True, kw_only=True)
class Distill(Distilling):
    """Train a student to do as its teacher does (Hinton et al. 2015; with hidden states: Xia et al. 2022, CoFi).

    The warm start before gates are put on (CoFi's first epochs), the final fine-tuning of a model that was shrunk or cut,
    and plain distillation into any smaller one.
    """

    VERSION: ClassVar[int] = 1

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        teacher, student = self.begin(work, task)
        source = work.parents.get("student")
        learnt = self.learning(task, teacher, student, source)
        cost = self.train(work, task, student, objective=learnt)
        train.save_weights(work.folder / PROJECTION, learnt)
        about = {**_named(source), **leave(work, student)}
        return [point(task, task.evaluate(student), **about, **cost)]


def _named(source: Parent | None) -> dict[str, Any]:
    """What a student is called, and how sparse it is: ``cofi`` where it was ``cofi, raw`` before it learnt more."""
    if source is None:
        return {"variant": "distilled", "sparsity": 0.0, "sparsity_total": 0.0}
    sizes = {key: value for key, value in source.row.items() if key.startswith("sparsity")}
    variant = source.row["variant"]
    return {"variant": variant.removesuffix(RAW) if variant.endswith(RAW) else "distilled", **sizes}
