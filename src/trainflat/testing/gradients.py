"""The laws of a Gradient: what every rule for where the gradient is taken has to keep."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainflat import train
from trainflat.compress.masks import Mask
from trainflat.flat.gradients import plain
from trainflat.testing.factory import check_factory
from trainflat.testing.problem import Counted, Stopped, equal, law, low, problem, same, trainable
from trainflat.types import Batch, Gradient

__all__ = ["check_gradient"]

Rule = Callable[..., Gradient]


def check_gradient(rule: Rule, *, parts: bool = False, large_batch: bool = True) -> None:
    """Check a rule on a small net, in about a second. The laws:

    1. In the first step and in the second it leaves every weight bit for bit as it was, in float32 and bfloat16, also when the
       closure raises in any pass; it fills the gradients and returns a finite 0-d loss without a graph.
    2. A pruned weight is exactly zero, during every pass and after every step, under SGD with momentum, Adam and AdamW,
       all with weight decay.
    3. Four micro-batches equal the large batch (float64, to 1e-9).
    4. A run that is saved, thrown away and resumed equals the run that never stopped, bit for bit, with dropout.
    5. Evaluating between two steps changes nothing.
    6. In both steps a frozen parameter stays as it is, also if the optimizer has it, and one that the loss does not use does
       no harm.
    7. In both a gradient of zero gives no NaN.
    8. If it has an option ``rho``: with ``rho=0`` it is ``flat.plain`` bit for bit, random stream included.
    9. Called inside ``torch.autocast`` it gives, bit for bit, what it gives with a closure that is in autocast itself.
    10. After a batch whose loss is not finite, on which no step is taken, the next step's gradients are finite.
    11. With a closure that clears the gradients first, as torch's own are, it gives what it gives with one that leaves that to
        the loop.

    Args:
        rule: The factory, such as `flat.sam`; called anew for each law, since a rule may have memory. Give options with
            ``functools.partial``.
        parts: Whether the rule asks for ``closure.part``, ``.pieces``, ``.losses`` or ``.model``; if not, it has to make do with
            a plain function.
        large_batch: False for a rule that takes one ball per micro-batch (m-SAM), which law 3 does not bind.

    Raises:
        AssertionError: With the law that is broken.

    Example:
        >>> from trainflat import flat
        >>> check_gradient(flat.sam)
    """
    check_factory(rule, "flat.sam or functools.partial(flat.sam, rho=0.1)")
    with torch.random.fork_rng(devices=[]):
        for steps in (0, 1):
            for dtype in (torch.float32, torch.bfloat16):
                _leaves_the_weights(rule, dtype, parts, steps)
        for optimizer in (_sgd, _adam, torch.optim.AdamW):
            _keeps_pruned_weights_at_zero(rule, optimizer)
        if large_batch:
            _micro_batches_are_the_large_batch(rule)
        _resumes(rule)
        _ignores_evaluation(rule)
        for steps in (0, 1):
            _bears_frozen_and_unused(rule, parts, steps)
            _bears_a_zero_gradient(rule, parts, steps)
            _is_itself_in_autocast(rule, parts, steps)
            _bears_a_closure_that_clears(rule, parts, steps)
        _recovers(rule, parts)
        if "rho" in inspect.signature(rule).parameters:
            _is_plain_without_radius(rule, parts)


def _begun(rule: Rule, net: nn.Module, batch: Batch, parts: bool, steps: int) -> Gradient:
    """The rule after so many steps of training: one that goes by the step before does nothing of its own in the first."""
    gradient, sgd = rule(), _sgd(net.parameters())
    for _ in range(steps):
        sgd.zero_grad()
        gradient(Counted(net, batch).given(parts), trainable(net), 0.0)
        sgd.step()
    sgd.zero_grad()
    return gradient


def _leaves_the_weights(rule: Rule, dtype: torch.dtype, parts: bool, steps: int) -> None:
    leaves = f"a rule leaves every weight bit for bit as it was ({dtype}, step {steps + 1})"
    net, batch = problem(dtype)
    gradient = _begun(rule, net, batch, parts, steps)
    before, closure = train.snapshot(net), Counted(net, batch)
    loss = gradient(closure.given(parts), trainable(net), 0.0)
    law(equal(before, train.snapshot(net)), leaves)
    law(loss.ndim == 0 and loss.isfinite(), "a rule returns a finite 0-d loss")
    law(not loss.requires_grad, "a rule returns a loss without a graph")
    for name, p in net.named_parameters():
        law(p.grad is not None and p.grad.isfinite().all(), f"a rule fills every gradient: not that of {name!r}")
    law(
        any(p.grad.any() for p in net.parameters() if p.grad is not None),
        "a rule fills the gradients with more than zeros",
    )
    for fails_in in range(1, closure.passes + 1):
        net, batch = problem(dtype)
        gradient = _begun(rule, net, batch, parts, steps)
        try:
            gradient(Counted(net, batch, fails_in=fails_in).given(parts), trainable(net), 0.0)
        except Stopped:
            law(equal(before, train.snapshot(net)), f"{leaves}, also when the closure raises in pass {fails_in}")
        else:
            raise AssertionError(f"a rule lets the closure's error through: that of pass {fails_in} is gone")


def _keeps_pruned_weights_at_zero(rule: Rule, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
    net, batch = problem(dropout=0.1)
    mask = Mask({name: torch.rand_like(p) < 0.5 for name, p in net.named_parameters() if p.ndim == 2})
    params = dict(net.named_parameters())

    def all_zero() -> bool:
        return not any(params[name][~alive].count_nonzero() for name, alive in mask.items())

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        law(all_zero(), "a pruned weight is never perturbed: one was not zero during a pass")
        return train.cross_entropy(model, batch)

    made = optimizer(net.parameters())
    with mask.on(net):
        for _ in train.loop(net, objective, [batch] * 5, made, steps=5, gradient=rule()):
            law(all_zero(), f"a pruned weight stays exactly zero under {type(made).__name__}: one moved")


def _micro_batches_are_the_large_batch(rule: Rule) -> None:
    ends = []
    for count in (1, 4):
        net, (x, y) = problem(torch.float64)
        micro = [(x[i::count], y[i::count]) for i in range(count)] * 3
        train.fit(net, train.cross_entropy, micro, _sgd(net.parameters()), steps=3, accumulate=count, gradient=rule())
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    close = torch.allclose(*ends, rtol=1e-9, atol=1e-12)  # sums of 1e-16 roundings, in another order
    law(close, f"four micro-batches equal the large batch: off by up to {(ends[0] - ends[1]).abs().max():.1e}")


def _run(rule: Rule, stop: int | None = None, *, peek: bool = False) -> dict[str, Tensor]:
    """The weights after six steps with dropout, in one go or stopped, saved, thrown away and resumed after ``stop``."""
    start, file = 0, None
    with tempfile.TemporaryDirectory() as folder:
        while True:
            net, (x, y) = problem(dropout=0.5)
            adam, gradient = torch.optim.Adam(net.parameters(), lr=0.01), rule()
            if file is not None:
                torch.manual_seed(123)  # another process starts with another random stream
                start, _ = train.load_state(file, net, adam, gradient=gradient)
            stream = train.Stream(32, 8, lambda i, x=x, y=y: (x[i], y[i]), seed=0)
            lr = train.linear(1.0, 0.0, warmup=0.3)
            run = train.loop(net, train.cross_entropy, stream, adam, steps=6, start=start, gradient=gradient, lr=lr)
            for step in run:
                if peek:
                    train.evaluate(net, [(x, y)], lambda logits, labels: {})
                if file is None and step.index + 1 == stop:
                    file = Path(folder, "state.safetensors")
                    train.save_state(file, net, adam, step=step.index + 1, gradient=gradient)
                    break
            else:
                return train.snapshot(net)


def _resumes(rule: Rule) -> None:
    whole = _run(rule)
    for stop in (1, 3, 5):
        law(equal(whole, _run(rule, stop)), f"resuming equals never stopping: not after step {stop} of 6")


def _ignores_evaluation(rule: Rule) -> None:
    law(equal(_run(rule), _run(rule, peek=True)), "evaluating between two steps changes nothing: other bits at the end")


def _bears_frozen_and_unused(rule: Rule, parts: bool, steps: int) -> None:
    net, batch = problem()
    frozen = next(net.parameters()).requires_grad_(False)
    unused = nn.Parameter(torch.ones(3))
    net.register_parameter("unused", unused)
    gradient = _begun(rule, net, batch, parts, steps)
    before = train.snapshot(net)
    gradient(Counted(net, batch).given(parts), trainable(net), 0.0)
    law(equal(before, train.snapshot(net)), "a rule leaves frozen and unused parameters as they were")
    law(frozen.grad is None, "a frozen parameter gets no gradient")
    law(unused.grad is None or not unused.grad.any(), "a parameter that the loss does not use gets no gradient")
    train.fit(net, train.cross_entropy, [batch], _sgd(net.parameters()), steps=1, gradient=gradient)
    law(torch.equal(frozen, before["0.weight"]), "a frozen parameter stays as it is, also if the optimizer has it")


def _bears_a_zero_gradient(rule: Rule, parts: bool, steps: int) -> None:
    net, batch = problem()
    gradient = _begun(rule, net, batch, parts, steps)
    gradient(Counted(net, batch, factor=0.0).given(parts), trainable(net), 0.0)
    for name, p in net.named_parameters():
        law(p.grad is None or p.grad.isfinite().all(), f"a gradient of zero gives no NaN: that of {name!r} does")


def _is_itself_in_autocast(rule: Rule, parts: bool, steps: int) -> None:
    found = []
    for around in (False, True):
        net, batch = problem()
        gradient = _begun(rule, net, batch, parts, steps)
        closure = Counted(net, batch, low=not around).given(parts)
        with low() if around else nullcontext():
            loss = gradient(closure, trainable(net), 0.0)
        found.append([loss, *(p.grad for p in net.parameters())])
    law(same(*found), f"called inside autocast a rule gives what it gives with autocast inside (step {steps + 1})")


def _bears_a_closure_that_clears(rule: Rule, parts: bool, steps: int) -> None:
    found = []
    for clears in (False, True):
        net, batch = problem()
        gradient = _begun(rule, net, batch, parts, steps)
        loss = gradient(Counted(net, batch, clears=clears).given(parts), trainable(net), 0.0)
        found.append([loss, *(p.grad for p in net.parameters())])
    law(same(*found), f"a closure may clear the gradients first: other gradients in step {steps + 1}")


def _recovers(rule: Rule, parts: bool) -> None:
    net, batch = problem()
    gradient = _begun(rule, net, batch, parts, 1)
    for factor in (math.inf, 1.0):
        for p in net.parameters():
            p.grad = None
        gradient(Counted(net, batch, factor=factor).given(parts), trainable(net), 0.0)
    for name, p in net.named_parameters():
        law(p.grad is not None and p.grad.isfinite().all(), f"a rule recovers from one bad batch: {name!r} does not")


def _is_plain_without_radius(rule: Rule, parts: bool) -> None:
    found = []
    for gradient in (plain(), rule(rho=0.0)):
        net, batch = problem(dropout=0.5)
        loss = gradient(Counted(net, batch).given(parts), trainable(net), 0.0)
        found.append([loss, torch.get_rng_state(), *(p.grad for p in net.parameters())])
    law(same(*found), "rho = 0 is plain, bit for bit, random stream included")


def _sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01)


def _adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.01, weight_decay=0.01)
