"""Made-up rows in the shape of the paper's recipes: to try a comparison, a heat map or a study's page on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

__all__ = ["TASKS", "paper_header", "paper_rows"]

TASKS = ("stsb", "mrpc", "rte", "cola")
NOTE = "Made-up numbers, to try a report on."
TOP = {
    "stsb": ("pearson", 0.87),
    "mrpc": ("accuracy", 0.85),
    "rte": ("accuracy", 0.65),
    "cola": ("matthews_correlation", 0.45),
}
AT = {"stsb": 0.5, "mrpc": 0.5, "rte": 0.6, "cola": 0.5}
GAIN = {"random": -0.09, "Adam": 0.0, "SAM": 0.012, "SWA": 0.006}
STEPS = [round(0.1 * i, 1) for i in range(10)]
BOXES = {"eps 0.005": 30.0, "eps 0.001": 6.0, "eps 0.0005": 3.0}
OPTIMIZERS = ("Adam", "SAM")

Point = tuple[str, dict[str, str], str, float, float]  # task, arm, variant, sparsity, what it gains or loses


def paper_rows(
    recipe: str,
    *,
    model: str = "minilm",
    official: bool | None = True,
    tasks: Sequence[str] = TASKS,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[dict[str, Any]]:
    """Rows of paper/RECIPE, the same at every call: "table1-imp", "table6-tickets", "fig13-transfer", "table8-int8" or
    "tables3-4-sharpness".

    Example:
        >>> rows = paper_rows("table6-tickets", tasks=["rte"])
        >>> len(rows), rows[0]["arm"]                                        # three masks, two optimizers, three seeds
        (18, {'task': 'rte', 'mask': 'random', 'final': 'Adam'})
    """
    about = {"recipe": f"paper/{recipe}", "model": model, "official": official, "note": NOTE}
    return [{**about, **row} for seed in seeds for point in POINTS[recipe](tasks) for row in _measured(point, seed)]


def paper_header(recipe: str) -> dict[str, Any]:
    """What goes on top of a report about `paper_rows`."""
    return {
        "name": f"paper/{recipe}",
        "claim": f"What would paper/{recipe} show?\nMade-up numbers.",
        "command": f"trainflat run paper/{recipe}",
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 7260.0,
        "stages": {"done": 24, "of": 24},
        "environment": {"python": "3.12.1", "packages": {"trainflat": "0.1.0", "torch": "2.13.0"}},
    }


def _imp(tasks: Sequence[str]) -> Iterator[Point]:
    for task, optimizer in product(tasks, ("Adam", "SAM", "SWA")):
        arm = {"task": task, "optimizer": optimizer}
        if optimizer != "SWA":
            yield task, arm, "dense", 0.0, GAIN[optimizer] / 2
        for variant, s in product(("imp", "std") if optimizer != "SWA" else ("imp",), STEPS):
            yield task, arm, variant, s, GAIN[optimizer] * (0.5 + s) - 0.3 * s**6


def _tickets(tasks: Sequence[str]) -> Iterator[Point]:
    for task, mask, final in product(tasks, ("random", *OPTIMIZERS), OPTIMIZERS):
        yield (
            task,
            {"task": task, "mask": mask, "final": final},
            "ticket",
            AT[task],
            GAIN[mask] + GAIN[final] / 3 - 0.02,
        )


def _transfer(tasks: Sequence[str]) -> Iterator[Point]:
    for source, target, mask, final in product(tasks, tasks, OPTIMIZERS, OPTIMIZERS):
        arm = {"source": source, "target": target, "mask": mask, "final": final}
        own = 2.0 if source == target else 0.3
        yield target, arm, "ticket", 0.7, own * GAIN[mask] + GAIN[final] / 3 - 0.05


def _int8(tasks: Sequence[str]) -> Iterator[Point]:
    for task, optimizer in product(tasks, OPTIMIZERS):
        for variant, lost in (("dense", 0.0), ("int8 per_tensor", 0.03), ("int8 per_channel", 0.004)):
            yield (
                task,
                {"task": task, "optimizer": optimizer},
                variant,
                0.0,
                GAIN[optimizer] - lost * (optimizer == "Adam"),
            )


def _sharpness(tasks: Sequence[str]) -> Iterator[Point]:
    for task, optimizer in product(tasks, ("Adam", "SAM", "SWA")):
        arm = {"task": task, "optimizer": optimizer}
        if optimizer != "SWA":
            yield task, arm, "dense", 0.0, float("nan")
        yield task, arm, "imp", AT[task], float("nan")


POINTS: Mapping[str, Callable[[Sequence[str]], Iterator[Point]]] = {
    "table1-imp": _imp,
    "table6-tickets": _tickets,
    "fig13-transfer": _transfer,
    "table8-int8": _int8,
    "tables3-4-sharpness": _sharpness,
}


def _measured(point: Point, seed: int) -> Iterator[dict[str, Any]]:
    task, arm, variant, sparsity, gain = point
    noise = random.Random(f"{task} {arm} {variant} {sparsity} {seed}")
    stage = {"dense": "full", "ticket": "retrain"}.get(variant, variant.replace(" ", "-"))
    of_all = "-".join([stage, *arm.values(), str(seed)])
    row = {"stage": stage, "kind": stage, "key": of_all, "seed": seed, "arm": arm, "task": task, "variant": variant}
    row |= {"sparsity": sparsity, "sparsity_total": round(0.78 * sparsity, 4)}
    if gain != gain:
        flat = {"Adam": 1.0, "SAM": 0.55, "SWA": 0.8}[arm["optimizer"]]
        measured = {box: round(size * flat * noise.uniform(0.8, 1.2), 2) for box, size in BOXES.items()}
        more = {
            "ascent": 0.1 * flat,
            "eigenvalue": 90.0 * flat,
            "residual": 0.01,
            "trace": 900.0 * flat,
            "trace_error": 40.0,
        }
        yield {**row, "sharpness": {**measured, **more}}
        return
    metric, top = TOP[task]
    value = round(top + gain + random.Random(f"{task} {seed}").gauss(0, 0.004) + noise.gauss(0, 0.004), 4)
    passes = 3000 * (2 if "SAM" in (arm.get("optimizer"), arm.get("final")) else 1)
    cost = {} if variant.startswith("int8") else {"seconds": round(passes * 0.03, 1), "passes": passes, "steps": 3000}
    yield {**row, "metric": metric, "value": value, "metrics": {metric: value, "f1": round(value - 0.02, 4)}, **cost}
