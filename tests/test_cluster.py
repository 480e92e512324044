"""On a cluster of two machines (two Ray nodes of one processor each, here): the same bits, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from trainflat.experiments import cluster, runner, worker
from trainflat.experiments import plan as planning
from trainflat.experiments.recipe import read
from trainflat.experiments.resources import Resources
from trainflat.experiments.store import Store
from trainflat.experiments.work import Interrupted

RECIPE = """
name = "trial"

[defaults]
task = "mylab:blobs"
gradient = { name = "sam", rho = 0.05 }
steps = 25

[stage.train]
kind = "Finetune"
keep = "best"

[stage.oneshot]
kind = "OneShot"
model = "train"
sparsities = [0.5, 0.9]

[stage.imp]
kind = "Imp"
sparsity = 0.6
rounds = 3

[stage.retrain]
kind = "Finetune"
ticket = "imp"
"""
LONG = 20_000  # steps that take many seconds


@pytest.fixture
def planned(tmp_path, plugins):
    def make(**overrides):
        path = tmp_path / "trial.toml"
        path.write_text(RECIPE)
        return planning.plan(read(str(path)), overrides=overrides)

    return make


@pytest.fixture(scope="module")
def two_nodes():
    pytest.importorskip("ray", reason="the cluster is in the extra 'ray'")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
    nodes = Cluster(initialize_head=True, head_node_args=small)
    nodes.add_node(**small)
    yield nodes
    nodes.shutdown()


@pytest.fixture
def on(two_nodes) -> str:
    return f"ray:{two_nodes.address}"


class Heard:
    """Remembers what a run said, and does something once when it says a certain thing."""

    def __init__(self, event: str = "", name: str = "", then=lambda: None):
        self.events: list[tuple[str, str]] = []
        self.why: list[str] = []
        self.when, self.then = (event, name), then

    def __call__(self, event, job, about):
        self.events.append((event, job.name))
        self.why += [about["why"]] if "why" in about else []
        if self.when == (event, job.name):
            self.when = ("", "")
            self.then()

    def stages(self, event: str) -> list[str]:
        return [name for said, name in self.events if said == event]


def results(store: Path) -> dict[str, object]:
    """Every file that a run leaves for others, in bytes, and every row without its timing."""
    kept = Store(store)
    found: dict[str, object] = {
        str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.safetensors"))
    }
    for path in sorted(store.rglob("done.json")):
        rows = kept.done(path.parent.name)["rows"]
        found[path.parent.name] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    assert len(found) >= 8
    return found


def test_the_rows_and_files_are_those_of_a_run_without_ray(planned, tmp_path, on):
    runner.run(planned(), Store(tmp_path / "alone"))
    first, second = Heard(), Heard()
    document = cluster.run(planned(), Store(tmp_path / "ray"), on=on, say=first, command="trainflat run trial")
    assert results(tmp_path / "ray") == results(tmp_path / "alone")
    assert sorted(first.stages("finished")) == ["imp", "oneshot", "retrain", "train"]
    assert document["command"] == "trainflat run trial"
    assert document["seconds"] > 0
    cluster.run(planned(), Store(tmp_path / "ray"), on=on, say=second)
    assert sorted(second.stages("cached")) == ["imp", "oneshot", "retrain", "train"]
    assert second.stages("finished") == []


def test_a_failing_stage_is_told_in_the_end_and_the_others_are_done(planned, tmp_path, on):
    heard = Heard()
    exploding = planned(**{"imp.task": {"name": "mylab:blobs", "explode_at": 31}})
    with pytest.raises(
        RuntimeError, match=r"1 failed, 1 that build on it left out, 2 done. imp seed 0 .*: the loss .* not finite"
    ) as failure:
        cluster.run(exploding, Store(tmp_path / "store"), on=on, say=heard)
    assert sorted(heard.stages("finished")) == ["oneshot", "train"]
    assert heard.stages("failed") == ["imp"]
    assert "NonFiniteLoss" in "".join(failure.value.__notes__)  # the traceback of the worker, for --debug


def test_control_c_saves_the_running_stages_and_leaves_the_cluster_free(planned, tmp_path, on):
    import ray

    long = {"train.steps": LONG, "imp.steps": LONG}
    heard = Heard("step", "imp", then=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        cluster.run(planned(**long), Store(tmp_path / "store"), on=on, say=heard)
    states = list((tmp_path / "store").rglob("state.safetensors"))
    assert states, "the stage that had begun was saved"
    assert len(states) == len(set(heard.stages("started")))
    ray.init(address=on.removeprefix("ray:"), log_to_driver=False, logging_level="ERROR")
    try:
        deadline = time.monotonic() + 20
        while ray.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert ray.available_resources()["CPU"] == 2.0
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_changes_no_bit(planned, tmp_path, two_nodes, on):
    long = {"train.steps": 2_000, "imp.steps": 1_000}
    runner.run(planned(**long), Store(tmp_path / "alone"))
    large = {"num_cpus": 2, "object_store_memory": 80_000_000}
    spare, doomed = [], two_nodes.add_node(**large)

    def kill():
        spare.append(two_nodes.add_node(**large))
        two_nodes.remove_node(doomed, allow_graceful=False)  # SIGKILL, in the middle of a step

    heard = Heard("step", "imp", then=kill)
    store = Store(tmp_path / "ray")
    asking = planned(**long, **{"imp.cpus": 2})  # the doomed node is the only one that has two
    cluster.run(asking, store, on=on, say=heard, checkpoint_seconds=0.2, threads=1)
    two_nodes.remove_node(spare[0])
    assert "its worker died; it goes on from its last checkpoint" in heard.why
    assert results(tmp_path / "ray") == results(tmp_path / "alone")


def marked(mark: str) -> list[str]:
    """The command lines of all living processes that carry the mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is not ours
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_goes_on_to_the_same_bits(planned, tmp_path, number):
    pytest.importorskip("ray", reason="the cluster is in the extra 'ray'")
    sets = ["--set", "train.steps=3000", "--set", "imp.steps=1000"]
    plan = planned(**{"train.steps": 3000, "imp.steps": 1000})
    mark = f"mark-{uuid.uuid4()}"
    plugins = str(Path(__file__).parent / "plugins")
    environment = {**os.environ, "PYTHONPATH": plugins, "TRAINFLAT_TEST": mark, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainflat", "run", "trial.toml", "--on", "ray", *sets, "--store", "stopped"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(marked(mark)) >= 4, "the run, and the cluster that it started"
    running.send_signal(number)
    _, said = running.communicate(timeout=120)
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert "Go on with: trainflat run trial.toml --on ray" in said
        assert "Traceback" not in said
        assert list(tmp_path.rglob("state.safetensors"))
    deadline = time.monotonic() + (
        10 if number == signal.SIGINT else 120
    )  # Ray's agents look for their parent now and then
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked(mark) == []
    runner.run(plan, Store(tmp_path / "stopped"))
    runner.run(plan, Store(tmp_path / "alone"))
    assert results(tmp_path / "stopped") == results(tmp_path / "alone")


@pytest.mark.parametrize("wrong", ["slurm", "rays", "ray:", "ray:head", "ray://head", "ray:/head:1", "ray:head:port"])
def test_an_address_that_is_none_is_a_sentence(wrong):
    with pytest.raises(ValueError, match="--on takes ray"):
        cluster.address(wrong)


def test_a_cluster_that_does_not_answer_is_a_sentence(planned, tmp_path):
    pytest.importorskip("ray", reason="the cluster is in the extra 'ray'")
    with pytest.raises(ConnectionError, match="nobody answers at 127.0.0.1:9 .*is the cluster up"):
        cluster.run(planned(), Store(tmp_path), on="ray:127.0.0.1:9")


def test_ray_missing_is_a_sentence_with_the_command_that_brings_it(planned, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'trainflat\[ray\]'"):
        cluster.run(planned(), Store(tmp_path))


def test_a_gpu_is_asked_for_where_the_device_is_one(planned, tmp_path):
    pytest.importorskip("ray", reason="the cluster is in the extra 'ray'")
    with pytest.raises(ValueError, match="train asks for no GPU.*gpus=1"):
        cluster.run(planned(), Store(tmp_path), device="cuda")


def test_a_stage_that_no_machine_can_take_waits_for_one_or_is_a_sentence(planned):
    job = planned(**{"train.cpus": 64, "train.memory": 500}).jobs[0]
    hands = object.__new__(cluster._Ray)
    hands.nodes, hands.growing = [{"Resources": {"CPU": 2.0, "memory": 8e9}}], True
    assert hands.lacking(planned().jobs[0]) is None
    assert hands.lacking(job) == "no machine of the cluster has 64 CPUs, 500 GB at once; waiting for one that has"
    hands.growing = False
    with pytest.raises(ValueError, match="train asks for more than there is: .*64 CPUs"):
        hands.lacking(job)


@pytest.fixture
def asked(planned, tmp_path, monkeypatch):
    """The text that a worker gets, with a few things changed; as if it were on another machine."""
    monkeypatch.setattr(worker, "PATIENCE", 0.0)
    monkeypatch.setattr(sys, "path", list(sys.path))
    plan, store = planned(), Store(tmp_path / "store")
    document = runner.begin(plan, store)

    def make(**changes) -> str:
        text = worker.request(plan, store, document["created"], "cpu", 0, 30.0)
        return json.dumps({**json.loads(text), **changes})

    return make


def test_a_worker_that_sees_the_store_and_plans_the_same_can_take_part(asked):
    assert worker.look(asked()) is None


def test_a_worker_that_does_not_see_the_store_says_so(asked, tmp_path):
    assert "does not find this run in" in worker.look(asked(store=str(tmp_path / "elsewhere")))
    assert "a folder that all machines of the cluster share" in worker.look(asked(created="another day"))


def test_a_worker_with_other_data_or_another_version_says_so(asked):
    keys = json.loads(asked())["keys"]
    assert "1 of 5 differ" in worker.look(asked(keys=[*keys, "finetune-000000000000"]))


def test_a_worker_that_cannot_plan_says_why(asked):
    recipe = json.loads(asked())["recipe"]
    recipe["document"]["stage"]["train"]["kind"] = "nowhere:Stage"
    assert "cannot plan this recipe: [stage.train] of trial: 'nowhere:Stage' was not found" in worker.look(
        asked(recipe=recipe)
    )


def test_what_a_stage_asks_for_changes_no_identity(planned):
    keys = [job.key for job in planned().jobs]
    asking = planned(**{"*.cpus": 2, "*.gpus": 0.5, "train.memory": 8})
    assert [job.key for job in asking.jobs] == keys
    assert asking.jobs[0].resources == Resources(cpus=2, gpus=0.5, memory=8.0)
    assert asking.jobs[1].resources == Resources(cpus=2, gpus=0.5)


@pytest.mark.parametrize(
    ("field", "value"), [("cpus", 0), ("gpus", -1.0), ("gpus", 1.5), ("memory", 0.0), ("cpus", 1.5)]
)
def test_resources_that_cannot_be_are_a_sentence(planned, field, value):
    with pytest.raises(ValueError, match=rf"\[stage.train\] of trial: {field}"):
        planned(**{f"train.{field}": value})
