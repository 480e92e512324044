"""Fine-tuning MiniLM on MRPC: our loop against the Hugging Face Trainer, in examples per second.

The Trainer runs with its defaults (random order, each batch padded to its longest, AdamW, clipping at 1.0), and once more
with every text padded to 128 as its GLUE example does by default. The same examples, tokens, batch size and threads. Each
turn trains 8 steps more. ``--score`` trains two epochs with each instead and prints the validation accuracy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import transformers

from bench.pairs import Line, arguments, load, now, ratio, show, take_turns
from trainflat import hf, train

TITLE = "Fine-tuning MiniLM on MRPC, batch 32"
STEPS = 8


def rows() -> list[dict[str, Any]]:
    """The training examples as the Trainer takes them: token lists without padding, and the label."""
    stream = hf.glue("mrpc", model="minilm", batch_size=1).batches(seed=0)
    single = islice(iter(stream), stream.per_epoch)
    return [{**{k: v[0].tolist() for k, v in inputs.items()}, "labels": int(labels[0])} for inputs, labels in single]


def ours(task: Any, precision: str = "fp32") -> Callable[[], float]:
    """Eight more steps of our loop with the Trainer's optimizer; their seconds."""
    running = our_steps(task, task.model(0), precision, 10_000)

    def run() -> float:
        start = now()
        for _ in range(STEPS):
            next(running)
        return now() - start

    return run


def our_steps(task: Any, model: torch.nn.Module, precision: Any, steps: int) -> Iterator[train.Step]:
    adam = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    linear = train.linear()
    return train.loop(
        model, task.objective, task.batches(0), adam, steps=steps, lr=linear, clip=1.0, precision=precision
    )


class Clock(transformers.TrainerCallback):
    """Notes the time when each step ends."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(now())


def theirs(task: Any, examples: list[dict[str, Any]], padding: str) -> Callable[[], float]:
    """Nine more steps of the Trainer; the seconds of the last eight."""
    model, tokenizer = task.model(0), hf.load("minilm")[1]
    turns = iter(range(1000))

    def run() -> float:
        clock = Clock()
        their_trainer(model, tokenizer, examples, padding, clock, max_steps=STEPS + 1, seed=next(turns)).train()
        return clock.ends[-1] - clock.ends[0]

    return run


def their_trainer(model, tokenizer, examples, padding: str, clock: Clock, **options: Any) -> transformers.Trainer:
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=32,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        **options,
    )
    pad = {"padding": "max_length", "max_length": 128} if padding == "128" else {"padding": True}
    collate = transformers.DataCollatorWithPadding(tokenizer, **pad)
    return transformers.Trainer(model, arguments, train_dataset=examples, data_collator=collate, callbacks=[clock])


def score(task: Any, examples: list[dict[str, Any]]) -> list[Line]:
    """Two epochs with each, the validation accuracy and the whole time."""
    model = task.model(0)
    start = time.perf_counter()
    steps = 2 * task.steps_per_epoch
    list(our_steps(task, model, "fp32", steps))
    our_seconds, our_score = time.perf_counter() - start, task.evaluate(model)["accuracy"]
    model, tokenizer = task.model(0), hf.load("minilm")[1]
    start = time.perf_counter()
    their_trainer(model, tokenizer, examples, "longest", Clock(), num_train_epochs=2, seed=0).train()
    their_seconds, their_score = time.perf_counter() - start, task.evaluate(model)["accuracy"]
    return [
        Line("accuracy after two epochs", f"{our_score:.3f}", f"{their_score:.3f}", our_score / their_score),
        Line(
            "two epochs, speed",
            f"{our_seconds:.0f} s",
            f"{their_seconds:.0f} s",
            their_seconds / our_seconds,
            1.3,
            at_least=True,
        ),
    ]


def main() -> None:
    options = arguments(
        __doc__ or "", ("--score", {"action": "store_true", "help": "compare the metric, not the speed"})
    )
    transformers.logging.set_verbosity_error()
    before = load()
    task, examples = hf.glue("mrpc", model="minilm"), rows()
    if options.score:
        show(TITLE, score(task, examples), options, before)
        return
    turns = {
        "fp32": ours(task),
        "bf16": ours(task, "bf16"),
        "longest": theirs(task, examples, "longest"),
        "128": theirs(task, examples, "128"),
    }
    times = take_turns(turns, rounds=1 if options.small else options.rounds, warmup=0 if options.small else 2)
    lines = [
        ratio("speed, fp32; peer: Trainer, padded to the longest", times["fp32"], times["longest"], 1.3, faster=True),
        ratio("speed, fp32; peer: Trainer, padded to 128", times["fp32"], times["128"], faster=True),
        ratio(
            "speed, ours in bf16; peer: Trainer, padded to the longest", times["bf16"], times["longest"], faster=True
        ),
    ]
    rate = {name: 32 * STEPS / each.median for name, each in times.items()}
    notes = ["Examples per second: " + ", ".join(f"{name} {value:.1f}" for name, value in rate.items()) + "."]
    show(TITLE, lines, options, before, notes)


if __name__ == "__main__":
    main()
