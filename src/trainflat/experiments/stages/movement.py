"""Movement pruning while fine-tuning, and the question whether SAM should perturb the scores as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trainflat import compress, train
from trainflat.compress.movement import TAU, ramp
from trainflat.experiments.stages.training import Training
from trainflat.experiments.work import Work, make_task, point

__all__ = ["Movement"]


@dataclass(frozen=True, kw_only=True)
class Movement(Training):
    """Sanh et al. 2020, arXiv:2005.07683: weights and one score for each are learnt together, and weights that move to zero go.

    Args:
        way: "hard" reaches ``sparsity`` exactly, rising as `trainflat.compress.movement.ramp`; "soft" keeps what is worth its
            price, ``strength``, which rises in the same way, as does ``tau``.
        sparsity: Of "hard".
        begin, end: Shares of the run between which the sparsity rises. Default: 0.1 and 0.8, Sanh et al. on SQuAD.
        strength: Of "soft". Default: 400, as the authors' scripts for SQuAD.
        tau: Of "soft": in (0, 1), where it ends. Default: 0.1, Sanh et al.
        scope: Whether each matrix is ranked by itself ("tensor", Sanh et al.) or all together ("global").
        score_lr: Default: 0.01, Sanh et al.
        perturb: What a rule such as SAM moves: "weights", or "scores" as well, in one ball.
    """

    VERSION: ClassVar[int] = 2
    way: Literal["hard", "soft"] = "hard"
    sparsity: float = 0.9
    begin: float = 0.1
    end: float = 0.8
    strength: float = 400.0
    tau: float = TAU
    scope: Literal["global", "tensor"] = "tensor"
    score_lr: float = 0.01
    perturb: Literal["weights", "scores"] = "weights"

    def __post_init__(self) -> None:
        super().__post_init__()
        ramp(self.sparsity, begin=self.begin, end=self.end)
        if not 0 < self.tau < 1:
            raise ValueError(f"tau must be in (0, 1), got {self.tau}")
        if self.strength < 0 or not self.score_lr > 0:
            raise ValueError(
                f"strength must be at least 0 and score_lr above 0, got {self.strength} and {self.score_lr}"
            )

    def run(self, work: Work) -> list[dict[str, Any]]:
        task = make_task(self.task)
        model = work.place(task.model(work.seed))
        held = self._held(task, model)
        with held.on(model, perturb=self.perturb):
            cost = self.train(work, task, model, objective=held)
        mask = held.mask()
        mask.apply_to(model)
        train.save_weights(work.folder / "model.safetensors", model)
        compress.save_mask(work.folder / "mask.safetensors", mask)
        about = {
            "variant": f"movement {self.way}",
            "sparsity": mask.sparsity,
            "sparsity_total": mask.sparsity_in(model),
        }
        return [point(task, task.evaluate(model), **about, **cost)]

    def rehearse(self, work: Work, task: Any) -> dict[str, float]:
        """As `Training.rehearse`, with scores."""
        model = work.place(task.model(work.seed))
        held = self._held(task, model)
        with held.on(model, perturb=self.perturb):
            return self.train(work, task, model, objective=held)

    def _held(self, task: Any, model: Any) -> compress.Movement:
        half = ramp(0.5, begin=self.begin, end=self.end)  # twice this is the same course from 0 to 1
        return compress.Movement(
            self._objective(task),
            model,
            task.prunable,
            kind=self.way,
            sparsity=ramp(self.sparsity, begin=self.begin, end=self.end),
            strength=lambda t: 2 * self.strength * half(t),
            tau=lambda t: 2 * self.tau * half(t),
            scope=self.scope,
            lr=self.score_lr,
        )
