"""A sweep of independent stages on two Ray workers against one, one thread each: what a second machine is worth.

Two local clusters, of one node and of two nodes with a processor each, are up before the first round; a round is a whole
``trainflat run --on ray:ADDRESS`` from an empty store: connecting, starting workers that import torch, handing out, results.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from bench.pairs import arguments, load, ratio, show, take_turns
from trainflat.experiments import cluster, runner
from trainflat.experiments.plan import plan
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store

TITLE = "Two workers against one, {stages} independent trainings of the small vision transformer on digits"
RECIPE = """
name = "sweep"
[stage.train]
kind = "Finetune"
task = { name = "digits", batch_size = 64 }
"""


def nodes(number: int, keep: ExitStack) -> str:
    """The address of a new cluster of that many nodes with one processor each."""
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=one)
    keep.callback(cluster.shutdown)
    for _ in range(number - 1):
        cluster.add_node(**one)
    return f"ray:{cluster.address}"


def void(document: object) -> None:
    """Nothing: what a candidate returns would be taken for its seconds."""


def main() -> None:
    options = arguments(__doc__ or "", ("--stages", {"type": int, "default": 12, "help": "independent trainings"}))
    before = load()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    stages, epochs = (4, 2) if options.small else (options.stages, 40)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as keep:
        recipe = Path(folder) / "sweep.toml"
        recipe.write_text(RECIPE)
        planned = plan(read(str(recipe)), overrides={"train.epochs": epochs}, seeds=range(stages))
        fresh = count()

        def store() -> Store:
            return Store(Path(folder) / f"store-{next(fresh)}")

        def sweep(on: str) -> Callable[[], None]:
            return lambda: void(cluster.run(planned, store(), on=on, device="cpu", threads=options.threads))

        candidates = {
            "two": sweep(nodes(2, keep)),
            "one": sweep(nodes(1, keep)),
            "alone": lambda: void(runner.run(planned, store(), device="cpu")),
        }
        times = take_turns(candidates, rounds=options.rounds, warmup=0 if options.small else 1)
    lines = [
        ratio("two workers; peer: one worker", times["two"], times["one"], 1.8, faster=True),
        ratio("one worker; peer: the same run without Ray", times["one"], times["alone"]),
    ]
    show(TITLE.format(stages=stages), lines, options, before)


if __name__ == "__main__":
    main()
