"""The Slurm script: what it asks for, by counting; and that it does what it says, run by bash without Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainflat.experiments import plan as planning
from trainflat.experiments import runner, slurm
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store

RECIPE = """
name = "study/trial"
seeds = [0, 1, 2]

[defaults]
task = "mylab:blobs"
steps = 20

[stage.train]
kind = "Finetune"
memory = 6

[stage.oneshot]
kind = "OneShot"
model = "train"
sparsities = [0.5]
cpus = 2

[sweep]
"train.gradient" = ["plain", "sam"]
"""


@pytest.fixture
def planned(tmp_path, plugins):
    def make(**overrides):
        path = tmp_path / "trial.toml"
        path.write_text(RECIPE)
        return planning.plan(read(str(path)), overrides=overrides)

    return make


def commands(tmp_path: Path, *more: str) -> list[list[str]]:
    words = ["run", str(tmp_path / "trial.toml"), "--store", str(tmp_path / "store"), "--no-wait", *more]
    return [[sys.executable, "-m", "trainflat", *words]]


def options(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))


def test_the_array_is_as_wide_as_the_plan_and_asks_for_the_most_of_all_stages(planned, tmp_path):
    store, plan = Store(tmp_path / "store"), planned(**{"oneshot.gpus": 0.5})
    asked = options(slurm.script("study/trial", commands(tmp_path), plan.jobs, store))
    assert asked["array"] == "1-6"  # 3 seeds, 2 gradients: 6 trainings, then 6 that build on them
    assert (asked["cpus-per-task"], asked["gres"], asked["mem"]) == ("2", "gpu:1", "6000M")
    assert asked["job-name"] == "study-trial"
    for job in plan.jobs[:2]:
        store.finish(job.key, {"rows": [], "seconds": 0.0})
    plain = slurm.script("study/trial", commands(tmp_path), planned().jobs, store)
    assert "10 stages to run" in plain
    assert "gres" not in options(plain)


def test_a_wide_study_does_not_ask_for_all_machines(planned, tmp_path):
    path = tmp_path / "trial.toml"
    path.write_text(RECIPE.replace("[0, 1, 2]", str(list(range(100)))))
    jobs = planning.plan(read(str(path))).jobs
    assert options(slurm.script("s", commands(tmp_path), jobs, Store(tmp_path)))["array"] == "1-64"


@pytest.fixture
def sbatch(tmp_path, planned, monkeypatch):
    """Starts the script as Slurm would start a task of it, with a ``scontrol`` that notes what it is told."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/requeued\n')
    (programs / "scontrol").chmod(0o755)
    plugins = str(Path(__file__).parent / "plugins")
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": plugins,
        "SLURM_JOB_ID": "42",
    }

    def start(*more: str) -> subprocess.Popen:
        script = tmp_path / "trial.sh"
        script.write_text(slurm.script("trial", commands(tmp_path, *more), planned().jobs, Store(tmp_path / "store")))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", str(script)], env=environment, **streams)

    return start


@pytest.mark.slow
def test_two_tasks_share_the_stages_and_end_in_the_bits_of_one_run(planned, sbatch, tmp_path):
    tasks = [sbatch(), sbatch()]
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert sum(text.count("\n+ [") for text in said) + sum(text.startswith("+ [") for text in said) == 12
    assert (tmp_path / "store" / "reports" / "study" / "trial" / "report.html").exists()
    runner.run(planned(), Store(tmp_path / "alone"))
    assert results(tmp_path / "store") == results(tmp_path / "alone")
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_task_whose_time_is_up_saves_itself_and_is_requeued(sbatch, tmp_path, number):
    task = sbatch("--set", "train.steps=100000")
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    task.send_signal(number)
    said, _ = task.communicate(timeout=60)
    assert task.returncode == 130, said
    assert list((tmp_path / "store").rglob("state.safetensors"))
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 42\n" if number == signal.SIGUSR1 else "")


def test_the_command_line_prints_it_with_every_path_whole(planned, tmp_path, monkeypatch, capsys):
    from trainflat import cli

    planned()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["trainflat", "plan", "trial.toml", "--slurm", "--seeds", "0-9", "--store", "there"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert options(printed)["array"] == "1-20"
    assert options(printed)["job-name"] == "study-trial"
    assert f"run {tmp_path}/trial.toml --seeds 0-9 --store {tmp_path}/there --no-wait" in printed
    assert subprocess.run(["bash", "-n"], input=printed, text=True, check=False).returncode == 0


def results(store: Path) -> dict[str, object]:
    """Every file that a run leaves for others, in bytes, and every row without its timing."""
    kept = Store(store)
    files = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}
    for path in sorted(store.rglob("done.json")):
        rows = kept.done(path.parent.name)["rows"]
        files[path.parent.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert len(files) == 18  # six weights, twelve stages
    return files
