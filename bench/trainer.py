"""Fine-tuning MiniLM on MRPC: our loop against the Hugging Face Trainer, in examples per second.

The Trainer runs with its defaults (random order, each batch padded to its longest, AdamW, clipping at 1.0), and once more
with every text padded to 128 as its GLUE example does by default. The same examples, tokens, batch size and threads. Each
turn trains 8 steps more. ``--score`` trains two epochs with each instead, once a seed, and compares the validation accuracy:
the same within noise, or not?
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import transformers

from bench.pairs import Line, Times, arguments, load, now, ratio, show, take_turns
from trainflat import hf, train
from trainflat.reports import stats

TITLE = "Fine-tuning MiniLM on MRPC, batch 32"
STEPS = 8


def rows(data: str | None) -> list[dict[str, Any]]:
    """The training examples as the Trainer takes them: token lists without padding, and the label."""
    stream = hf.glue("mrpc", model="minilm", batch_size=1, data=data).batches(seed=0)
    single = islice(iter(stream), stream.per_epoch)
    return [{**{k: v[0].tolist() for k, v in inputs.items()}, "labels": int(labels[0])} for inputs, labels in single]


def ours(task: Any, precision: str = "fp32") -> Callable[[], float]:
    """Eight more steps of our loop with the Trainer's optimizer; their seconds."""
    running = our_steps(task, task.model(0), precision, 10_000, seed=0)

    def run() -> float:
        start = now()
        for _ in range(STEPS):
            next(running)
        return now() - start

    return run


def our_steps(task: Any, model: torch.nn.Module, precision: Any, steps: int, seed: int) -> Iterator[train.Step]:
    torch.manual_seed(seed)  # dropout; the Trainer seeds itself
    adam = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    linear = train.linear()
    return train.loop(
        model, task.objective, task.batches(seed), adam, steps=steps, lr=linear, clip=1.0, precision=precision
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


def score(task: Any, examples: list[dict[str, Any]], seeds: int, steps: int) -> tuple[list[Line], list[str]]:
    """As many steps with each, seed by seed: the accuracies, their paired difference, and the time that training took."""
    scores: dict[str, list[float]] = {"ours": [], "theirs": []}
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    tokenizer = hf.load("minilm")[1]
    for seed in range(seeds):
        model = task.model(seed)  # both start from the same weights, the fresh head included
        start = now()
        for _ in our_steps(task, model, "fp32", steps, seed):
            pass
        seconds["ours"].append(now() - start)
        scores["ours"].append(task.evaluate(model)["accuracy"])
        model = task.model(seed)
        trainer = their_trainer(model, tokenizer, examples, "longest", Clock(), max_steps=steps, seed=seed)
        start = now()
        trainer.train()
        seconds["theirs"].append(now() - start)
        scores["theirs"].append(task.evaluate(model)["accuracy"])
    ours, theirs = (statistics.mean(values) for values in scores.values())
    times = {name: Times(values) for name, values in seconds.items()}
    lines = [
        Line(f"accuracy after {steps} steps", *map(spread, scores.values()), ours / theirs),
        ratio(f"{steps} steps, speed", times["ours"], times["theirs"], 1.3, faster=True),
    ]
    return lines, [difference(scores["ours"], scores["theirs"])]


def spread(values: list[float]) -> str:
    """Mean ± s.d. and n."""
    found = stats.summary(values)
    return f"{found.mean:.3f}" + ("" if found.sd is None else f" ± {found.sd:.3f}") + f" (n = {found.n})"


def difference(ours: list[float], theirs: list[float]) -> str:
    """What the paired difference says, as a sentence.

    >>> difference([0.5, 0.7, 0.9], [0.5, 0.6, 0.7])
    'Accuracy, ours minus theirs, paired by seed: +0.100, 95 % interval [-0.148, +0.348]: no difference beyond noise.'
    """
    found = stats.paired(dict(enumerate(theirs)), dict(enumerate(ours)))
    said = f"Accuracy, ours minus theirs, paired by seed: {found.mean:+.3f}"
    if found.low is None or found.high is None:
        return f"{said}; one seed gives no interval."
    verdict = "no difference beyond noise" if found.verdict == "cannot tell" else f"ours is {found.verdict}"
    return f"{said}, 95 % interval [{found.low:+.3f}, {found.high:+.3f}]: {verdict}."


def options() -> argparse.Namespace:
    found = arguments(
        __doc__ or "",
        ("--data", {"help": "a folder that holds glue/mrpc; default: TRAINFLAT_DATA"}),
        ("--score", {"action": "store_true", "help": "compare the metric after two epochs, not the speed of a step"}),
        ("--seeds", {"type": int, "default": 3, "help": "trainings with each, for --score"}),
    )
    if found.seeds < 1:
        raise SystemExit(f"--seeds counts the trainings with each and must be at least 1, got {found.seeds}")
    return found


def main() -> None:
    chosen, before = options(), load()
    transformers.logging.set_verbosity_error()
    try:
        task, examples = hf.glue("mrpc", model="minilm", data=chosen.data), rows(chosen.data)
    except (OSError, LookupError, ValueError) as error:
        where = "name a folder that holds glue/mrpc with --data or TRAINFLAT_DATA"
        raise SystemExit(f"bench.trainer needs MRPC: {where} ({error})") from None
    if chosen.score:
        chosen.rounds = chosen.seeds
        lines, notes = score(task, examples, chosen.seeds, 2 if chosen.small else 2 * task.steps_per_epoch)
        show(f"{TITLE}: the metric", lines, chosen, before, notes)
        return
    turns = {
        "fp32": ours(task),
        "bf16": ours(task, "bf16"),
        "longest": theirs(task, examples, "longest"),
        "128": theirs(task, examples, "128"),
    }
    times = take_turns(turns, rounds=1 if chosen.small else chosen.rounds, warmup=0 if chosen.small else 2)
    lines = [
        ratio("speed, fp32; peer: Trainer, padded to the longest", times["fp32"], times["longest"], 1.3, faster=True),
        ratio("speed, fp32; peer: Trainer, padded to 128", times["fp32"], times["128"], faster=True),
        ratio(
            "speed, ours in bf16; peer: Trainer, padded to the longest", times["bf16"], times["longest"], faster=True
        ),
    ]
    rate = {name: 32 * STEPS / each.median for name, each in times.items()}
    notes = ["Examples per second: " + ", ".join(f"{name} {value:.1f}" for name, value in rate.items()) + "."]
    show(TITLE, lines, chosen, before, notes)


if __name__ == "__main__":
    main()
