"""Lightning's Trainer with the gradient taken where a rule says: SAM as a callback, no module and no optimizer changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from trainflat.train.loop import check_rule
from trainflat.types import Gradient

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "lightning":
        raise
    raise ImportError("lightning is not installed; it comes with: pip install 'trainflat[lightning]'") from None

__all__ = ["FlatCallback"]


class FlatCallback(Callback):
    """``Trainer(callbacks=[FlatCallback(flat.sam(rho=0.05))])``: the rule fills ``p.grad`` in every step of a fit.

    For any module with automatic optimization (`pytorch_lightning`'s as well). The rule sees all micro-batches of an optimizer
    step at once (``accumulate_grad_batches``): they wait until the last one has come, then the rule runs its passes over them.
    Everything after that is Lightning's: clipping (of the final gradient), optimizer, schedule, checkpoints, which have the
    memory of a rule that has one. With DDP each pass averages its gradient over all processes, so all ascend in the same
    direction. ``t`` is the step's number by ``trainer.estimated_stepping_batches``, and 0 throughout a training without an end.

    ``training_step`` runs once a pass and micro-batch. What it logs is taken from the first pass over the step's last
    micro-batch; metrics that it updates itself see every pass. If it returns None for all of them the step is skipped, as
    without the callback. Rules that ask for a part of the batch or for single examples (`trainflat.flat.quarter_batch`, `m_sam`,
    `esam`, `delta_sam`, `dp_sat`) say that they cannot work here.

    Args:
        gradient: A rule such as ``trainflat.flat.sam(rho=0.05)``.

    Raises:
        TypeError: If ``gradient`` is no rule, such as ``flat.sam`` without its brackets.
        ValueError: When a fit begins, if the module optimizes by hand or fetches its batches itself, with LBFGS, with 16-mixed
            (its scaled gradients mean nothing to a rule; bf16-mixed serves), or with DDP's ``gradient_as_bucket_view``; while
            resuming, if only one of the checkpoint and the rule has a memory.

    Example:
        >>> from trainflat import flat
        >>> FlatCallback(flat.sam(rho=0.05)).gradient
        Rule(radius=Given(rho=0.05))
        >>> FlatCallback(flat.sam)
        Traceback (most recent call last):
        TypeError: gradient is a rule, which is called with (closure, params, t), such as flat.sam(rho=0.05); this is <...>
    """

    def __init__(self, gradient: Gradient):
        check_rule(gradient)
        self.gradient = gradient
        self._waiting: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._stepping = False
        self._hooks = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, pl_module)
        self._hooks.close()
        self._waiting = []
        training_step = self._deferring(trainer, pl_module.training_step)
        optimizer_step = partial(self._step, trainer, pl_module, pl_module.optimizer_step)
        self._hooks.enter_context(_instead(pl_module, training_step=training_step, optimizer_step=optimizer_step))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._waiting = []  # what an epoch that was cut short left

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hooks.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hooks.close()

    def state_dict(self) -> dict[str, Any]:
        return self.gradient.state_dict() if hasattr(self.gradient, "state_dict") else {}  # pyright: ignore[reportAttributeAccessIssue]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if hasattr(self.gradient, "load_state_dict"):
            self.gradient.load_state_dict(state_dict)  # pyright: ignore[reportAttributeAccessIssue]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        has = bool(checkpoint.get("callbacks", {}).get(self.state_key))
        if trainer.state.fn != "fit" or has == hasattr(self.gradient, "load_state_dict"):
            return
        if has:
            raise ValueError(
                "this checkpoint holds the memory of the run's gradient, without which the run would not go on as it was: give "
                "FlatCallback the rule that it was made with"
            )
        raise ValueError(
            "this checkpoint holds nothing that the rule remembers: resume with the run's own rule, that has no memory, or save "
            "with this one"
        )

    def _check(self, trainer: Trainer, module: LightningModule) -> None:
        if not module.automatic_optimization:
            raise ValueError(
                "this module optimizes by hand (automatic_optimization is False), so there is no step that a callback could "
                "take: call the rule in training_step, as one would call manual_backward"
            )
        if "dataloader_iter" in signature(module.training_step).parameters:
            raise ValueError(
                "this training_step fetches its batches itself (dataloader_iter), so each pass of a step would have another one; "
                "let it take the batch"
            )
        if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
            raise ValueError("LBFGS takes several gradients a step, each of which would be a rule's step; use another")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                "FlatCallback does not work with 16-mixed, whose gradients are scaled; use precision='bf16-mixed'"
            )
        if getattr(trainer.strategy.model, "gradient_as_bucket_view", False):
            raise ValueError(
                "a rule holds gradients during later passes, and DistributedDataParallel writes those into the same memory: make "
                "it with gradient_as_bucket_view=False"
            )

    def _deferring(self, trainer: Trainer, theirs: Callable[..., Any]) -> Callable[..., Any]:
        """Their ``training_step`` within a step; before it the micro-batch waits, and its loss has no part in any weight."""

        @wraps(theirs)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            if self._stepping or not trainer.training:  # a module may validate with it
                return theirs(*args, **kwargs)
            self._waiting.append((args, kwargs))
            return torch.zeros((), requires_grad=True)

        return training_step

    def _step(
        self,
        trainer: Trainer,
        module: LightningModule,
        theirs: Callable[..., Any],
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Any = None,
    ) -> None:
        """Their ``optimizer_step``, whose closure runs the rule, whose closure is Lightning's over all micro-batches."""
        waiting, self._waiting = self._waiting, []
        passes = _Passes(trainer, module, optimizer, optimizer_closure, waiting)
        params = {name: p for name, p in module.named_parameters() if p.requires_grad}
        steps = trainer.estimated_stepping_batches
        t = min(1.0, trainer.global_step / steps) if steps > 0 else 0.0

        def gradient() -> Tensor | None:
            for p in params.values():
                p.grad = None  # also of what the optimizer lacks, and so does not clear
            try:
                return self.gradient(passes, params, t)
            except _NoLoss:
                return None

        self._stepping = True
        try:
            theirs(epoch, batch_idx, optimizer, gradient)
        finally:
            self._stepping = False


class _NoLoss(Exception):
    """``training_step`` gave none for any micro-batch of the step."""


class _Passes:
    """Lightning's own forward and backward over all micro-batches of one step; those that have waited come first."""

    def __init__(self, trainer: Trainer, model: LightningModule, optimizer: Any, last: Callable, waiting: list) -> None:
        self.trainer, self.model, self.optimizer = trainer, model, optimizer
        self.last, self.waiting = last, waiting
        self.first = True

    def __call__(self) -> Tensor:
        with _instead(self.model, log=_nothing):
            losses = [self._run(*args, **kwargs) for args, kwargs in self.waiting]
        if self.first:
            self.first, loss = False, self.last()
        else:
            with _instead(self.model, log=_nothing):
                loss = self.last()
        found = [each for each in [*losses, loss] if each is not None]
        if not found:
            raise _NoLoss
        return torch.stack(found).sum()

    @torch.enable_grad()
    def _run(self, *args: Any, **kwargs: Any) -> Tensor | None:
        strategy = self.trainer.strategy
        given = strategy.training_step(*args, **kwargs)
        loss = given.get("loss") if isinstance(given, Mapping) else given
        if loss is None:
            return None
        loss = loss / self.trainer.accumulate_grad_batches
        strategy.backward(loss, self.optimizer)
        return loss.detach()


@contextmanager
def _instead(module: LightningModule, **given: Callable[..., Any]) -> Iterator[None]:
    """While open these stand on the module itself, and then what stood there before, such as what torch has compiled."""
    before = {name: vars(module).get(name) for name in given}
    vars(module).update(given)
    try:
        yield
    finally:
        for name, was in before.items():
            vars(module).pop(name)
            if was is not None:
                vars(module)[name] = was


def _nothing(*args: Any, **kwargs: Any) -> None:
    """In place of ``log``: a step is logged once, whatever its passes."""
