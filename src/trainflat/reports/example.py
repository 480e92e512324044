"""Made-up rows in the shape of real ones: to try a table, a curve or a page on, without training anything."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["header", "rows"]

NOTE = "Made-up numbers, to try a report on."
DENSE = {"digits": (0.956, 0.967, 0.10), "docstrings": (0.768, 0.779, 0.20)}  # Adam, SAM, chance
HALF = {"Adam": 0.62, "SAM": 0.74}  # the one-shot sparsity at which half of what training gave is lost
COST = {"parameters": 104_970, "multiply_adds": 1_789_952, "batch": 1, "device": "cpu", "threads": 1, "runs": 30}


def rows(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Two tasks, Adam and SAM: dense, pruned and IMP at 10 % to 90 %, int8, and the cost of some. The same at every call.

    Example:
        >>> sorted({row["variant"] for row in rows()})
        ['dense', 'imp', 'int8 per_channel', 'int8 per_tensor', 'pruned']
    """
    return [row for task in DENSE for optimizer in HALF for seed in seeds for row in _trained(task, optimizer, seed)]


def _trained(task: str, optimizer: str, seed: int) -> Iterator[dict[str, Any]]:
    of_seed = random.Random(f"{task} {seed}").gauss(0, 0.006)
    noise = random.Random(f"{task} {seed} {optimizer}")
    chance = DENSE[task][2]
    dense = DENSE[task][list(HALF).index(optimizer)] + of_seed + noise.gauss(0, 0.003)
    arm = {"task": task, "optimizer": optimizer}
    sparsities = [round(0.1 * i, 1) for i in range(1, 10)]

    def row(stage: str, kind: str, variant: str, sparsity: float, value: float, **more: Any) -> dict[str, Any]:
        metrics = {"accuracy": round(value, 4), "f1_macro": round(value - 0.006, 4)}
        return {
            "recipe": "made-up", "stage": stage, "kind": kind, "key": f"{stage}-{task}-{optimizer}-{seed}", "seed": seed,
            "arm": arm, "task": task, "model": "vit-small" if task == "digits" else "bert-mini", "note": NOTE,
            "variant": variant, "sparsity": sparsity, "sparsity_total": round(0.97 * sparsity, 4),
            "metric": "accuracy", "value": metrics["accuracy"], "metrics": metrics, **more,
        }  # fmt: skip

    passes = 600 if optimizer == "Adam" else 1200
    cost = {"seconds": round(passes * 0.011 + noise.gauss(0, 0.1), 3), "passes": passes}
    yield row("train", "Finetune", "dense", 0.0, dense, **cost)
    half = HALF[optimizer] + noise.gauss(0, 0.02)
    for sparsity in sparsities:
        left = 1 / (1 + math.exp((sparsity - half) / 0.055))
        yield row(
            "oneshot",
            "OneShot",
            "pruned",
            sparsity,
            chance + (dense - chance) * left + noise.gauss(0, 0.015) * (1 - left),
        )
    for sparsity in [0.0, *sparsities]:
        lost = (0.25 if optimizer == "Adam" else 0.17) * sparsity**6
        yield row("imp", "Imp", "imp", sparsity, dense - lost + noise.gauss(0, 0.004), **cost)
    for variant, lost in [("int8 per_tensor", 0.02 if optimizer == "Adam" else 0.006), ("int8 per_channel", 0.001)]:
        yield row(variant.split("_")[1], "Quantize", variant, 0.0, dense - lost + noise.gauss(0, 0.002))
    for variant, size, latency in [("dense", 424_112, 0.81), ("int8 per_channel", 121_936, 0.64)]:
        cost = {**COST, "nonzeros": 104_966, "bytes": size, "latency_ms": latency + abs(noise.gauss(0, 0.02))}
        cost |= {"latency_low_ms": cost["latency_ms"] * 0.97, "latency_high_ms": cost["latency_ms"] * 1.12}
        stage, about = f"measure-{variant.split()[0]}", {"seed": seed, "arm": arm, "task": task, "note": NOTE}
        key = f"{stage}-{task}-{optimizer}-{seed}"
        yield {
            "recipe": "made-up",
            "stage": stage,
            "kind": "Measure",
            "key": key,
            **about,
            "variant": variant,
            "sparsity": 0.0,
            "cost": cost,
        }


def header() -> dict[str, Any]:
    """What goes on top of a report about `rows`."""
    return {
        "name": "made-up",
        "claim": "Sharpness-aware training finds weights that lose less when they are pruned or put on an 8-bit grid.\n\n"
        "Na, Mehta and Strubell 2022, arXiv:2205.12694, figure 2 and table 8, at a toy scale.",
        "command": "trainflat run made-up --seeds 0-2",
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 151.2,
        "environment": {
            "python": "3.12.1", "platform": "Linux x86_64", "processor": "a processor", "cores": 2, "threads": 1,
            "packages": {"trainflat": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0"}, "commit": "0123456789ab",
        },
    }  # fmt: skip
