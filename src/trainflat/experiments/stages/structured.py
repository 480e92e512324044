"""Structured pruning under a teacher's eyes: gates are trained to a sparsity, then the model is really made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trainflat import compress, train
from trainflat.compress.units import FAMILIES
from trainflat.experiments.stages.distill import PROJECTION, Distilling
from trainflat.experiments.stages.shrunk import RAW, leave, sizes
from trainflat.experiments.work import Work, make_task, point

__all__ = ["Structured"]


@dataclass(frozen=True, kw_only=True)
class Structured(Distilling):
    """CoFi (Xia et al. 2022, arXiv:2204.00408; with flat teachers: Na et al. 2022, section 4): prune heads, neurons, layers and
    hidden dimensions by hard-concrete gates while the student learns from its teacher, then shrink.

    What comes before (some epochs without gates) is a `Distill` stage named as ``student``, shared by all sparsities that start
    from it; what comes after (fine-tuning the small model) another, whose ``student`` is this stage. The row is of the shrunk
    model, before that fine-tuning.

    Args:
        sparsity: The target, in [0, 1): of the parameters in the encoder's layers.
        warmup: Share of the run in which the target rises from 0 on a line. Default: 0.1, CoFi's 2 of 20 epochs.
        gate_lr: Learning rate of gates and multipliers, which no schedule changes. Default: 0.01, as CoFi.
        families: What can be pruned. Default: attention layers, heads, FFN layers, their neurons, hidden dimensions.
        drop: How far open the neurons' gates start. Default: 0.5, as CoFi.
        counting: Whether the target is of parameters as they are ("exact") or as CoFi's constraint counts them ("cofi").
        tolerance: With ``keep`` = "best": how far below the target a model may be that is kept. Default: 0.01, Na et al.
    """

    VERSION: ClassVar[int] = 1
    sparsity: float = 0.95
    warmup: float = 0.1
    gate_lr: float = 0.01
    families: tuple[str, ...] = FAMILIES
    drop: float = 0.5
    counting: Literal["exact", "cofi"] = "exact"
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {self.sparsity}")
        if unknown := [name for name in self.families if name not in FAMILIES]:
            raise ValueError(f"families are some of {', '.join(FAMILIES)}; got {unknown}")
        if not self.gate_lr > 0:
            raise ValueError(f"gate_lr must be above 0, got {self.gate_lr}")
        if not 0 < self.drop < 1:
            raise ValueError(f"drop is a probability and must be in (0, 1), got {self.drop}")
        train.linear(warmup=self.warmup)

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        teacher, student = self.begin(work, task)
        parts = compress.structure(student)
        gates = work.place(compress.Gates(parts, families=self.families, drop=self.drop, seed=work.seed))
        learnt = self.learning(task, teacher, student, work.parents.get("student"), gates)
        with gates.on(student):
            cost = self.train(work, task, student, objective=self._held(learnt, gates))
        z = gates.deterministic()
        small = compress.shrink(student, parts, z)
        kept = self.learning(task, teacher, small, None)
        kept.continue_from(learnt, z["hidden"])
        train.save_weights(work.folder / PROJECTION, kept)
        about = {
            "variant": f"cofi{RAW}",
            "sparsity": self.sparsity,
            **sizes(parts, student, small),
            **leave(work, small),
        }
        return [point(task, task.evaluate(small), **about, **cost)]

    def rehearse(self, work: Work, task: Any) -> dict[str, float]:
        """As `Distilling.rehearse`, under gates."""
        teacher, student = self.pair(work, task.model(work.seed), task.model(work.seed))
        gates = work.place(compress.Gates(compress.structure(student), families=self.families))
        with gates.on(student):
            held = self._held(self.learning(task, teacher, student, None, gates), gates)
            return self.train(work, task, student, objective=held)

    def _held(self, learnt: compress.Distillation, gates: compress.Gates) -> compress.Lagrangian:
        target = train.linear(self.sparsity, self.sparsity, warmup=self.warmup)
        return compress.Lagrangian(
            learnt, gates, target=target, tolerance=self.tolerance, counting=self.counting, lr=self.gate_lr
        )
