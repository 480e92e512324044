"""One SAM step at BERT-base size: what ascent and restore add, the whole step, and the memory.

Peer: ``pytorch_optimizer.SAM``, as it comes and with ``foreach=True``, around the same fused AdamW.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import repeat

import pytorch_optimizer
import torch
from torch import Tensor, nn

from bench.bert import batch, bert
from bench.pairs import Line, arguments, load, now, peak_allocated, ratio, show, take_turns
from trainflat import flat, train

TITLE = "A SAM step at BERT-base size, batch 8 x 128, fp32"


class Still(torch.optim.Optimizer):
    """Steps nowhere: so that the peer's second step is its restore alone."""

    def __init__(self, params, **options):
        super().__init__(params, options)

    def step(self, closure=None):
        return None


def our_ascent(model: nn.Module, gradients: list[Tensor]) -> Callable[[], float]:
    """The rule around a closure that only copies gradients in; the seconds outside that closure."""
    params, rule, inside = dict(model.named_parameters()), flat.sam(rho=0.05), 0.0

    def closure() -> Tensor:
        nonlocal inside
        start = now()
        put(model, gradients)
        inside += now() - start
        return torch.zeros(())

    def run() -> float:
        nonlocal inside
        inside, start = 0.0, now()
        rule(closure, params, 0.0)
        return now() - start - inside

    return run


def their_ascent(model: nn.Module, gradients: list[Tensor], foreach: bool | None) -> Callable[[], float]:
    optimizer = pytorch_optimizer.SAM(model.parameters(), Still, rho=0.05, foreach=foreach)

    def run() -> float:
        put(model, gradients)
        start = now()
        optimizer.first_step(zero_grad=True)
        up = now() - start
        put(model, gradients)
        start = now()
        optimizer.second_step()
        return up + now() - start

    return run


def put(model: nn.Module, gradients: list[Tensor]) -> None:
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient.clone()


def our_steps(model: nn.Module, small: bool, gradient=None) -> Iterator[train.Step]:
    adam = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    return train.loop(model, train.cross_entropy, repeat(batch(small)), adam, steps=10_000, gradient=gradient)


def their_steps(model: nn.Module, small: bool) -> Iterator[None]:
    """The step as their documentation writes it."""
    sam = pytorch_optimizer.SAM(model.parameters(), torch.optim.AdamW, rho=0.05, lr=2e-5, fused=True)
    examples = batch(small)
    while True:

        def closure() -> Tensor:
            sam.zero_grad()
            loss = train.cross_entropy(model, examples)
            loss.backward()
            return loss

        closure()
        sam.step(closure)
        yield


def ascent(options: argparse.Namespace) -> list[Line]:
    model, generator = bert(options.small), torch.Generator().manual_seed(2)
    gradients = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    turns = {
        "ours": our_ascent(model, gradients),
        "theirs": their_ascent(model, gradients, None),
        "foreach": their_ascent(model, gradients, True),
    }
    times = take_turns(turns, rounds=options.rounds)
    return [
        ratio("ascent + restore; peer: pytorch_optimizer.SAM", times["ours"], times["theirs"], 0.25),
        ratio("the same; peer with foreach=True", times["ours"], times["foreach"]),
    ]


def whole_step(options: argparse.Namespace) -> list[Line]:
    runs = {
        "plain": our_steps(bert(options.small), options.small),
        "ours": our_steps(bert(options.small), options.small, flat.sam()),
        "theirs": their_steps(bert(options.small), options.small),
    }
    times = take_turns({name: lambda run=run: next(run) and None for name, run in runs.items()}, rounds=options.rounds)
    return [
        ratio("whole SAM step; peer: a fused AdamW step", times["ours"], times["plain"], 2.03),
        ratio("pytorch_optimizer.SAM's whole step, the same way", times["theirs"], times["plain"]),
        ratio("whole SAM step; peer: pytorch_optimizer.SAM", times["ours"], times["theirs"]),
    ]


def memory(options: argparse.Namespace) -> list[Line]:
    """The first two steps, at their peak, minus the same of plain training."""
    runs = {
        "plain": lambda model: our_steps(model, options.small),
        "ours": lambda model: our_steps(model, options.small, flat.sam()),
        "theirs": lambda model: their_steps(model, options.small),
    }
    peak = {}
    for kind, begin in runs.items():
        running = begin(bert(options.small))
        peak[kind] = peak_allocated(lambda running=running: (next(running), next(running)))
    copy = 4 * sum(p.numel() for p in bert(options.small).parameters())

    def line(what: str, kind: str, target: float | None) -> Line:
        extra = peak[kind] - peak["plain"]
        return Line(what, f"{extra / 1e6:.1f} MB", f"{copy / 1e6:.1f} MB", extra / copy, target)

    return [
        line("extra memory of SAM; peer: one copy of the weights", "ours", 1.01),
        line("pytorch_optimizer.SAM's extra memory, the same way", "theirs", None),
    ]


def main() -> None:
    options, before = arguments(__doc__ or ""), load()
    lines = [*ascent(options), *whole_step(options), *memory(options)]
    notes = ["Memory is what torch allocated at the peak of two steps, minus that of plain training."]
    show(TITLE, lines, options, before, notes)


if __name__ == "__main__":
    main()
