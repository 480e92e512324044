"""The laws of an Average: what every way to keep an iterate has to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainflat import train
from trainflat.compress.masks import Mask
from trainflat.testing.factory import check_factory
from trainflat.testing.problem import equal, law, problem, trainable, untouched
from trainflat.types import Average

__all__ = ["check_average"]

STEPS = 12


def check_average(average: Callable[..., Average]) -> None:
    """Check a way to keep an iterate. The laws:

    1. Looking changes nothing: weights, gradients, modes and the random stream are what they were.
    2. If all iterates are equal, that is what is kept, bit for bit.
    3. A pruned weight is exactly zero in what is kept.
    4. A run that is saved, thrown away and resumed keeps the same, bit for bit.
    5. What is kept lies between the smallest and the largest iterate, weight by weight.

    Args:
        average: The factory, such as `flat.swa`; options with ``functools.partial``.

    Raises:
        AssertionError: With the law that is broken.
        TypeError: If it is not a factory.

    Example:
        >>> from trainflat import flat
        >>> check_average(flat.swa)
    """
    check_factory(average, "flat.swa or functools.partial(flat.swa, checkpoints=6)")
    with torch.random.fork_rng(devices=[]):
        _looks_only(average)
        _keeps_what_does_not_move(average)
        kept, seen = _run(average)
        _resumes(average, kept)
        for name, tensor in kept.items():
            every = torch.stack([weights[name] for weights in seen])
            slack = 1e-6 * every.abs().max()  # a mean of float32 numbers, rounded
            inside = (tensor >= every.min(0).values - slack) & (tensor <= every.max(0).values + slack)
            law(inside.all(), f"what is kept lies between the iterates: {name!r} does not")


def _looks_only(average: Callable[..., Average]) -> None:
    net, _ = problem()
    made = average()
    with untouched(net, "an average only looks"):
        for i in range(STEPS):
            made(trainable(net), (i + 1) / STEPS)


def _keeps_what_does_not_move(average: Callable[..., Average]) -> None:
    net, _ = problem()
    made, before = average(), train.snapshot(net)
    for i in range(STEPS):
        made(trainable(net), (i + 1) / STEPS)
    made.apply_to(net)
    law(equal(before, train.snapshot(net)), "of equal iterates that iterate is kept, bit for bit")


def _run(average: Callable[..., Average], stop: int | None = None) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """What is kept of some steps under a mask, in one go or resumed after ``stop``, and all the iterates."""
    start, file, seen = 0, None, []
    with tempfile.TemporaryDirectory() as folder:
        while True:
            net, batch = problem(dropout=0.1)
            mask = Mask({name: torch.rand_like(p) < 0.5 for name, p in net.named_parameters() if p.ndim == 2})
            adam, made = torch.optim.Adam(net.parameters(), lr=0.01), average()
            if file is not None:
                start, _ = train.load_state(file, net, adam, average=made)
            with mask.on(net):
                run = train.loop(net, train.cross_entropy, [batch] * STEPS, adam, steps=STEPS, start=start)
                for step in run:
                    made(trainable(net), (step.index + 1) / STEPS)
                    seen.append(train.snapshot(net))
                    if file is None and step.index + 1 == stop:
                        file = Path(folder, "state.safetensors")
                        train.save_state(file, net, adam, step=step.index + 1, average=made)
                        break
                else:
                    made.apply_to(net)
                    kept = train.snapshot(net)
                    dead = all(not kept[name][~alive].any() for name, alive in mask.items())
                    law(dead, "a pruned weight is exactly zero in what is kept")
                    return kept, seen


def _resumes(average: Callable[..., Average], whole: dict[str, Tensor]) -> None:
    for stop in (1, 7, 11):
        kept, _ = _run(average, stop)
        law(equal(whole, kept), f"resuming keeps the same as never stopping: not after step {stop} of {STEPS}")
