"""Post-training quantization of a trained model, scored where its kernels run: on the CPU, or on a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from trainflat import train
from trainflat.experiments.resolve import Spec, build, check, component, find, parent
from trainflat.experiments.work import Work, point

__all__ = ["QUANTIZERS", "Quantize", "check_place", "on_grid", "quantized", "served", "trained_for"]

QUANTIZERS = (
    "trainflat.compress.quantize",
    "trainflat.compress.static",
    "trainflat.compress.weight_only",
    "trainflat.int8.fused",
)
PLACES = {"cuda": ("cuda", torch.bfloat16)}
FOR_PROCESSORS = ("dynamic_int8", "static_int8")
AWARE = "qat"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Na et al. 2022, table 8: dynamic int8 of the full fine-tuned model, no calibration, no retraining.

    Other quantizers are `trainflat.compress`'s "static_int8", calibrated on training batches in the order of the stage's seed,
    "weight_only", and trainflat.int8's "torchao_weights"; or anybody's own.

    Args:
        model: The stage whose model is quantized.
        quantizer: How.
        on: "cuda", where the quantizer's kernels run on a GPU: the model goes there in bfloat16 first. Default: the CPU.
    """

    VERSION: ClassVar[int] = 1
    model: str = parent()
    quantizer: Spec = component(*QUANTIZERS, default="dynamic_int8", given=1)
    on: str | None = None

    def __post_init__(self) -> None:
        check_place(self.on, self.quantizer)

    def run(self, work: Work) -> list[dict[str, Any]]:
        source = work.parents["model"]
        task, model = source.task(), source.model(work.seed)
        small = on_grid(self.quantizer, served(model, self.on), task, work.seed)
        before = source.row
        about = {key: before[key] for key in before if key.startswith("sparsity")}
        return [point(task, task.evaluate(small), variant=quantized(before, self.quantizer), **about)]


def check_place(on: str | None, quantizer: Spec | None = None) -> None:
    """Whether a model, quantized so, can be served there.

    Raises:
        ValueError: If it is no such place, or the quantizer has no kernels there.
    """
    if on is not None and on not in PLACES:
        raise ValueError(f"on is where the model is served: {' or '.join(PLACES)}, or left out for the CPU; got {on!r}")
    if on is not None and quantizer is not None and quantizer.name in FOR_PROCESSORS:
        raise ValueError(
            f"{quantizer.name} has kernels for processors only: leave on = {on!r} out, or take weight_only or torchao_weights"
        )


def served(model: nn.Module, on: str | None) -> nn.Module:
    """The model where it will run: on the CPU as it is, on a GPU in bfloat16.

    Raises:
        RuntimeError: If this machine has no GPU.
    """
    if on is None:
        return model
    device, dtype = PLACES[on]
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("the model is to be served on a GPU (on = 'cuda'), and this machine has none")
    return model.to(device, dtype)


def on_grid(quantizer: Spec, model: nn.Module, task: Any, seed: int) -> nn.Module:
    """The model quantized. A quantizer that takes ``batches`` gets the task's training batches, in the order of the seed."""
    calibrated = "batches" in inspect.signature(find(quantizer.name, QUANTIZERS)).parameters
    data = {"batches": task.batches(train.derive("calibrate", seed))} if calibrated else {}
    return build(quantizer, QUANTIZERS, model, **data)


def quantized(row: Mapping[str, Any], quantizer: Spec) -> str:
    """What the model of a row is called on a grid: ``int8 per_channel``, or of a shrunk one ``cofi, int8 per_channel``.

    One that was trained for this grid is ``qat, int8 per_channel``, for another ``qat for weight_only 4, int8 per_channel``.
    """
    before, name = row["variant"], grid(quantizer)
    if before.endswith(aware := trained_for(quantizer)):
        return f"{before.removesuffix(aware)}{AWARE}, {name}"
    return f"{before}, {name}" if "shape" in row or before.startswith(f"{AWARE} for ") else name


def trained_for(quantizer: Spec) -> str:
    """How a row calls a model that was trained for a grid and is not on it: ``qat for int8 per_channel``."""
    return f"{AWARE} for {grid(quantizer)}"


def grid(quantizer: Spec) -> str:
    """How a row calls a quantizer: its first option always, others where they are not the default.

    >>> grid(Spec("dynamic_int8")), grid(Spec("weight_only", {"bits": 4, "group_size": 32}))
    ('int8 per_channel', 'weight_only 4 group_size 32')
    """
    words = [quantizer.name.rpartition(":")[2].removeprefix("dynamic_")]
    usual = inspect.signature(find(quantizer.name, QUANTIZERS)).parameters
    for key, value in check(quantizer, QUANTIZERS, given=1).items():
        if key == "batches":
            continue
        if len(words) == 1:
            words.append(str(value))
        elif key not in usual or value != usual[key].default:
            words.append(f"{key} {value}")
    return " ".join(words)
