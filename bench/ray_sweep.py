"""A sweep of independent stages on two Ray workers against one, one thread each: what a second machine is worth.

Two local clusters, of one node and of two nodes with a processor each, are up before the first round; a round is a whole
``trainflat run --on ray:ADDRESS`` from an empty store: connecting, starting workers that import torch, handing out, results.
Connecting and starting take 8 to 10 s however long the sweep is: a short one shows that, a long one what a worker is worth.
With ``--wait SECONDS`` the stages only sleep: then two processors that share a cache or a memory bus are not in the way, and
what is measured is what the hand-out itself costs, which has no target: the one for a sweep is for trainings.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import torch

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
WAITING = "Two workers against one, {stages} independent stages that only wait"
WAIT = """
name = "sweep"
[stage.wait]
kind = "bench.waiting:Wait"
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


def plain(recipe: str, given: dict[str, float], stages: int, store: str, threads: int) -> None:
    """The same sweep without Ray, in a process of its own; several at once share the stages by the store's locks."""
    torch.set_num_threads(threads)
    planned = plan(read(recipe), overrides=given, seeds=range(stages))
    runner.run(planned, Store(store), device="cpu")


def main() -> None:
    options = arguments(
        __doc__ or "",
        ("--stages", {"type": int, "default": 48, "help": "independent trainings of some 4 s"}),
        ("--ray", {"action": "store_true", "help": "only the two sweeps with Ray"}),
        ("--wait", {"type": float, "help": "stages that sleep for so many seconds instead of training"}),
    )
    before = load()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    stages, epochs = (4, 2) if options.small else (options.stages, 40)
    given = {"wait.seconds": options.wait} if options.wait else {"train.epochs": epochs}
    spawn, fresh = get_context("spawn"), count()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as keep:
        recipe = Path(folder) / "sweep.toml"
        recipe.write_text(WAIT if options.wait else RECIPE)
        planned = plan(read(str(recipe)), overrides=given, seeds=range(stages))

        def sweep(on: str) -> Callable[[], None]:
            def run() -> None:
                store = Store(Path(folder) / f"store-{next(fresh)}")
                cluster.run(planned, store, on=on, device="cpu", threads=options.threads)

            return run

        def processes(number: int) -> Callable[[], None]:
            def run() -> None:
                about = (str(recipe), given, stages, f"{folder}/store-{next(fresh)}", options.threads)
                started = [spawn.Process(target=plain, args=about) for _ in range(number)]
                for process in started:
                    process.start()
                for process in started:
                    process.join()
                    if process.exitcode:
                        raise RuntimeError(f"a process of the sweep ended with {process.exitcode}")

            return run

        candidates = {"two workers": sweep(nodes(2, keep)), "one worker": sweep(nodes(1, keep))}
        if not options.ray:
            candidates |= {"two processes": processes(2), "one process": processes(1)}
        times = take_turns(candidates, rounds=options.rounds, warmup=0)  # a round takes minutes and starts cold anyway
    two, one = times["two workers"], times["one worker"]
    lines = [ratio("two workers; peer: one worker", two, one, None if options.wait else 1.8, faster=True)]
    notes = []
    if not options.ray:
        two_plain, one_plain = times["two processes"], times["one process"]
        lines += [
            ratio("two processes without Ray; peer: one of them", two_plain, one_plain, faster=True),
            ratio("one worker; peer: one process without Ray", one, one_plain),
        ]
        notes.append(
            "The second line is what the machine itself allows: where it is far below 2, other work held the cores, and the "
            "first line says nothing about Ray."
        )
    show((WAITING if options.wait else TITLE).format(stages=stages), lines, options, before, notes)


if __name__ == "__main__":
    main()
