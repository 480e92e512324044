"""What a trained model costs: parameters, non-zeros, bytes, multiply-adds and latency on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from trainflat import compress
from trainflat.experiments.resolve import Spec, build, component, parent
from trainflat.experiments.stages.quantize import QUANTIZERS, grid
from trainflat.experiments.work import Work

__all__ = ["Measure"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures the model of another stage, quantized first if a quantizer is named. Latency is of one batch of real inputs."""

    VERSION: ClassVar[int] = 1
    model: str = parent()
    quantizer: Spec | None = component(*QUANTIZERS, default=None, given=1)
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise ValueError(f"batch and threads must be at least 1, got {self.batch} and {self.threads}")

    def run(self, work: Work) -> list[dict[str, Any]]:
        source = work.parents["model"]
        task, model = source.task(), source.model(work.seed)
        before = source.row
        variant = before["variant"]
        if self.quantizer is not None:
            model, variant = build(self.quantizer, QUANTIZERS, model), grid(self.quantizer)
        cost = compress.cost(model, task.inputs(self.batch), threads=self.threads)
        row = {"task": task.name, "model": getattr(task, "model_name", None), "variant": variant}
        return [{**row, "sparsity": before["sparsity"], "cost": cost.as_dict()}]
