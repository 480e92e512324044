"""Hugging Face's Trainer with the gradient taken where a rule says: SAM without wrapping the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.flat.gradients import plain
from trainflat.hf.needs import need
from trainflat.train.closure import MicroBatches
from trainflat.train.files import put_together, read, take_apart, write
from trainflat.train.loop import check_rule
from trainflat.types import Gradient

need("transformers")  # says what to install

from transformers import Trainer  # noqa: E402

__all__ = ["FlatTrainer"]

FILE = "gradient.safetensors"


class FlatTrainer(Trainer):
    """``transformers.Trainer`` with one more argument, ``gradient``: the rule that fills ``p.grad`` in every step.

    The rule sees all micro-batches of an optimizer step at once: they wait until the last one has come, then the rule
    runs its passes over them (the usual SAM wrappers ascend on the last micro-batch alone, or not at all). Everything
    after that is the Trainer's: clipping (of the final gradient), optimizer, schedule, logging, checkpoints. The
    logged loss is that at the weights. With several processes each pass averages its gradient over all of them, so
    all ascend in the same direction. A rule with memory is saved in each checkpoint (``gradient.safetensors``).

    Without a rule this is the Trainer, bit for bit, with one exception. Under accumulation, transformers up to at
    least 5.23 multiplies loss and gradient of heads that ignore ``num_items_in_batch`` (BERT's, RoBERTa's, most others
    for classification) by the number of micro-batches (transformers issue 47688), and so those of a ``compute_loss_func``
    that ignores it. Here the loss of a step is the mean over its micro-batches, as in `trainflat.train.loop`.

    A piece of the batch (`trainflat.flat.m_sam`) is a piece of each micro-batch. Rules that tell single examples apart (esam,
    delta_sam, dp_sat) say that they cannot work here: a model's own loss is one number for all of them.

    Args:
        gradient: A rule such as ``trainflat.flat.sam(rho=0.05)``. Default: the gradient at the weights.
        args, kwargs: As for ``transformers.Trainer``.

    Raises:
        TypeError: If ``gradient`` is no rule, such as ``flat.sam`` without its brackets.
        ValueError: With fp16 (its scaled gradients mean nothing to a rule; bf16 serves), with DeepSpeed, FSDP or
            parameters sharded in another way, and with optimizers that step during the backward pass (LOMO).
        ValueError, FileNotFoundError: While resuming, if only one of the checkpoint and the rule has a memory.
    """

    loss_is_scaled_for_ga: bool | None = None  # transformers' own; older ones of version 5 do not have it

    def __init__(self, *args: Any, gradient: Gradient | None = None, **kwargs: Any):
        self.gradient = gradient if gradient is not None else plain()
        check_rule(self.gradient)
        self._first = copy.deepcopy(self.gradient.state_dict()) if hasattr(self.gradient, "load_state_dict") else None  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(*args, **kwargs)
        self._waiting: list[Mapping[str, Any]] = []
        self._scale_known = False
        if self.args.fp16:
            raise ValueError("FlatTrainer does not work with fp16, whose gradients are scaled; use bf16=True")
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or self.is_distributed_loading_by_transformers:
            raise ValueError(
                "FlatTrainer needs whole parameters in each process, so neither DeepSpeed nor FSDP; use DDP"
            )
        if "lomo" in str(self.args.optim).lower():
            raise ValueError(
                "FlatTrainer needs an optimizer that steps after the backward pass, unlike LOMO; use AdamW"
            )

    def call_model_init(self, *args: Any, **kwargs: Any) -> Any:
        """A model that is made anew, as in every trial of a search, is trained by a rule that remembers no other one."""
        if self._first is not None:
            self.gradient.load_state_dict(copy.deepcopy(self._first))  # pyright: ignore[reportAttributeAccessIssue]
        return super().call_model_init(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of one optimizer step; what an interrupted step left waiting is forgotten."""
        self._waiting = []
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Keeps the micro-batch until its step is complete; the last one runs the rule and returns the step's loss."""
        self._waiting.append(dict(self._prepare_inputs(inputs)))
        if len(self._waiting) < self.current_gradient_accumulation_steps:
            return torch.zeros((), device=self.args.device)
        micro, self._waiting = self._waiting, []
        if len(micro) > 1 and not self._scale_known:
            self._find_scale(micro[0], num_items_in_batch)
        params = {name: p for name, p in self._network.named_parameters() if p.requires_grad}
        closure = _Closure(self, super().training_step, model, micro, num_items_in_batch)
        return self.gradient(closure, params, self.state.global_step / max(1, self.state.max_steps))

    @property
    def _network(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def _find_scale(self, inputs: Mapping[str, Any], items: Any) -> None:
        """Whether the loss is divided by ``items`` as the Trainer believes; asked of the loss itself, once."""
        self._scale_known = True
        believes = self.model_accepts_loss_kwargs or self.compute_loss_func is not None
        if self.loss_is_scaled_for_ga is None and believes and not self._heeds(inputs, items):
            # the Trainer then divides by the number of micro-batches
            self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False

    def _heeds(self, inputs: Mapping[str, Any], items: Any) -> bool:
        """Whether twice as many items change the loss."""
        if items is None:
            return False
        network, cuda = self._network, self.args.device.type == "cuda"
        was_training = network.training
        network.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng([self.args.device] if cuda else []):
                once, twice = (
                    self.compute_loss(network, dict(inputs), num_items_in_batch=factor * items) for factor in (1, 2)
                )
        finally:
            network.train(was_training)
        return not torch.equal(torch.as_tensor(once), torch.as_tensor(twice))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if not self.args.should_save:
            return
        if hasattr(self.gradient, "state_dict"):
            tensors: dict[str, Tensor] = {}
            header = take_apart("gradient", self.gradient.state_dict(), tensors)  # pyright: ignore[reportAttributeAccessIssue]
            write(Path(output_dir) / FILE, tensors, {"gradient": header})
        else:  # what another run left in the same folder
            (Path(output_dir) / FILE).unlink(missing_ok=True)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        file, remembers = Path(checkpoint) / FILE, hasattr(self.gradient, "load_state_dict")
        if file.is_file() and not remembers:
            raise ValueError(
                f"{file} holds the memory of the run's gradient, without which the run would not go on as it was: give "
                "gradient=..., the rule that it was made with, or delete the file to go on without"
            )
        if remembers and not file.is_file():
            raise FileNotFoundError(
                f"there is no {file}, so this checkpoint holds nothing that the rule remembers: resume with the run's own rule, "
                "that has no memory, or save with this one, and without save_only_model"
            )
        if remembers:
            tensors, header = read(file)
            state = put_together(header["gradient"], tensors)
            self.gradient.load_state_dict(state)  # pyright: ignore[reportAttributeAccessIssue]


class _Closure(MicroBatches):
    """The Trainer's own forward and backward over all micro-batches of one step.

    The Trainer divides the mean loss of a micro-batch by the number of micro-batches, and leaves a loss that is divided by
    ``items`` already as it is. For a piece of a micro-batch that number is 1 / its scale, and ``items`` stays the step's.
    """

    def __init__(
        self,
        trainer: FlatTrainer,
        step: Any,
        model: nn.Module,
        micro: list[Any],
        items: Any,
        scales: list[Fraction] | None = None,
    ):
        super().__init__(micro, scales)
        self.trainer, self.step, self.model, self.items = trainer, step, model, items
        self.passes = 0

    def __call__(self) -> Tensor:
        total = None
        for i, (inputs, scale) in enumerate(zip(self.micro, self.scales, strict=True)):
            last = i == len(self.micro) - 1
            with nullcontext() if last else self.trainer.accelerator.no_sync(model=self.model), self._scaled(scale):
                loss = self.step(self.model, inputs, self.items)
            total = loss if total is None else total + loss
            if self.passes:  # the Trainer counts the first pass itself
                self.trainer.current_flos += float(self.trainer.floating_point_ops(inputs))
        self.passes += 1
        assert total is not None
        return total

    def over(self, micro: list[Any], scales: list[Fraction] | None = None) -> _Closure:
        items = self.items
        if scales is not None and not self.trainer._scale_known:
            self.trainer._find_scale(self.micro[0], items)
        if items is not None and scales is None:  # a part, whose loss is the mean over what it has
            items = self.trainer._get_num_items_in_batch(micro, self.trainer.args.device)
        piece = _Closure(self.trainer, self.step, self.model, micro, items, scales)
        piece.passes = 1
        return piece

    @contextmanager
    def _scaled(self, scale: Fraction) -> Iterator[None]:
        trainer, steps = self.trainer, self.trainer.current_gradient_accumulation_steps
        if scale * steps != 1:
            trainer.current_gradient_accumulation_steps = float(1 / scale)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            trainer.current_gradient_accumulation_steps = steps
