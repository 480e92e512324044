"""What the cheap flat rules cost at BERT-base size: a step of each beside one of plain Adam, and its memory.

The peer is the same loop without a rule. A rule that leaves the weights now and then is timed over its whole period.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

import torch
from torch import nn

from bench.bert import batch, bert
from bench.pairs import Line, arguments, load, now, peak_allocated, ratio, show, take_turns
from trainflat import flat, train
from trainflat.types import Gradient

TITLE = "A step of the flat rules at BERT-base size, batch 8 x 128, fp32; peer: a fused Adam step"


class Rule(NamedTuple):
    """A rule, the steps of its period, and what it may cost: steps of Adam, and copies of the weights."""

    make: Callable[[], Gradient | None]
    target: float | None = None
    copies: int = 1
    steps: int = 5


RULES = {
    "interval, k = 5": Rule(lambda: flat.interval(k=5), 1.25),
    "cram, every = 5": Rule(lambda: flat.cram(every=5), 1.25),
    "quarter_batch": Rule(flat.quarter_batch, 1.32),
    "momentum_sam": Rule(flat.momentum_sam, 1.05, copies=2),
    "stale_sam": Rule(flat.stale_sam, 1.05),
    "stale_cram": Rule(flat.stale_cram, 1.05, steps=6),
    "noise": Rule(flat.noise, 1.05),
    "looksam, k = 5": Rule(lambda: flat.looksam(k=5), copies=2),
    "late, t0 = 0.7": Rule(lambda: flat.late(t0=0.7), steps=10),  # a whole run: seven plain steps, three of SAM
    "esam": Rule(flat.esam),
    "delta_sam": Rule(flat.delta_sam),
    "dp_sat": Rule(flat.dp_sat, copies=2),
    "gsam": Rule(flat.gsam),
    "bilateral_sam": Rule(flat.bilateral_sam),
    "m_sam": Rule(flat.m_sam),
    "sam": Rule(flat.sam),
    "asam": Rule(flat.asam),
}


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-5, fused=True)


def chosen(options: argparse.Namespace) -> dict[str, Rule]:
    """The rules that were asked for: all, those that have a target, or those that are named."""
    named = options.rules or [name for name, rule in RULES.items() if rule.target is not None or not options.targets]
    return {name: RULES[name] for name in named}


def cost(options: argparse.Namespace) -> list[Line]:
    """Seconds a step. All train the same model in turn with the same Adam, so that all of them need not fit into memory."""
    model, examples = bert(options.small), batch(options.small)
    optimizer = adam(model)

    def turn(rule: Gradient | None, steps: int) -> Callable[[], float]:
        def run() -> float:
            start = now()
            train.fit(model, train.cross_entropy, repeat(examples), optimizer, steps=steps, gradient=rule)
            return (now() - start) / steps

        return run

    rules = chosen(options)
    turns = {"adam": turn(None, 5)} | {name: turn(rule.make(), rule.steps) for name, rule in rules.items()}
    times = take_turns(turns, rounds=options.rounds, warmup=1)
    return [ratio(f"a step of {name}", times[name], times["adam"], rule.target) for name, rule in rules.items()]


def memory(options: argparse.Namespace) -> list[Line]:
    """Four steps late in a run with a fresh rule, at their peak, minus the same of plain training.

    The optimizer has its state before they begin: while that is missing, a copy more or two would not show.
    """

    def peak(rule: Gradient | None) -> int:
        model, examples = bert(options.small), repeat(batch(options.small))
        optimizer = adam(model)
        train.fit(model, train.cross_entropy, examples, optimizer, steps=1)
        optimizer.zero_grad()
        rest = {"steps": 10, "start": 6, "gradient": rule}
        return peak_allocated(lambda: train.fit(model, train.cross_entropy, examples, optimizer, **rest))

    copy = 4 * sum(p.numel() for p in bert(options.small).parameters())
    plain, lines = peak(None), []
    for name, rule in chosen(options).items():
        extra = peak(rule.make()) - plain
        what = f"extra memory of {name}; peer: one copy of the weights"
        lines.append(Line(what, f"{extra / 1e6:.1f} MB", f"{copy / 1e6:.1f} MB", extra / copy, rule.copies + 0.01))
    return lines


def main() -> None:
    only = {"action": "store_true", "help": "only the rules that have a target"}
    named = {"nargs": "+", "choices": RULES, "metavar": "NAME", "help": f"only these, of: {'; '.join(RULES)}"}
    options, before = arguments(__doc__ or "", ("--targets", only), ("--rules", named)), load()
    lines = [*cost(options), *memory(options)]
    notes = [
        "Seconds are of one step, on average over five in a row, which is the period of most (late: ten, stale_cram: six).",
        "Memory is what torch allocated at the peak of four steps, minus that of plain training.",
    ]
    show(TITLE, lines, options, before, notes)


if __name__ == "__main__":
    main()
