"""What a trained model costs: parameters, non-zeros, bytes, multiply-adds and latency on this machine."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainflat import compress
from trainflat.experiments.resolve import Spec, check, component, find, parent
from trainflat.experiments.stages.quantize import QUANTIZERS, check_place, on_grid, quantized, served
from trainflat.experiments.work import TASKS, Work

__all__ = ["Measure"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures the model of another stage, quantized first if a quantizer is named. Latency is of one batch of real inputs.

    The row's ``cost`` says of what: batch, tokens of each example, the share of them that is padding, threads, device.

    Args:
        model: The stage whose model is measured; a shrunk one as it is.
        quantizer: What is done to it before, such as "dynamic_int8".
        batch: Examples at once. Default: 1, what a service answers one by one.
        length: Tokens to which every example is padded, or cut; of tasks made of tokens, ``max_length`` of the task at most.
            Default: as many as the longest example of the batch has, so that a batch of one is not padded at all.
        threads: Torch's threads while timing.
        runs: Timed forward passes. Default: `trainflat.compress.cost`'s, 30.
        on: "cuda": the model is served on a GPU, in bfloat16; of tasks made of tokens. Default: on the CPU, as it is.
    """

    VERSION: ClassVar[int] = 1
    model: str = parent()
    quantizer: Spec | None = component(*QUANTIZERS, default=None, given=1)
    batch: int = 1
    length: int | None = None
    threads: int = 1
    runs: int | None = None
    on: str | None = None

    def __post_init__(self) -> None:
        check_place(self.on, self.quantizer)
        if self.batch < 1 or self.threads < 1:
            raise ValueError(f"batch and threads must be at least 1, got {self.batch} and {self.threads}")
        if self.runs is not None and self.runs < 1:
            raise ValueError(f"runs counts forward passes and must be at least 1, got {self.runs}")
        if self.length is not None and self.length < 1:
            raise ValueError(
                f"length counts tokens and must be at least 1, got {self.length}; leave it out for no padding"
            )

    def check_parents(self, parents: Mapping[str, Any]) -> None:
        """Whether the task has examples of this length, as far as it says so beforehand; called while planning."""
        task = getattr(parents["model"], "task", None)
        wanted = {"length": self.length, "on": self.on}
        given = [f"{name} = {value!r}" for name, value in wanted.items() if value is not None]
        if not given or task is None:
            return
        longest = check(task, TASKS).get("max_length", getattr(find(task.name, TASKS), "max_length", None))
        if longest == 0:
            raise ValueError(f"{given[0]}, but the examples of {task} are not made of tokens; leave it out")
        if self.length is not None and longest is not None and self.length > longest:
            raise ValueError(f"length = {self.length}, but {task} has examples of {longest} tokens at most")

    def run(self, work: Work) -> list[dict[str, Any]]:
        source = work.parents["model"]
        task, model = source.task(), served(source.model(work.seed), self.on)
        before = source.row
        variant = before["variant"]
        if self.quantizer is not None:
            model = on_grid(self.quantizer, model, task, work.seed)
            variant = quantized(before, self.quantizer)
        cost = compress.cost(model, self._inputs(task), threads=self.threads)
        row = {"task": task.name, "model": getattr(task, "model_name", None), "variant": variant}
        kept = {name: before[name] for name in before if name.startswith("sparsity") or name == "shape"}
        return [{**row, **kept, "cost": cost.as_dict()}]

    def _inputs(self, task: Any) -> Any:
        if self.length is None:
            return task.inputs(self.batch)
        if "length" not in inspect.signature(task.inputs).parameters:
            raise ValueError(f"length = {self.length}, but inputs(size) of {task.name} takes no length; leave it out")
        return task.inputs(self.batch, length=self.length)
