"""What goes into each linear layer of a model, over batches of data, and the 8-bit grid for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainflat.train.batches import pair, to_device
from trainflat.train.compiled import uncompiled
from trainflat.train.evaluate import evaluating
from trainflat.types import Batch

__all__ = ["Range", "ranges"]

STEPS = 127
"""Of the grid of activations: 7 bits, as in torch's dynamic int8, so that no processor overflows."""


@dataclass(frozen=True)
class Range:
    """The smallest and largest activation that a layer is to see; zero always lies within.

    Example:
        >>> Range(-1.0, 126.0).grid, Range(2.0, 254.0).grid
        ((1.0, 1), (2.0, 0))
    """

    low: float
    high: float

    @property
    def grid(self) -> tuple[float, int]:
        """Scale and zero point: x is stored as round(x / scale) + zero point, from 0 to 127 within the range."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = max((high - low) / STEPS, torch.finfo(torch.float32).eps)
        return scale, round(-low / scale)

    def __or__(self, other: Range) -> Range:
        """What covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def ranges(
    model: nn.Module, layers: dict[str, nn.Linear], batches: Iterable[Batch], calibrate: int, coverage: float
) -> dict[str, Range]:
    """What goes into each layer, over the first ``calibrate`` batches in evaluation mode; a layer that none reaches is absent.

    In every batch the share (1 - coverage) / 2 of the activations may lie below the range and as much above it; the range
    is the widest that a batch needs. The model, its mode and its gradients stay as they were.

    Raises:
        TypeError: If a batch is no pair.
        ValueError: If there are no batches, or an activation is not finite.
    """
    found: dict[str, Range] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].numel():
                seen = _middle(inputs[0].detach().flatten(), coverage)
                if not (-torch.inf < seen.low and seen.high < torch.inf):
                    raise ValueError(f"an activation that goes into {name!r} is not finite; did the training diverge?")
                found[name] = found[name] | seen if name in found else seen

        return see

    device = next(iter(layers.values())).weight.device
    count = 0
    with ExitStack() as stack, evaluating(model), torch.no_grad(), uncompiled():
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(watch(name)).remove)
        for batch in islice(batches, calibrate):
            inputs, _ = pair(batch)
            inputs = to_device(inputs, device)
            model(**inputs) if isinstance(inputs, Mapping) else model(inputs)  # whatever it gives
            count += 1
    if not count:
        raise ValueError("there are no batches to calibrate on; give a task's: task.batches(seed=0)")
    return found


def _middle(x: Float32[Tensor, " numbers"], coverage: float) -> Range:
    """Where all but the outermost numbers lie, cut evenly at both ends."""
    outside = int((1 - coverage) / 2 * len(x))
    if not outside:
        low, high = torch.aminmax(x)
        return Range(float(low), float(high))
    return Range(float(x.kthvalue(outside + 1).values), float(x.kthvalue(len(x) - outside).values))
