"""The parts of a round of iterative magnitude pruning that are not training, as a share of a round of 100 steps.

What an `Imp` stage does between two trainings of BERT-base: rank and prune, write the mask and the head with an fsync,
put the starting weights back, make a new AdamW. A step is one masked, clipped step of batch 8 x 128.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import torch

from bench.bert import batch, bert, prunable
from bench.pairs import Line, arguments, load, show, take_turns
from trainflat import train
from trainflat.compress import Mask, Ticket, magnitude, prune, save_mask

TITLE = "What a round of iterative magnitude pruning costs beside its training, BERT-base"


def main() -> None:
    options = arguments(__doc__ or "")
    before = load()
    model = bert(options.small)
    mask, done, total = Mask.dense(model, where=prunable), 0, options.rounds + 2
    start = train.snapshot(model)
    head = {name: tensor for name, tensor in start.items() if name.startswith("classifier.")}

    def adam() -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)

    def rank() -> None:
        nonlocal mask, done
        done += 1
        mask = prune(magnitude(model), 0.9 * done / total, within=mask)

    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Callable[[], object]] = {
            "prune": rank,
            "save the mask and the head": lambda: save_mask(Path(folder) / "round.safetensors", mask, head, rows=[]),
            "rewind": lambda: Ticket(mask, start).rewind(model, keep=("classifier.",)),
            "a new optimizer": adam,
        }
        with mask.on(model):
            running = train.loop(
                model, train.cross_entropy, repeat(batch(options.small)), adam(), steps=10_000, clip=1.0
            )
            turns = {name: lambda part=part: part() and None for name, part in parts.items()}
            times = take_turns({**turns, "step": lambda: next(running) and None}, rounds=options.rounds)
    round_of_steps = 100 * times.pop("step").median
    peer = f"{round_of_steps:.1f} s"
    lines = [Line(name, f"{part.median:.3f} s", peer, part.median / round_of_steps) for name, part in times.items()]
    seconds = sum(part.median for part in times.values())
    lines.append(Line("all of it; peer: 100 training steps", f"{seconds:.3f} s", peer, seconds / round_of_steps, 0.03))
    show(TITLE, lines, options, before)


if __name__ == "__main__":
    main()
