"""How long a pass takes, of several models that take turns: what else the machine does then slows them all alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import train

__all__ = ["Timing", "race", "threads"]

LEAST, WARMUP = 5, 2


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a pass: the median, and what 95 of 100 stay under; examples a second at the median; passes timed."""

    p50_ms: float
    p95_ms: float
    per_second: float
    runs: int


def race(models: Mapping[str, nn.Module], inputs: Any, *, seconds: float = 1.0) -> dict[str, Timing]:
    """Time each model on one batch, pass by pass in turns, for this long in all, at least five times each.

    Raises:
        ValueError: If ``seconds`` is not finite, or below 0.

    Example:
        >>> found = race({"this": nn.Identity(), "that": nn.Identity()}, torch.ones(4, 2), seconds=0.01)
        >>> found["this"].runs == found["that"].runs >= 5, found["this"].p50_ms <= found["this"].p95_ms
        (True, True)
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"seconds must be a finite number of 0 or more, got {seconds}")
    taken: dict[str, list[float]] = {name: [] for name in models}
    over, run = float("inf"), 0
    with torch.inference_mode():
        while run < WARMUP + LEAST or time.perf_counter() < over:
            if run == WARMUP:
                over = time.perf_counter() + seconds
            for name, model in models.items():
                began = time.perf_counter()
                train.logits(model, inputs)
                if run >= WARMUP:
                    taken[name].append(1e3 * (time.perf_counter() - began))
            run += 1
    batch = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    found = {}
    for name, times in taken.items():
        low, high = np.percentile(times, [50, 95]).tolist()
        found[name] = Timing(round(low, 4), round(high, 4), round(1e3 * batch / low, 2), len(times))
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch's threads within an operation meanwhile, and those of sessions made meanwhile.

    Raises:
        ValueError: If the count is below 1.
    """
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
