"""Made-up smaller models in the shape of real rows: to try a front on, without training anything."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from trainflat.reports.front import offers as had

__all__ = ["header", "offers", "rows"]

COMMAND = ("trainflat", "compress", "reviews.csv", "--text", "review", "--label", "stars", "--model", "minilm")
NOTE = "Made-up numbers, to try a report on."
SETTING = {"batch": 1, "length": 32, "padding": 0.0, "device": "cpu", "threads": 1, "runs": 30}
TEXTS = (
    ("It is not without charm, and that is where the praise ends.", "negative", "negative", "positive", 0.93),
    ("A film that earns its silence.", "positive", "positive", "negative", 0.88),
    ("Less a story than a mood: " + "slow, warm and strange, " * 14, "positive", "positive", "negative", 0.71),
    ("I laughed <b>twice</b> & left.", "negative", "negative", "positive", 0.64),
)  # fmt: skip

# variant, sparsity, points lost by Adam and by SAM, milliseconds, megabytes
MODELS = (
    ("dense", 0.0, 0.0, 0.0, 41.6, 90.0),
    ("int8 per_channel", 0.0, 0.6, 0.2, 17.8, 26.8),
    ("pruned", 0.5, 1.9, 0.8, 41.4, 90.0),
    ("cofi", 0.6, 0.7, 0.4, 18.2, 48.0),
    ("cofi", 0.8, 1.9, 1.1, 9.9, 37.0),
    ("cofi", 0.95, 5.2, 4.2, 3.9, 28.9),
    ("cofi, int8 per_channel", 0.6, 1.5, 0.7, 10.4, 17.5),
    ("cofi, int8 per_channel", 0.8, 2.9, 1.6, 5.8, 14.1),
    ("cofi, int8 per_channel", 0.95, 6.4, 5.1, 2.6, 11.6),
    ("narrow", 0.6, 2.8, 2.1, 17.1, 48.0),
    ("narrow", 0.8, 5.5, 4.5, 9.1, 37.0),
)


def rows(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """One task, Adam and SAM: dense, pruned, int8, CoFi at three sizes, the same in int8, and a plainer cut.

    Example:
        >>> sorted({row["variant"] for row in rows()})
        ['cofi', 'cofi, int8 per_channel', 'dense', 'int8 per_channel', 'narrow', 'pruned']
    """
    return [
        row
        for number, optimizer in enumerate(("Adam", "SAM"))
        for seed in seeds
        for row in _of(number, optimizer, seed)
    ]


def offers() -> list[had.Offer]:
    """The same as offers."""
    return had.offers(rows())


def header() -> dict[str, Any]:
    """What goes on top of a report about `rows`, with one of them chosen."""
    return {
        "name": "made-up-smaller",
        "claim": "The smallest good model of a made-up task: what is lost on the way to a tenth of the time?",
        "command": shlex.join([*COMMAND, "--max-drop", "1"]),
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 1512.0,
        "chosen": {"task": "reviews", "arm": "SAM", "variant": "cofi, int8 per_channel", "sparsity": 0.6},
    }


def _of(number: int, optimizer: str, seed: int) -> Iterator[dict[str, Any]]:
    of_seed = random.Random(f"reviews {seed}").gauss(0, 0.001)
    for variant, sparsity, *lost, latency, size in MODELS:
        noise = random.Random(f"{variant} {sparsity} {optimizer} {seed}")
        value = round((0.912, 0.919)[number] - lost[number] / 100 + of_seed + noise.gauss(0, 0.0006), 4)
        latency = round(latency * (1 + 0.02 * noise.random()), 2)
        stage = variant.replace(", ", "-").replace(" per_channel", "").replace("dense", "finetune")
        about: dict[str, Any] = {
            "recipe": "made-up-smaller", "seed": seed, "arm": {"task": "reviews", "optimizer": optimizer}, "task": "reviews",
            "model": "minilm", "note": NOTE, "variant": variant, "sparsity": sparsity,
        }  # fmt: skip
        if sparsity:
            about["sparsity_total"] = round(sparsity * 0.48, 3)
        if variant.startswith(("cofi", "narrow")):
            about |= {"sparsity_layers": sparsity + 0.01, "sparsity_cofi": sparsity}
        name = had.named(optimizer, variant, sparsity)
        score = {"stage": stage, "kind": "Made", "key": f"{stage}-{sparsity}-{optimizer}-{seed}"}
        score |= {"metric": "accuracy", "value": value, "metrics": {"accuracy": value}}
        score["command"] = shlex.join([*COMMAND, "--offer", name, "--out", "small"])
        yield {**about, **score, **(_mistakes(value) if variant.startswith("cofi") and seed == 0 else {})}
        cost = {
            "parameters": size * 0.25e6,
            "nonzeros": size * 0.25e6,
            "bytes": size * 1e6,
            "multiply_adds": latency * 8e6,
        }
        cost |= {"latency_ms": latency, "latency_low_ms": 0.97 * latency, "latency_high_ms": 1.1 * latency, **SETTING}
        yield {**about, "stage": f"cost-{stage}", "kind": "Measure", "key": f"cost-{score['key']}", "cost": cost}


def _mistakes(value: float) -> dict[str, Any]:
    """The confusion matrix of 400 examples of each of two labels, and the texts on which the models differ most."""
    wrong = round(400 * (1 - value))
    confusion = {"labels": ["negative", "positive"], "counts": [[400 - wrong, wrong], [wrong // 2, 400 - wrong // 2]]}
    told = [dict(zip(("text", "label", "large", "small", "shift"), text, strict=True)) for text in TEXTS]
    return {"confusion": confusion, "disagreements": told}
