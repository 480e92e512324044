"""Movement pruning as a stage: resume to the same bits, what it leaves and its row says, and what is told while planning."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from trainflat import compress, train
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.stages import Movement
from trainflat.experiments.store import Store
from trainflat.experiments.work import make_task

RECIPE = """
[defaults]
task = "mylab:blobs"
steps = 24
gradient = { name = "sam", rho = 0.05 }
[stage.move]
kind = "Movement"
sparsity = 0.8
"""
FOLLOWING = """
[stage.once]
kind = "OneShot"
model = "move"
sparsities = [0.9]
[stage.int8]
kind = "Quantize"
model = "move"
[stage.cost]
kind = "Measure"
model = "move"
runs = 1
"""
SOFT = {"move.way": "soft", "move.score_lr": 0.5, "move.strength": 1.0}


def planned(tmp_path, fields, recipe=RECIPE):
    (tmp_path / "trial.toml").write_text(recipe)
    return planning.plan(read(str(tmp_path / "trial.toml")), overrides=fields)


def done(plan, store, name):
    key = next(job.key for job in plan.jobs if job.name == name)
    return store.folder(key), store.done(key)["rows"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        SOFT,
        {**SOFT, "move.perturb": "scores"},
        {"move.perturb": "scores", "move.keep": "best"},
        {"move.perturb": "scores", "move.average": "ema"},
    ],
)
def test_a_run_stopped_twice_ends_in_the_same_bits(fields, tmp_path, plugins, monkeypatch):
    plan = planned(tmp_path, fields)
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    runner.run(plan, whole)
    original, left = Movement.run, [5, 13]

    def stopped(stage, work):
        steps, after = count(1), left.pop(0) if left else None
        return original(stage, replace(work, stop=lambda: next(steps) == after))

    monkeypatch.setattr(Movement, "run", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run(plan, parts)
    runner.run(plan, parts)
    (folder, (row,)), (other, (again,)) = done(plan, whole, "move"), done(plan, parts, "move")
    for file in ("model.safetensors", "mask.safetensors"):
        assert (folder / file).read_bytes() == (other / file).read_bytes()
    assert row["value"] == again["value"]
    assert 0 < row["sparsity"] < 1, "a mask of all or none would show nothing"


@pytest.mark.parametrize("fields", [{}, {"move.perturb": "scores"}, SOFT])
def test_it_leaves_a_plain_model_that_other_stages_take(fields, tmp_path, plugins):
    plan, store = planned(tmp_path, fields, RECIPE + FOLLOWING), Store(tmp_path / "store")
    runner.run(plan, store)
    folder, (row,) = done(plan, store, "move")
    mask = compress.load_mask(folder / "mask.safetensors")
    weights = train.state.read(folder / "model.safetensors")[0]
    assert not any("score" in name for name in weights)
    assert all((weights[name][~alive] == 0).all() for name, alive in mask.items())
    dead = sum(int((~alive).sum()) for alive in mask.values())
    assert row["sparsity"] == dead / mask.size
    assert row["sparsity_total"] == dead / sum(tensor.numel() for tensor in weights.values())
    soft = "move.way" in fields
    assert row["variant"] == ("movement soft" if soft else "movement hard")
    assert soft or dead == round(0.8 * mask.size)
    (once,), (int8,), (cost,) = (done(plan, store, name)[1] for name in ("once", "int8", "cost"))
    assert once["sparsity"] == pytest.approx(0.9, abs=1 / mask.size)
    assert int8["sparsity"] == row["sparsity"]
    assert cost["cost"]["parameters"] == sum(tensor.numel() for tensor in weights.values())


def test_perturbing_the_scores_makes_another_model(tmp_path, plugins):
    store, found = Store(tmp_path / "store"), []
    for perturb in ("weights", "scores"):
        plan = planned(tmp_path, {"move.perturb": perturb, "move.gradient": {"name": "sam", "rho": 1.0}})
        runner.run(plan, store)
        found.append((done(plan, store, "move")[0] / "model.safetensors").read_bytes())
    assert found[0] != found[1]


def test_the_price_and_the_threshold_of_soft_rise_together(tmp_path, plugins):
    """Half way from 10 to 80 % of the run a cubic that starts at 0 is at 7/8, as lambda and tau are in the authors' scripts."""
    (job,) = planned(tmp_path, {"move.way": "soft"}).jobs
    task = make_task(job.stage.task)
    held = job.stage._held(task, task.model(0))
    for t, share in ((0.0, 0.0), (0.1, 0.0), (0.45, 7 / 8), (0.8, 1.0), (1.0, 1.0)):
        held.advance(t)
        assert (held.strength, held.tau) == pytest.approx((400 * share, 0.1 * share))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"move.sparsity": 1.0}, "sparsity must be in [0, 1)"),
        ({"move.begin": 0.9}, "begin before end"),
        ({"move.tau": 0.0}, "tau must be in (0, 1)"),
        ({"move.strength": -1.0}, "strength must be at least 0"),
        ({"move.score_lr": 0.0}, "score_lr above 0"),
        ({"move.perturb": "both"}, "perturb"),
    ],
)
def test_what_cannot_be_is_told_while_planning(fields, said, tmp_path, plugins):
    with pytest.raises(ValueError) as error:
        planned(tmp_path, fields)
    assert said in str(error.value)
