"""The loss in the plane through three models: initial, and two trained from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trainflat import flat, train
from trainflat.experiments.resolve import parent
from trainflat.experiments.stages.measured import Measured
from trainflat.experiments.work import Work, row_of
from trainflat.flat.landscape import losses

__all__ = ["Contours"]


@dataclass(frozen=True, kw_only=True)
class Contours:
    """Na et al. 2022, figure 6: the held-out loss in the plane (initial, first, second), once with the head of ``first`` and once
    with that of ``second``. The encoder moves in the plane; the head stays, as heads of two runs have no common meaning.

    Args:
        start: A stage whose model is the first of the three points. Default: the weights that ``first`` started from.
        first, second: Stages that leave a model of the same task; their names are the labels in the figure.
        size: Lines of the grid in each direction; size^2 passes over the data a head.
        margin: Around the three points, as a share of the plane's width and height.
        examples: The first so many held-out examples. Default: all.
    """

    VERSION: ClassVar[int] = 1
    first: str = parent()
    second: str = parent()
    start: str | None = parent(default=None)
    size: int = 20
    margin: float = 0.2
    examples: int | None = None

    def __post_init__(self) -> None:
        if self.size < 2 or self.margin < 0:
            raise ValueError(f"size must be at least 2 and margin at least 0, got {self.size} and {self.margin}")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}; leave it out for all")

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """What can only be seen with the parents at hand; called while planning."""
        if len({str(getattr(stage, "task", None)) for stage in parents.values()}) > 1:
            raise ValueError("the models of a plane must be of one task, and the stages named here are of several")

    def run(self, work: Work) -> list[dict[str, Any]]:
        ends = {name: work.parents[name] for name in ("first", "second")}
        task = ends["first"].task()
        states = {name: train.snapshot(source.model(work.seed)) for name, source in ends.items()}
        initial = work.parents["start"].model(work.seed) if "start" in work.parents else task.model(work.seed)
        states = {"start": train.snapshot(initial), **states}
        model = work.place(initial)
        measured = Measured(work, of=2 * (self.size + 1))
        loss = flat.Loss(model, task.objective, task.held_out_batches(self.examples), after=measured.pause)
        drawn: dict[str, Any] = {"labels": [self.start or "initial", self.first, self.second], "heads": []}
        for end in ends:
            corners = [loss.flat(_with_head(state, states[end], task.head)) for state in states.values()]
            lines, one = self._map(loss, corners, end, measured)
            drawn |= lines  # of the encoder alone, so the same for both heads
            drawn["heads"].append({"head": getattr(self, end), **one})
        measured.forget()
        sparsity = ends["first"].row["sparsity"]
        return [row_of(task, variant="contours", sparsity=sparsity, examples=loss.examples, contours=drawn)]

    def _map(self, loss: flat.Loss, corners: list[Tensor], end: str, measured: Measured) -> tuple[dict, dict]:
        """The lines of the grid with the three points, and the losses on both."""
        plane = flat.plane(*corners)
        xs, ys = plane.lines(size=self.size, margin=self.margin)
        at_points = measured.once(f"{end} points", lambda: [_at(loss, corner) for corner in corners])
        grid = [measured.once(f"{end} {i}", lambda y=y: losses(loss, plane, xs, [y])[0]) for i, y in enumerate(ys)]
        points = [list(point) for point in plane.points]
        return {"x": xs, "y": ys, "points": points}, {"losses": grid, "points": at_points}


def _with_head(state: Mapping[str, Tensor], other: Mapping[str, Tensor], head: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: other[name] if name.startswith(head) else tensor for name, tensor in state.items()}


def _at(loss: flat.Loss, point: Tensor) -> float:
    with loss.at(point):
        return loss.value()
