"""Pruning BERT-base's 73 matrices by 10 % of their weights a round: seconds, extra memory, and the ticket's file.

Peer: ``torch.nn.utils.prune.global_unstructured`` with L1Unstructured. Every round prunes what the last one left, as
iterative magnitude pruning does: the first is 10 %, the last 90 %.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn
from torch.nn.utils import prune as peer

from bench.bert import bert, encoder_matrices, prunable
from bench.pairs import Line, arguments, load, peak_bytes, ratio, reset_peak, show, subprocess_output, take_turns
from trainflat import train
from trainflat.compress import Mask, Ticket, magnitude, prune

TITLE = "One pruning round on BERT-base's 73 matrices (85.5 million weights)"


def our_rounds(model: nn.Module, rounds: int) -> Callable[[], None]:
    mask, done = Mask.dense(model, where=prunable), 0

    def run() -> None:
        nonlocal mask, done
        done += 1
        mask = prune(magnitude(model), 0.9 * done / rounds, within=mask)

    return run


def their_rounds(model: nn.Module, rounds: int) -> Callable[[], None]:
    pairs, total, done = encoder_matrices(model), 0, 0
    total = sum(getattr(module, name).numel() for module, name in pairs)

    def run() -> None:
        nonlocal done
        kill = round(0.9 * (done + 1) / rounds * total) - round(0.9 * done / rounds * total)
        done += 1
        peer.global_unstructured(pairs, pruning_method=peer.L1Unstructured, amount=kill)

    return run


def memory(kind: str, small: bool, rounds: int) -> int:
    """What the first ``rounds`` of nine rounds need beyond what was resident before, at their peak, in bytes."""
    model = bert(small)
    run = (our_rounds if kind == "ours" else their_rounds)(model, 9)
    before = reset_peak()
    for _ in range(rounds):
        run()
    return peak_bytes() - before


def main() -> None:
    options = arguments(__doc__ or "", ("--memory", {"choices": ["ours", "theirs"]}))
    if options.memory:
        print(memory(options.memory, options.small, 3))
        return
    before, warmup = load(), 2
    total = options.rounds + warmup
    candidates = {"ours": our_rounds(bert(options.small), total), "theirs": their_rounds(bert(options.small), total)}
    times = take_turns(candidates, rounds=options.rounds, warmup=warmup)
    lines = [ratio("one round; peer: global_unstructured", times["ours"], times["theirs"], 0.12)]

    small = ["--small"] if options.small else []
    ours, theirs = (
        int(subprocess_output("bench.prune_round", "--memory", kind, *small)) for kind in ("ours", "theirs")
    )
    texts = f"{ours / 1e9:.2f} GB", f"{theirs / 1e9:.2f} GB"
    lines.append(Line("peak extra memory of three rounds", *texts, ours / theirs))
    lines.append(Line("the same against the allowance", texts[0], "0.8 GB", ours / 0.8e9, 1.0))

    model = bert(options.small)
    mask = prune(magnitude(model), 0.5, within=Mask.dense(model, where=prunable))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        Ticket(mask, train.snapshot(model)).save(path)
        size = path.stat().st_size
    texts = f"{size / 1e6:.2f} MB", f"{mask.size / 8e6:.2f} MB"
    lines.append(Line("a saved ticket; peer: one bit a weight", *texts, size * 8 / mask.size, 11e6 * 8 / 85_524_480))
    show(TITLE, lines, options, before)


if __name__ == "__main__":
    main()
