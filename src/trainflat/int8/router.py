"""A probe of a few seconds on the model itself: which 8-bit backend is right here, and of those the fastest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import train
from trainflat.int8 import by_onnxruntime, by_torch, by_torchao, timing
from trainflat.int8.processor import processor
from trainflat.train.evaluate import evaluating

__all__ = ["BACKENDS", "Choice", "Tried", "choose", "sums_are_right"]

BACKENDS: tuple[ModuleType, ...] = (by_torch, by_onnxruntime, by_torchao)
"""One module each, with ``NAME``, ``missing()`` (why it cannot be used, or None) and ``build(model, inputs)``."""

FLOAT = "float32"


@dataclass(frozen=True)
class Tried:
    """One backend in the probe: ``why_not`` it cannot be chosen, or its median ``latency_ms`` and its ``error``.

    The error is |y - y'| / |y|, Euclidean, over all outputs y of the float model.
    """

    name: str
    why_not: str | None = None
    latency_ms: float = float("nan")
    error: float = float("nan")


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        name: Of the backend; "float32" if none is right, or none faster than the model as it is.
        model: The model to use, called like the original; of "float32" the original itself, in the mode it was in.
        said: What was chosen and why, in one sentence.
        tried: All, "float32" first.
        warnings: What to know about this processor.
    """

    name: str
    model: nn.Module
    said: str
    tried: tuple[Tried, ...]
    warnings: tuple[str, ...] = field(default=())


def choose(
    model: nn.Module,
    inputs: Any,
    *,
    seconds: float = 5.0,
    tolerance: float = 0.5,
    backends: Iterable[ModuleType] = BACKENDS,
) -> Choice:
    """Build the model by every backend, drop those that compute something else, and keep the fastest.

    A backend must get sums right that overflow 16 bits (`sums_are_right`), and stay near the float model on the inputs given. A
    backend that is not installed, or fails, is passed over, and the sentence says so. Timed are whole passes, the
    backends taking turns, so that other work on the machine slows them alike; with torch's threads as they are.

    Args:
        model: In float32, on the CPU; stays as it is.
        inputs: A real batch of the size that matters: a tensor, or a dict of keyword tensors.
        seconds: Of timing, all backends together; building them comes on top. Default: 5.
        tolerance: Of the error, see `Tried`. Default: 0.5, which catches wrong kernels and no more: the rounding to 8 bits
            alone cost up to 0.3 on MiniLM under a head that was not trained, 0.01 to 0.1 under a trained one.

    Raises:
        ValueError: If ``seconds`` or ``tolerance`` is not above 0, or ``seconds`` not finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2))
        >>> found = choose(model, torch.randn(8, 64), seconds=0.05, backends=[by_torch])
        >>> [one.name for one in found.tried], found.model(torch.randn(3, 64)).shape
        (['float32', 'torch.ao'], torch.Size([3, 2]))
    """
    if not 0 < seconds < math.inf or not tolerance > 0:
        raise ValueError(f"seconds and tolerance must be above 0, seconds finite; got {seconds} and {tolerance}")
    with evaluating(model):
        return _probe(model, inputs, seconds, tolerance, backends)


@cache
def sums_are_right(backend: ModuleType) -> bool:
    """Whether a backend adds up the largest products there are: every weight 1, every input 1, so each output is n.

    On the 8-bit grid these are products of 255 and 127, of which two overflow 16 bits; where pairs saturate, half of the
    sum is lost. The grids themselves cost 1 % at most.
    """
    n = 128
    linear = nn.Linear(n, n, bias=False)
    nn.init.ones_(linear.weight)
    layer = nn.Sequential(linear, nn.Identity())
    ones = torch.ones(4, n)
    found = _logits(backend.build(layer, ones), ones)
    return bool((np.abs(found / n - 1) < 0.05).all())


def _probe(model: nn.Module, inputs: Any, seconds: float, tolerance: float, backends: Iterable[ModuleType]) -> Choice:
    outputs = {FLOAT: _logits(model, inputs)}
    built: dict[str, nn.Module] = {FLOAT: model}
    why_not: dict[str, str | None] = {FLOAT: None}
    errors = {FLOAT: 0.0}
    for backend in backends:
        name = backend.NAME
        why_not[name] = backend.missing()
        if why_not[name] is not None:
            continue
        try:
            if not sums_are_right(backend):
                why_not[name] = "its sums saturate on this processor"
                continue
            built[name] = backend.build(model, inputs)
            outputs[name] = _logits(built[name], inputs)
        except Exception as error:
            why_not[name] = f"it failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
            continue
        errors[name] = _distance(outputs[FLOAT], outputs[name])
        if not errors[name] <= tolerance:  # NaN is not
            why_not[name] = f"its outputs are {errors[name]:.2g} away from float32's, more than {tolerance:g}"
    right = {name: built[name] for name in built if why_not[name] is None}
    took = {name: found.p50_ms for name, found in timing.race(right, inputs, seconds=seconds).items()}
    tried = tuple(
        Tried(name, why_not[name], took.get(name, float("nan")), errors.get(name, float("nan"))) for name in why_not
    )
    best = min(took, key=lambda name: took[name])
    return Choice(best, built[best], _said(best, tried, processor().warnings), tried, processor().warnings)


def _said(best: str, tried: tuple[Tried, ...], warned: tuple[str, ...]) -> str:
    by_name = {one.name: one for one in tried}
    whole = by_name[FLOAT].latency_ms
    others = [
        f"{one.name} " + (f"out: {one.why_not}" if one.why_not else f"{one.latency_ms:.3g} ms")
        for one in tried
        if one.name not in (best, FLOAT)
    ]
    beside = f" ({'; '.join(others)})" if others else ""
    if best == FLOAT:
        return f"float32 stays: no int8 backend is right and faster than its {whole:.3g} ms here{beside}" + _also(
            warned
        )
    gain = whole / by_name[best].latency_ms
    return (
        f"{best} is the fastest int8 that is right here: {by_name[best].latency_ms:.3g} ms against {whole:.3g} ms in float32, "
        f"{gain:.1f} ×, outputs {by_name[best].error:.2g} away{beside}"
    ) + _also(warned)


def _also(warned: tuple[str, ...]) -> str:
    return f"; beware: {'; '.join(warned)}" if warned else ""


def _logits(model: nn.Module, inputs: Any) -> np.ndarray:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backend's own, about itself
        return train.logits(model, inputs).float().numpy()


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-12))
