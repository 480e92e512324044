"""Whether this machine has what the models of a search will run on, found out before anything is trained."""

from __future__ import annotations

import torch

from trainflat.experiments.stages.quantize import PLACES
from trainflat.experiments.trials import GRIDS, Trials
from trainflat.int8 import fused

__all__ = ["check_kernels"]


def check_kernels(trials: Trials) -> None:
    """Whether every model of a search can be served where it is to be, torchao's tried on one layer.

    Raises:
        ValueError: If there is no GPU, and it is to be one.
        ImportError, RuntimeError: If torchao is missing, or has no such kernel there.
    """
    device, dtype = PLACES.get(trials.serve, ("cpu", torch.float32))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "serve = 'cuda' needs a GPU, and this machine has none; leave it out to measure on the processor"
        )
    for way in trials.tried:
        if way.startswith("torchao"):
            fused.check(GRIDS[way]["bits"], device, dtype)
