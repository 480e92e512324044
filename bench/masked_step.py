"""A training step of BERT-base under a half-pruned mask against a dense one, and what masking does to the state dict.

Peer: the reparametrisation of ``torch.nn.utils.prune``, which keeps ``weight_orig`` and ``weight_mask`` for each matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import nn
from torch.nn.utils import prune as peer

from bench.bert import batch, bert, encoder_matrices, prunable
from bench.pairs import Line, arguments, load, ratio, show, take_turns
from trainflat import train
from trainflat.compress import Mask, prune, random

TITLE = "A masked training step at BERT-base size, batch 8 x 128, fused AdamW, fp32"


def steps(model: nn.Module, small: bool) -> Iterator[train.Step]:
    adam = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    return train.loop(model, train.cross_entropy, repeat(batch(small)), adam, steps=10_000)


def half(model: nn.Module) -> Mask:
    """Half of every matrix at random: the worst case for a processor that guesses branches."""
    return prune(random(model), 0.5, within=Mask.dense(model, where=prunable))


def size(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def main() -> None:
    options = arguments(__doc__ or "")
    before = load()
    dense, ours, theirs = (bert(options.small) for _ in range(3))
    mask = half(ours)
    for module, name in encoder_matrices(theirs):
        peer.random_unstructured(module, name, amount=0.5)
    with mask.on(ours):
        runs = {
            name: steps(model, options.small) for name, model in (("dense", dense), ("ours", ours), ("theirs", theirs))
        }
        turns = {name: lambda run=run: next(run) and None for name, run in runs.items()}
        times = take_turns(turns, rounds=options.rounds)
    lines = [
        ratio("a masked step; peer: a dense step", times["ours"], times["dense"], 1.02),
        ratio("torch.nn.utils.prune's masked step, the same way", times["theirs"], times["dense"]),
    ]
    for what, model, target in (("state dict", ours, 1.0), ("torch.nn.utils.prune's state dict", theirs, None)):
        texts = f"{size(model) / 1e6:.1f} MB", f"{size(dense) / 1e6:.1f} MB"
        lines.append(Line(f"{what}; peer: the dense one's", *texts, size(model) / size(dense), target))
    same = "the same" if list(ours.state_dict()) == list(dense.state_dict()) else "DIFFERENT"
    zeros = all(not bool(p.detach()[~mask[name]].any()) for name, p in ours.named_parameters() if name in mask)
    notes = [
        f"State-dict keys under the mask: {same}. Pruned weights after the steps: {'all zero' if zeros else 'MOVED'}."
    ]
    show(TITLE, lines, options, before, notes)


if __name__ == "__main__":
    main()
