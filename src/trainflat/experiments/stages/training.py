"""The fields that every training stage shares, and the run that they describe, resumable after any step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from trainflat import train
from trainflat.experiments.resolve import Spec, build, component
from trainflat.experiments.work import TASKS, Interrupted, Work, scored
from trainflat.flat.averages import last
from trainflat.train.objectives import cross_entropy
from trainflat.types import Average, Objective, Schedule

__all__ = ["Training"]

OPTIMIZERS = ("torch.optim",)
GRADIENTS = ("trainflat.flat -> Gradient",)
SCHEDULES = ("trainflat.train.schedules",)
AVERAGES = ("trainflat.flat.averages -> Average",)
OBJECTIVES = ("trainflat.train.objectives",)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How one model is trained. Defaults: Adam without weight decay, linear to zero, clipped at 1.0, as Na et al. 2022.

    ``epochs`` counts passes over the task's training data; ``steps`` (optimizer steps), if given, replaces it.
    ``keep`` = "best" evaluates after every epoch and keeps the best weights, as the paper does for small tasks: a score
    chosen on the data it is reported on, so the default is "last". ``average`` keeps an average of the iterates instead, such
    as "swa". ``objective`` makes another one of the task's, such as {name = "l1", strength = 1e-5}.
    """

    task: Spec = component(*TASKS)
    optimizer: Spec = component(*OPTIMIZERS, default="Adam", given=1)
    gradient: Spec = component(*GRADIENTS, default="plain")
    lr: Spec = component(*SCHEDULES, default="linear")
    epochs: float = 3.0
    steps: int | None = None
    clip: float | None = 1.0
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    keep: Literal["last", "best"] = "last"
    average: Spec | None = component(*AVERAGES, default=None)
    objective: Spec | None = component(*OBJECTIVES, default=None, given=1)

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs must be a number above 0, got {self.epochs}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip}; leave it out of the recipe for the default")
        if self.average is not None and self.keep == "best":
            raise ValueError('average and keep = "best" both say which iterate is kept; leave one of them out')
        if isinstance(self.optimizer, Spec):
            self._optimizer(nn.Linear(1, 1))  # a wrong value is told while planning
            build(self.gradient, GRADIENTS)
            build(self.lr, SCHEDULES)
            self._average()
            self._objective(_Nothing)

    def train(
        self,
        work: Work,
        task: Any,
        model: nn.Module,
        *,
        round: int = 0,
        lr: Schedule | None = None,
        objective: Objective | None = None,
    ) -> dict[str, float]:
        """Train the model where it is; continues from ``state.safetensors`` if that is of this round.

        ``lr`` is for this round instead of the stage's own schedule, ``objective`` instead of its own. An objective that is a
        module is trained and kept beside the model: its ``groups()`` are the optimizer's (the rest of its parameters go with
        the model's), ``advance(t)`` is called before every step, and no weights are "best" before ``reached()``.

        Returns the cost: wall seconds, forward-backward passes and optimizer steps, over all interruptions.
        """
        objective = self._objective(task) if objective is None else objective
        optimizer = self._optimizer(model, objective)
        gradient, average = build(self.gradient, GRADIENTS), self._average()
        steps_per_epoch = max(1, math.ceil(task.steps_per_epoch / self.accumulate))
        steps = self.steps or math.ceil(self.epochs * steps_per_epoch)
        state, best_path = work.folder / "state.safetensors", work.folder / "best.safetensors"
        torch.manual_seed(train.derive("training", work.seed, round))
        done, memo = 0, {"round": round, "seconds": 0.0, "passes": 0, "best": None}
        memories = {"gradient": gradient, "average": average, "objective": objective}
        if state.exists():
            done, found = train.load_state(state, model, optimizer, **memories)
            memo = found
            assert found["round"] == round, "a state outlives its round only if the round's end was not recorded"
        began = saved = time.monotonic()
        before = memo["seconds"]
        advance = getattr(objective, "advance", lambda t: None)
        reached = getattr(objective, "reached", lambda: True)
        advance(done / steps)
        running = train.loop(
            model,
            objective,
            task.batches(train.derive("data", work.seed, round)),
            optimizer,
            steps=steps,
            start=done,
            gradient=gradient,
            lr=build(self.lr, SCHEDULES) if lr is None else lr,
            accumulate=self.accumulate,
            clip=self.clip,
            precision=self.precision,
        )
        params = dict(model.named_parameters())
        whole = _whole(model, objective)
        took = plain = 0.0
        for step in running:
            finished = step.index + 1
            advance(finished / steps)
            average(params, finished / steps)
            memo["passes"] += step.passes
            memo["seconds"] = before + time.monotonic() - began
            if self.keep == "best" and (finished % steps_per_epoch == 0 or finished == steps) and reached():
                score = next(iter(scored(task, task.evaluate(model)).values()))
                if memo["best"] is None or score > memo["best"] or math.isnan(memo["best"]):
                    memo["best"] = score
                    train.save_weights(best_path, whole)
            now = {"loss": step.loss, **_ascent(gradient), "round": round}
            took, plain = took + step.seconds, plain + (step.plain or 0.0)
            times = {"times": took / plain} if plain and self.gradient.name != "plain" else {}
            work.progress({"done": finished, "of": steps, "cost": memo["passes"] / finished, **times, **now})
            if finished % 50 == 0 or finished == steps:
                work.log(step=finished, lr=step.lr, seconds=round_to(memo["seconds"]), **now)
            wanted = work.stop()
            if wanted or time.monotonic() - saved >= work.checkpoint_seconds:
                train.save_state(state, model, optimizer, step=finished, **memories, **memo)
                saved = time.monotonic()
            if wanted:
                raise Interrupted
        if memo["best"] is not None:
            train.load_weights(best_path, whole)
        average.apply_to(model)
        return {"seconds": round_to(memo["seconds"]), "passes": memo["passes"], "steps": steps}

    def rehearse(self, work: Work, task: Any) -> dict[str, float]:
        """Train a fresh model as the stage would, without the stages before it: to know what a step takes."""
        return self.train(work, task, work.place(task.model(work.seed)))

    def _optimizer(self, model: nn.Module, objective: Any = None) -> torch.optim.Optimizer:
        """A fresh optimizer, with torch's fused kernels where it has them (a tenth of the time on CPU)."""
        groups = objective.groups() if hasattr(objective, "groups") else []
        apart = {id(p) for group in groups for p in group["params"]}
        together = [p for p in _whole(model, objective).parameters() if id(p) not in apart]
        return build(self.optimizer, OPTIMIZERS, [{"params": together}, *groups], fused=True)

    def _average(self) -> Average:
        return build(self.average, AVERAGES) if self.average is not None else last()

    def _objective(self, task: Any) -> Objective:
        if self.objective is None:
            return task.objective
        return build(self.objective, OBJECTIVES, task.objective, where=task.prunable)


class _Nothing:
    """A task in name only: so that an objective's values are checked while planning."""

    objective = staticmethod(cross_entropy)
    prunable = staticmethod(lambda name, parameter: True)


def _ascent(gradient: Any) -> dict[str, float]:
    """What a rule that leaves the weights says of its last ascent: by which share the loss rose, and how far it went."""
    said = {name: getattr(gradient, name, None) for name in ("rise", "share")}
    return {name: value for name, value in said.items() if value is not None}


def _whole(model: nn.Module, objective: Any) -> nn.Module:
    """The model, and what is learnt beside it."""
    if not isinstance(objective, nn.Module) or not list(objective.parameters()):
        return model
    return nn.ModuleDict({"model": model, "objective": objective})


def round_to(seconds: float) -> float:
    """Wall seconds to the millisecond."""
    return float(f"{seconds:.3f}")
