"""The parameters that do not move: their gradients at the weights are not needed, and a first pass without them is cheaper."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from trainflat.flat.combine import put_aside
from trainflat.flat.moving import random_state, set_random_state
from trainflat.types import Params

__all__ = ["Others"]


class Others:
    """Which parameters a first pass may leave out. What it finds costs time only, so it is not saved with a run.

    A loss that uses none of those that move cannot be differentiated without the others, and under reentrant checkpointing a
    layer whose inputs need no gradient gives none: so the first step leaves out nothing, the first pass that does is looked
    at, and one that fails or in which a gradient is missing is repeated whole, as are all after it.
    """

    def __init__(self) -> None:
        self._unused: set[str] | None = None  # what the last step found no gradient for; None before the first
        self._may, self._tried = True, False

    def see(self, params: Params) -> None:
        """Look at the gradients of a finished step."""
        self._unused = {name for name, p in params.items() if p.grad is None}

    def of(self, chosen: Params, params: Params, closure: Any) -> list[nn.Parameter]:
        """What can be left out: under DDP nothing, nor in a step after one that used none of the chosen."""
        if self._unused is None or not self._may or chosen.keys() <= self._unused:
            return []
        if isinstance(getattr(closure, "model", None), nn.parallel.DistributedDataParallel):
            return []
        return [p for name, p in params.items() if name not in chosen]

    def spared(
        self, others: Sequence[nn.Parameter], chosen: Params, first: Callable[[], Float[Tensor, ""]]
    ) -> Float[Tensor, ""]:
        """The first pass without the gradients of the others, or with them if that does not give all of the chosen ones."""
        if not others:
            return first()
        looks, streams = not self._tried, random_state(chosen)
        try:
            with _frozen(others), warnings.catch_warnings():
                if looks:  # torch's word for what is looked for
                    warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
                loss = first()
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            looks, loss = True, None
        self._tried = True
        used = [p for name, p in chosen.items() if name not in (self._unused or ())]
        if loss is None or (looks and any(p.grad is None for p in used)):
            self._may = False
            put_aside(list(chosen.values()))
            set_random_state(streams)
            loss = first()
        return loss


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
