"""A stage never runs twice; a killed one continues to the same bits; a failed one loses nothing."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from trainflat import train
from trainflat.experiments import plan as planning
from trainflat.experiments import progress, runner, work
from trainflat.experiments.recipe import read
from trainflat.experiments.stages import Imp, OneShot
from trainflat.experiments.store import Store
from trainflat.experiments.work import Interrupted

RECIPE = """
name = "trial"

[defaults]
task = "mylab:blobs"
gradient = { name = "sam", rho = 0.05 }

[stage.train]
kind = "Finetune"
epochs = 3
keep = "best"

[stage.oneshot]
kind = "OneShot"
model = "train"
sparsities = [0.5, 0.9]

[stage.imp]
kind = "Imp"
sparsity = 0.6
rounds = 3
steps = 25

[stage.retrain]
kind = "Finetune"
ticket = "imp"
steps = 25
"""

fork = multiprocessing.get_context("fork")  # the child has torch already: a run starts in milliseconds


@pytest.fixture
def planned(tmp_path, plugins):
    def make(**overrides):
        path = tmp_path / "trial.toml"
        path.write_text(RECIPE)
        return planning.plan(read(str(path)), overrides=overrides)

    return make


class Heard:
    """Remembers what a run said."""

    def __init__(self):
        self.events: list[tuple[str, str]] = []

    def __call__(self, event, job, about):
        self.events.append((event, job.name))

    def stages(self, event: str) -> list[str]:
        return [name for said, name in self.events if said == event]


def results(store: Path) -> dict[str, object]:
    """Every file that a run leaves for others, in bytes, and every row without its timing."""
    kept = Store(store)
    files = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}
    rows = {
        p.parent.name: [{k: v for k, v in row.items() if k != "seconds"} for row in kept.done(p.parent.name)["rows"]]
        for p in sorted(store.rglob("done.json"))
    }
    assert len(files) >= 4
    assert len(rows) == 4
    return {**files, **rows}


def test_a_stage_never_runs_twice(planned, tmp_path):
    first, second = Heard(), Heard()
    runner.run(planned(), Store(tmp_path / "store"), say=first)
    runner.run(planned(), Store(tmp_path / "store"), say=second)
    assert first.stages("finished") == ["train", "oneshot", "imp", "retrain"]
    assert second.stages("cached") == ["train", "oneshot", "imp", "retrain"]
    assert second.stages("finished") == []


def test_nothing_but_results_is_left_in_a_finished_stage(planned, tmp_path):
    runner.run(planned(), Store(tmp_path / "store"), checkpoint_seconds=0)
    names = {path.name for path in (tmp_path / "store" / "stages").rglob("*") if path.is_file()}
    known = {"done.json", "stage.json", "log.jsonl", "lock", "model.safetensors", "ticket.safetensors"}
    assert {name for name in names if not name.startswith("ticket-")} <= known


def child(plan, store: Path, **options) -> multiprocessing.Process:
    """A run in a process of its own."""
    process = fork.Process(target=lambda: runner.run(plan, Store(store), **options))
    process.start()
    return process


def test_killed_at_ten_random_moments_a_run_ends_in_the_same_bits(planned, tmp_path):
    began = time.monotonic()
    undisturbed = child(planned(), tmp_path / "whole")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    longest = (time.monotonic() - began) / 12  # so that most runs take several kills to their end
    moments, killed, finished = random.Random(0), 0, 0
    while killed < 10 or not finished:
        store = tmp_path / f"killed-{finished}"
        process = child(planned(), store, checkpoint_seconds=0.0)
        process.join(timeout=moments.uniform(0.01, longest * (1 + killed / 10)))  # ever later, so that a run gets ahead
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            assert results(store) == results(tmp_path / "whole")
            finished += 1


def test_two_runs_at_once_share_the_work(planned, tmp_path):
    both = [child(planned(), tmp_path / "shared") for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    alone = child(planned(), tmp_path / "alone")
    alone.join()
    assert results(tmp_path / "shared") == results(tmp_path / "alone")
    logs = {path.parent.name: path.read_text() for path in (tmp_path / "shared").rglob("log.jsonl")}
    steps = [line.split('"step"')[1][:5] for text in logs.values() for line in text.splitlines()]
    alone_logs = [line for path in (tmp_path / "alone").rglob("log.jsonl") for line in path.read_text().splitlines()]
    assert len(steps) == len(alone_logs)  # no stage was trained by both


@pytest.mark.parametrize("after", [1, 40, 70])
def test_interrupted_and_continued_a_run_ends_in_the_same_bits(planned, tmp_path, after):
    runner.run(planned(), Store(tmp_path / "whole"))
    steps = 0

    def interrupt(event, job, about):
        nonlocal steps
        steps += event == "step"
        if event == "step" and steps == after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        runner.run(planned(), Store(tmp_path / "stopped"), say=interrupt)
    heard = Heard()
    runner.run(planned(), Store(tmp_path / "stopped"), say=heard)
    assert heard.stages("finished")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_signals_of_a_batch_system_save_and_stop_however_often_they_come(planned, tmp_path, number):
    before = signal.getsignal(number)

    def interrupt(event, job, about):
        if event == "step" and about["done"] == 7:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        runner.run(planned(), Store(tmp_path / "store"), say=interrupt)
    assert len(list((tmp_path / "store").rglob("state.safetensors"))) == 1
    assert signal.getsignal(number) is before


def test_a_failing_stage_stops_only_those_that_build_on_it(planned, tmp_path):
    work._tasks.clear()
    heard, store = Heard(), Store(tmp_path / "store")
    exploding = planned(**{"train.task": {"name": "mylab:blobs", "explode_at": 3}})
    with pytest.raises(train.NonFiniteLoss):
        runner.run(exploding, store, say=heard)
    assert heard.stages("failed") == ["train"]
    assert heard.stages("finished") == ["imp", "retrain"]


def test_what_was_run_before_a_module_of_ones_own_was_edited_says_so(tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text((Path(__file__).parent / "plugins" / "mylab.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trial.toml").write_text(RECIPE.replace('"mylab:blobs"', '"mine:blobs"'))
    plan, store = planning.plan(read(str(tmp_path / "trial.toml"))), Store(tmp_path / "store")

    def said() -> list[str]:
        out = io.StringIO()
        with progress.shown(plan, to=out) as say:
            runner.run(plan, store, say=say)
        return [line for line in out.getvalue().splitlines() if "edited" in line]

    assert said() == said() == []
    mine.write_text(mine.read_text() + "# another thought\n")
    train, imp, retrain = (next(job for job in plan.jobs if job.name == name) for name in ("train", "imp", "retrain"))
    edited = [f"(before mine was edited; to run it again delete stages/{job.key})" for job in (train, imp, retrain)]
    assert all(told in line for told, line in zip(edited, said(), strict=True))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (None, "it gave NoneType"),
        ({"task": "blobs"}, "it gave dict"),
        (["row"], "not all of it are tables"),
        ([{"value": {1}}], "Object of type set is not JSON serializable"),
    ],
)
def test_what_is_no_list_of_rows_is_told_and_not_kept(planned, tmp_path, monkeypatch, rows, why):
    monkeypatch.setattr(OneShot, "run", lambda self, work: rows)
    plan, store = planned(), Store(tmp_path / "store")
    with pytest.raises(TypeError, match=f"run of the stage OneShot gives a list of rows.*; {why}$"):
        runner.run(plan, store)
    assert [store.done(job.key) is None for job in plan.jobs] == [job.name == "oneshot" for job in plan.jobs]


def test_what_fails_for_every_seed_alike_is_said_once(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(OneShot, "run", lambda self, work: None)
    monkeypatch.setattr(Imp, "run", lambda self, work: None)
    plan = planned()
    plan = planning.plan(plan.recipe, seeds=[0, 1])
    with pytest.raises(RuntimeError) as caught:
        runner.run(plan, Store(tmp_path / "store"))
    assert [said.split(" gives")[0] for said in str(caught.value).split("NoneType")[:-1]] == [
        "run of the stage OneShot",
        "; run of the stage Imp",
    ]


def test_a_run_that_need_not_wait_leaves_when_all_that_is_left_is_at_work_elsewhere(planned, tmp_path):
    heard, store, plan = Heard(), Store(tmp_path / "store"), planned()
    with store.lock(plan.jobs[1].key) as ours:
        assert ours
        runner.run(plan, store, say=heard, wait=False)
    assert heard.stages("finished") == ["train", "imp", "retrain"]
    assert heard.stages("waiting") == []


def test_what_a_killed_run_had_no_time_to_tidy_is_tidied_by_the_next(planned, tmp_path):
    store, plan = Store(tmp_path / "store"), planned()
    runner.run(plan, store)
    left = store.folder(plan.jobs[0].key) / "state.safetensors"
    left.write_bytes(b"of a stage that was done already")
    runner.run(plan, store)
    assert not left.exists()


def test_a_nan_stops_with_its_step_and_loses_nothing(planned, tmp_path):
    work._tasks.clear()
    store = Store(tmp_path / "store")
    exploding = planned(**{"imp.task": {"name": "mylab:blobs", "explode_at": 31}})
    heard = Heard()
    with pytest.raises(train.NonFiniteLoss, match=r"at step 15 of 25.*smaller learning rate"):
        runner.run(exploding, store, say=heard, checkpoint_seconds=0.0)
    assert heard.stages("finished") == ["train", "oneshot"]
    state = next((tmp_path / "store").rglob("state.safetensors"))
    model = work.make_task(exploding.jobs[2].stage.task).model(0)
    import torch

    assert train.load_state(state, model, torch.optim.Adam(model.parameters()))[0] == 15


def test_a_full_disk_is_a_sentence_and_loses_nothing(planned, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    store, heard = Store(tmp_path / "store"), Heard()
    with monkeypatch.context() as patch:
        patch.setattr("trainflat.experiments.stages.imp.save_mask", full)
        with pytest.raises(OSError, match="no space left on the disk of .*finished stages are kept"):
            runner.run(planned(), store, say=heard)
    assert heard.stages("finished") == ["train", "oneshot"]
    again = Heard()
    runner.run(planned(), store, say=again)
    assert again.stages("cached") == ["train", "oneshot"]


def test_a_damaged_state_is_a_sentence_that_names_the_file(planned, tmp_path):
    store = Store(tmp_path / "store")
    plan = planned()
    (store.folder(plan.jobs[0].key) / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(ValueError, match=r"state.safetensors is damaged .*delete it"):
        runner.run(plan, store)


@pytest.mark.parametrize(("name", "size"), [("model", None), ("model", 50), ("ticket", None)])
def test_what_is_missing_of_a_finished_stage_is_told_with_the_way_to_have_it_again(planned, tmp_path, name, size):
    plan, store = planned(), Store(tmp_path / "store")
    runner.run(plan, store)
    train, oneshot, imp, retrain = plan.jobs
    parent, child = (train, oneshot) if name == "model" else (imp, retrain)
    path = store.folder(parent.key) / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:size]) if size else path.unlink()
    shutil.rmtree(store.folder(child.key))
    with pytest.raises(ValueError, match=re.escape(f"; delete the folder {path.parent} to compute this stage again")):
        runner.run(plan, store)
    shutil.rmtree(path.parent)
    runner.run(plan, store)


def test_an_unknown_device_is_a_sentence(planned, tmp_path):
    with pytest.raises(ValueError, match="'cudax' is not to be had here"):
        runner.run(planned(), Store(tmp_path), device="cudax")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:", "cuda:x", "", "CPU"])
def test_what_is_no_device_of_ours_is_told_the_ones_that_are(name):
    with pytest.raises(ValueError) as caught:
        runner.pick_device(name)
    said = "is not to be had here; use auto, cpu, cuda or cuda:N, such as cuda:0"
    assert str(caught.value) == f"the device {name!r} {said}"


def test_a_gpu_that_is_not_there_is_a_short_sentence():
    with pytest.raises(
        ValueError, match=r"^the device 'cuda:99' is not to be had here \(.*\); use auto, cpu, cuda or cuda:N$"
    ):
        runner.pick_device("cuda:99")
    assert runner.pick_device("cpu") == "cpu"
