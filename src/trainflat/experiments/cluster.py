"""Runs a plan on a Ray cluster: every stage that is ready goes to a machine that has what the stage asks for.

The store has to be on a folder that all machines see, and whose file locks hold across them (NFS 4, Lustre with flock). What
makes `runner` safe makes this safe: a stage runs under its lock, saves itself as it goes, and is done once its ``done.json`` is
there. So a stage whose worker died is simply handed out again, and whatever else happens to the cluster, the same command goes
on where things were. Nothing but what is shown depends on `Mail`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainflat.experiments import worker
from trainflat.experiments.resolve import sentence

if TYPE_CHECKING:
    from trainflat.experiments.plan import Job, Plan
    from trainflat.experiments.runner import Say
    from trainflat.experiments.store import Store

__all__ = ["address", "run"]

LOOK_SECONDS = 180.0  # for a machine to start Python, import torch and see the store
TICK = 0.25


def address(on: str) -> str:
    """Where ``--on`` points: "local" for a cluster of this machine's cores that lives as long as the run, or Ray's own address.

    >>> address("ray"), address("ray:auto"), address("ray:10.0.0.1:6379"), address("ray://head:10001")
    ('local', 'auto', '10.0.0.1:6379', 'ray://head:10001')
    """
    kind, _, where = on.partition(":")
    host, _, port = where.removeprefix("//").rpartition(":")
    if on == "ray" or (kind == "ray" and (where == "auto" or (host and "/" not in host and port.isdigit()))):
        return on if where.startswith("//") else where or "local"
    raise ValueError(
        f"--on takes ray (a cluster of this machine's cores, for this run), ray:auto or ray:HOST:PORT (a running cluster that "
        f"this machine is part of), or ray://HOST:PORT (one elsewhere, by its Ray Client server); got {on!r}"
    )


def run(
    plan: Plan,
    store: Store,
    *,
    on: str = "ray",
    say: Say = lambda event, job, about: None,
    device: str = "auto",
    threads: int = 0,
    checkpoint_seconds: float = 30.0,
    **header: Any,
) -> dict[str, Any]:
    """Run what is not done yet on a cluster; the same rows as `runner.run`, and its document.

    ``say`` hears of all stages at once, also "failed": a stage that fails stops only those that build on it. A worker that
    dies has its stage handed out again, to go on from the last checkpoint. Ctrl-C asks the running stages to save themselves
    and stop, takes back the others, and ends a cluster that was started for this run.

    Args:
        on: See `address`.
        device: "auto" is a GPU for a stage that asks for one (``gpus = 1``), otherwise the CPU.
        threads: Torch threads of every stage; default: as many as the stage's ``cpus``.

    Raises:
        Interrupted: After Ctrl-C.
        RuntimeError: At the end, if stages failed, with what they said.
        ConnectionError, ValueError: If there is no such cluster, or it cannot do this.
    """
    ray, where = _ray(), address(on)
    from trainflat.experiments import runner
    from trainflat.experiments.store import Store
    from trainflat.experiments.study import Study

    store = Store(store.root.resolve())
    if device.startswith("cuda") and (without := [job for job in plan.jobs if not job.resources.gpus]):
        raise ValueError(f"{without[0].name} asks for no GPU, but the device is {device}; add --set '*.gpus=1'")
    document = runner.begin(plan, store, device=device, **header)
    study = Study(plan, store, say)
    if study.left:  # a run that finds everything needs no cluster
        text = worker.request(plan, store, document["created"], device, threads, checkpoint_seconds)
        with _connected(ray, where):
            hands = _Ray(ray, ray.put(text), growing=where != "local")
            for job in study.left.values():
                hands.lacking(job)  # what can never run is told before anything does
            with runner.stoppable() as stop:
                study.go(hands, stop)
    document = runner.end(plan, store, document)
    if study.failed:
        raise study.error()
    return document


def _ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ImportError("Ray is not installed; it comes with: pip install 'trainflat[ray]'") from error
    return ray


@contextmanager
def _connected(ray: ModuleType, where: str) -> Iterator[None]:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if where == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody of itself unless asked to
        quiet |= {"include_dashboard": False, "object_store_memory": 100_000_000}  # results go through the store
    elif where != "auto":
        host, _, port = where.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"nobody answers at {host}:{port} ({error}); is the cluster up?") from error
    try:
        ray.init(address=where, **quiet)
    except ConnectionError as error:
        hint = "start one with: ray start --head, or let --on ray start one for this run"
        raise ConnectionError(f"there is no Ray cluster at {where}; {hint}") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Ray:
    """The hands of `Study`: stages are tasks of Ray."""

    def __init__(self, ray: ModuleType, text: Any, growing: bool):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

        self.ray, self.text, self.growing = ray, text, growing
        self.nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not self.nodes:
            raise ValueError("no machine of the cluster has a processor core to give")
        self._check(OnNode)
        head = next((n for n in ray.nodes() if "node:__internal_head__" in n["Resources"]), self.nodes[0])
        on_head = OnNode(head["NodeID"], soft=True)
        self.mail = ray.remote(worker.Mail).options(num_cpus=0, scheduling_strategy=on_head).remote()
        self.letters = self.mail.take.remote()
        self.work = ray.remote(worker.work)

    def _check(self, on_node: Any) -> None:
        """Every machine is asked once whether it can take part."""
        look = self.ray.remote(worker.look)
        asked = [
            look.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node["NodeID"], soft=False)).remote(
                self.text
            )
            for node in self.nodes
        ]
        try:
            answers = self.ray.get(asked, timeout=LOOK_SECONDS)
        except self.ray.exceptions.GetTimeoutError as error:
            raise ConnectionError(
                f"a machine of the cluster did not answer within {LOOK_SECONDS:.0f} seconds"
            ) from error
        except self.ray.exceptions.RayError as error:
            why = sentence(error).split("Traceback")[0][:300]
            raise ValueError(
                f"a machine of the cluster cannot run trainflat; is the same version there? Ray says: {why}"
            ) from error
        if reasons := [answer for answer in answers if answer]:
            raise ValueError("; ".join(reasons))

    def hand_out(self, job: Job) -> Any:
        """Queue a stage; Ray starts it where there is room. It is tried once: what comes of it is for `Study` to judge."""
        asks = job.resources
        options: dict[str, Any] = {"num_cpus": asks.cpus, "num_gpus": asks.gpus, "max_retries": 0}
        if asks.memory:
            options["memory"] = int(asks.memory * 1e9)
        name = f"{job.name} seed {job.seed}"
        return self.work.options(**options, name=name).remote(self.text, job.key, self.mail)

    def lacking(self, job: Job) -> str | None:
        """Why no machine could take the stage even when idle. A cluster elsewhere may grow; this machine does not.

        Raises:
            ValueError: If it is this machine.
        """
        asks = {"CPU": job.resources.cpus, "GPU": job.resources.gpus, "memory": (job.resources.memory or 0) * 1e9}
        if any(all(node["Resources"].get(k, 0) >= much for k, much in asks.items()) for node in self.nodes):
            return None
        why = f"no machine of the cluster has {job.resources} at once"
        if not self.growing:
            raise ValueError(
                f"{job.name} asks for more than there is: {why}; change it, such as with --set '{job.name}.cpus=1'"
            )
        return f"{why}; waiting for one that has"

    def news(self) -> dict[str, dict[str, Any]]:
        """What the workers have told since the last time; nothing yet if the letter box has not answered."""
        if not self.ray.wait([self.letters], timeout=0)[0]:
            return {}
        try:
            return self.ray.get(self.letters)
        except self.ray.exceptions.RayError:  # only what is shown depends on it
            return {}
        finally:
            self.letters = self.mail.take.remote()

    def some(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Those that have ended, after waiting a moment for the first."""
        return self.ray.wait(list(tasks), timeout=TICK)[0]

    def answer(self, task: Any) -> dict[str, Any]:
        """What `worker.work` answered, or ``{"died"}``; "failed" if our code could not even begin there."""
        try:
            return self.ray.get(task)
        except self.ray.exceptions.TaskCancelledError:
            return {"stopped": "before it began"}
        except self.ray.exceptions.RayTaskError as error:
            return {"failed": sentence(error), "trace": str(error)}
        except self.ray.exceptions.RayError as error:
            memory = isinstance(error, self.ray.exceptions.OutOfMemoryError)
            return {"died": "its machine ran out of memory" if memory else "its worker died"}

    def cancel(self, task: Any, *, force: bool = False) -> None:
        """Take a stage back that has not begun; one that runs hears it as Ctrl-C. With ``force`` its worker is killed."""
        self.ray.cancel(task, force=force)
