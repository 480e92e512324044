"""One rule for where the gradient is taken, made of choices that do not depend on each other.

A step: one pass at the weights w gives the direction (or a memory does, and there is no such pass), the weights move by the
radius along it, perhaps on to a compressed point, a last pass there gives the gradient, and the weights are back.
`trainflat.flat.compose` puts a rule together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.flat.ascent import ThisBatch
from trainflat.flat.choices import Choice, called, check_filled, model_of, trainable
from trainflat.flat.combine import Replace, add_up, put_aside
from trainflat.flat.examples import Alike
from trainflat.flat.metrics import Metric, l2, norm
from trainflat.flat.moving import at, random_state, rooms, set_random_state, turn_back, without_zeros
from trainflat.flat.others import Others
from trainflat.flat.places import Where
from trainflat.flat.points import Pruned, Quantized, compressed
from trainflat.flat.radius import Given
from trainflat.flat.when import Always
from trainflat.types import Closure, Params, Schedule

__all__ = ["Dropout", "Point", "Rule", "RuleWithMemory"]

Dropout = Literal["fresh", "replay"]
Point = Pruned | Quantized
SAMS = (ThisBatch, Replace, Always)  # the choices that a rule has where none is named


class Rule:
    """A Gradient made by `compose`. On return every weight is bit for bit what it was, since its memory is never written."""

    def __init__(
        self,
        choices: dict[str, Any],
        metric: Metric,
        where: Where | None,
        pieces: int,
        eps: float,
        dropout: Dropout,
    ):
        self.choices: dict[str, Choice] = {name: choice for name, choice in choices.items() if choice is not None}
        self.radius: Given = choices["radius"]
        self.direction: ThisBatch = choices["direction"]
        self.combine: Replace = choices["combine"]
        self.when: Always = choices["when"]
        self.examples: Alike = choices["examples"] or Alike()
        self.start: Point | None = choices["start"]
        self.point: Point | None = choices["point"]
        self.metric, self.where, self.pieces, self.eps, self.dropout = metric, where, pieces, eps, dropout
        self.steps = 0
        self._room: dict[str, Tensor] = {}  # one copy of the weights, kept so that no step has to allocate it
        self._others = Others()
        self._holds = self.combine.keeps or self.combine.sums or self.radius.learns or pieces > 1

    def __repr__(self) -> str:
        """What it was composed of, without the choices that are SAM's."""
        told = {name: repr(choice) for name, choice in self.choices.items() if type(choice) not in SAMS}
        usual = {"metric": l2, "where": None, "pieces": 1}
        told |= {name: called(vars(self)[name]) for name, sams in usual.items() if vars(self)[name] != sams}
        return f"{type(self).__name__}({', '.join(f'{name}={what}' for name, what in told.items())})"

    def __call__(self, closure: Closure, params: Params, t: float) -> Float[Tensor, ""]:
        """One step: fill the gradients, return the loss."""
        params = trainable(params, t)
        if self._holds and getattr(getattr(closure, "model", None), "gradient_as_bucket_view", False):
            raise ValueError(
                "this rule holds gradients during the passes after theirs, and DistributedDataParallel writes those of the next "
                "pass into the same memory: make it with gradient_as_bucket_view=False"
            )
        step, self.steps = self.steps, self.steps + 1
        self.radius.see(params)
        if self.radius.at(t) == 0:
            loss = self.examples.alone(closure, params, step)
        elif self.pieces == 1:
            loss = self._step(closure, params, t, step)
        else:
            loss = self._piece_by_piece(closure, params, t, step)
        check_filled(closure, params)
        self.direction.see(params, self._room)
        self._others.see(params)
        return loss

    @property
    def rho(self) -> float | Schedule | None:
        """The radius; with ``"auto"`` that of the last ascent, None before the first."""
        return self.radius.used

    @property
    def rise(self) -> float | None:
        """By which share of itself the last ascent raised the loss; None where there is no pass at the weights."""
        return self.radius.rise

    @property
    def share(self) -> float | None:
        """The last ascent's radius as a share of the norm of the weights that moved; known with ``rho="auto"``."""
        return self.radius.share

    def _piece_by_piece(self, closure: Any, params: Params, t: float, step: int) -> Float[Tensor, ""]:
        if not hasattr(closure, "pieces"):
            raise TypeError(
                "a ball for each piece of the batch needs closure.pieces(count), which this closure does not have; those of "
                "trainflat.train.loop do, and your own may: see trainflat.types.Closure"
            )
        first, *others = closure.pieces(self.pieces)
        loss, trained = self._step(first, params, t, step), [*params.values(), *getattr(closure, "beside", ())]
        for piece in others:
            kept = put_aside(trained)
            loss = loss + self._step(piece, params, t, step)
            add_up(trained, kept)
        return loss

    def _step(self, closure: Any, params: Params, t: float, step: int) -> Float[Tensor, ""]:
        """One step on the whole batch, or on one piece of it."""
        if not self.when.looks and not self.when(step, t, _not_asked):
            return self._stay(self.examples.alone(closure, params, step), params)
        streams = random_state(params) if self.dropout == "replay" else None
        loss, vectors = self._direction(closure, params, t, step)
        if self.when.looks and not self.when(step, t, lambda: float(norm(list(vectors.values())))):
            return self._stay(loss, params)
        if not vectors:  # a memory that is still empty, or nothing that may move has a gradient
            if self.point is not None:
                compressed(self.point, closure, params)  # who cannot say which is told so now, not in the next step
            put_aside([*params.values(), *getattr(closure, "beside", ())])
            return self._stay(self.examples.alone(closure, params, step), params)
        moved, factor, length = self._ascend(closure, params, vectors, t, step)
        if not math.isfinite(length):
            self.direction.forget()
            if not self.direction.fresh:
                return self._stay(self.examples.alone(closure, params, step), params)
        there = partial(self._pass_at, closure, params, moved, streams, step)
        trained = [*params.values(), *getattr(closure, "beside", ())]  # the latter never move, but have gradients
        if self.combine.sums:  # not by accumulating: a closure may clear, scale or clip what it finds
            vectors.clear()  # they are kept with the others' gradients
            kept = put_aside(trained)
            second = there()
            add_up(trained, kept)
            self._watch(loss, second, factor, length)
            if self.combine.back:
                turn_back(params, moved)
                kept = put_aside(trained)
                there()
                self.combine.turn(trained)
                add_up(trained, kept)
        else:
            if not (self.combine.keeps or self.radius.learns):
                vectors.clear()  # and with the next line its memory is free before the second pass needs it
            put_aside(trained)
            self.combine.begin()
            second = there()
            self._watch(loss, second, factor, length)
            self.radius.learn(params, vectors, factor, length)
            self.combine.finish(params, vectors)
        return second if loss is None else loss

    def _watch(self, first: Any, second: Float[Tensor, ""], factor: float, length: float) -> None:
        """Show the radius what the ascent did to the loss: measured, or to first order where the last pass was elsewhere."""
        if first is not None and length > 0:
            measured = self.direction.whole and self.point is None
            self.radius.watch(first, second if measured else first + factor * length**2)

    def _stay(self, loss: Float[Tensor, ""], params: Params) -> Float[Tensor, ""]:
        self.combine.skipped(params)
        return loss

    def _direction(self, closure: Any, params: Params, t: float, step: int) -> tuple[Any, dict[str, Tensor]]:
        """The vector of each parameter that will move, and the loss of the first pass if there was one."""
        chosen = params
        if self.where is not None:
            names = self.where(model_of(closure, "a rule chooses which parameters move"), params)
            chosen = {name: p for name, p in params.items() if name in names}
        chosen = self.direction.among(chosen, step)
        if not self.direction.fresh:
            return None, self.direction.vectors(chosen, step)
        needs_all = self.combine.keeps or self.combine.sums or self.when.looks or self.radius.learns
        others = [] if needs_all else self._others.of(chosen, params, closure)
        if not chosen:
            return None, {}
        loss = self._others.spared(others, chosen, lambda: self._first_pass(closure, params, t, step))
        return loss, {name: p.grad for name, p in chosen.items() if p.grad is not None}

    def _first_pass(self, closure: Any, params: Params, t: float, step: int) -> Float[Tensor, ""]:
        first = partial(self.examples.first, self.direction.over(closure), params, step, self._room)
        if self.start is None:
            return first()
        start: dict[str, Tensor] = {}
        with torch.no_grad():
            self._compress(self.start, closure, params, start, t, step)
        with at(params, start):
            return first()

    def _ascend(
        self, closure: Any, params: Params, vectors: dict[str, Tensor], t: float, step: int
    ) -> tuple[dict[str, Tensor], float, float]:
        """Where the parameters go, and the ascent as a factor and the length that it multiplies."""
        reached = {name: params[name] for name in vectors}
        if self.direction.spent and self.pieces == 1 and self.metric is l2:  # and so a metric need not bear it
            self.direction.spend(vectors)
            self._room.update(vectors)
        room = rooms(reached, self._room)
        moved = dict(zip(reached, room, strict=True))
        with torch.no_grad():
            turned = self.direction.turn(reached, list(vectors.values()), room)
            base: list[Tensor] = list(reached.values())
            known = self.direction.length if self.metric is l2 else None
            direct, size = self.metric(base, turned, room) if known is None else (turned, known)
            length = float(size)
            factor = self.radius.step(t, length, self.eps, list(reached.values()), direct, self.direction.scale)
            if self.start is not None:
                direct = [v.clone() if v is there else v for v, there in zip(direct, room, strict=True)]
                torch._foreach_copy_(room, base)
                self._compress(self.start, closure, params, moved, t, step)
                base = room
            for w, vector, there in zip(base, direct, room, strict=True):
                torch.add(w, vector, alpha=factor, out=there)  # reads and writes each number once: no foreach has it
            if self.point is not None:
                self._compress(self.point, closure, params, moved, t, step)
        return moved, factor, length

    def _compress(
        self, point: Point, closure: Any, params: Params, moved: dict[str, Tensor], t: float, step: int
    ) -> None:
        """Compress the matrices in ``moved``, and those that are not there yet from where they are."""
        names = compressed(point, closure, params)
        staying = {name: params[name] for name in params if name in names and name not in moved}
        for (name, p), out in zip(staying.items(), rooms(staying, self._room), strict=True):
            moved[name] = out.copy_(p)
        point({name: moved[name] for name in params if name in names}, t, step)

    def _pass_at(
        self, closure: Any, params: Params, moved: dict[str, Tensor], streams: Any, step: int
    ) -> Float[Tensor, ""]:
        if streams is not None:
            set_random_state(streams)
        silent = compressed(self.point, closure, params) if self.point is not None and self.point.sparse_grad else ()
        with at(params, moved), without_zeros([params[name] for name in silent]):
            return self.examples.last(closure, params, step)


class RuleWithMemory(Rule):
    """A rule that counts its steps or remembers gradients, and is saved and resumed with the run."""

    def state_dict(self) -> dict[str, Any]:
        kinds = {name: type(choice).__name__ for name, choice in self.choices.items()}
        return {
            "steps": self.steps,
            "kinds": kinds,
            **{name: choice.state_dict() for name, choice in self.choices.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if missing := sorted(self.choices.keys() ^ (state.keys() - {"steps", "kinds"})):
            raise ValueError(f"this state is of another rule: {missing[0]!r} is in only one of the two")
        for name, kind in state.get("kinds", {}).items():  # a state of before has none
            if kind != (own := type(self.choices[name]).__name__):
                raise ValueError(f"this state is of another rule: its {name} is {kind}, and here it is {own}")
        self.steps = state["steps"]
        for name, choice in self.choices.items():
            choice.load_state_dict(state[name])


def _not_asked() -> float:
    raise AssertionError("only a choice that looks may ask for the norm")
