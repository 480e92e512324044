"""torchao, where it is installed, PyTorch's successor of torch.ao: dynamic int8. Weights alone: `trainflat.int8.fused`."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trainflat import train

__all__ = ["NAME", "build", "missing", "silent"]

NAME = "torchao"


def missing() -> str | None:
    """Why it cannot be used here, if it cannot. No extra brings it: transformers imports it wherever it is, slowly and loudly."""
    try:
        with silent():
            made = importlib.import_module("torchao.quantization")
    except ModuleNotFoundError:
        return "not installed: pip install torchao"
    except Exception as error:  # a build for another torch fails in ways of its own
        return f"it cannot be imported here: {' '.join(str(error).split())[:80]}"
    names = ("quantize_", "Int8DynamicActivationInt8WeightConfig")
    return next((f"this torchao has no {name}" for name in names if not hasattr(made, name)), None)


def build(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy with 8-bit linear layers, a scale for every output row, and one for every token's activations."""
    with silent():
        made = importlib.import_module("torchao.quantization")
        small = copy.deepcopy(model).eval()
        made.quantize_(small, made.Int8DynamicActivationInt8WeightConfig())
        with torch.no_grad():
            train.logits(small, inputs)  # the first pass imports more of it
    return small


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what torchao says: it tells at import which of its GPU kernels are not for this machine."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
