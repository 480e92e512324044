"""Post-training quantization of a trained model, scored on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainflat.experiments.resolve import Spec, build, check, component, parent
from trainflat.experiments.work import Work, point

__all__ = ["QUANTIZERS", "Quantize", "quantized"]

QUANTIZERS = ("trainflat.compress.quantize",)


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Na et al. 2022, table 8: dynamic int8 of the full fine-tuned model, no calibration, no retraining."""

    VERSION: ClassVar[int] = 1
    model: str = parent()
    quantizer: Spec = component(*QUANTIZERS, default="dynamic_int8", given=1)

    def run(self, work: Work) -> list[dict[str, Any]]:
        source = work.parents["model"]
        task, model = source.task(), source.model(work.seed)
        small = build(self.quantizer, QUANTIZERS, model)
        before = source.row
        about = {key: before[key] for key in before if key.startswith("sparsity")}
        return [point(task, task.evaluate(small), variant=quantized(before, self.quantizer), **about)]


def quantized(row: Mapping[str, Any], quantizer: Spec) -> str:
    """What the model of a row is called on a grid: ``int8 per_channel``, or of a shrunk one ``cofi, int8 per_channel``."""
    return f"{row['variant']}, {grid(quantizer)}" if "shape" in row else grid(quantizer)


def grid(quantizer: Spec) -> str:
    """How a row calls a quantizer: ``int8 per_channel``."""
    name = quantizer.name.rpartition(":")[2].removeprefix("dynamic_")
    return " ".join([name, *(str(value) for value in check(quantizer, QUANTIZERS, given=1).values())])
