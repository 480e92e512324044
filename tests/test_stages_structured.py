"""From a teacher to a small model: what the stages leave, resume, and refuse. Issue numbers are of princeton-nlp/CoFiPruning."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from trainflat import compress, train
from trainflat.compress.units import FAMILIES
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.stages import Structured
from trainflat.experiments.store import Store
from trainflat.experiments.work import Parent
from trainflat.tasks import digits

WARM = """
[defaults]
task = "digits"
steps = 6
optimizer = { name = "Adam", lr = 1e-3 }
[stage.teacher]
kind = "Finetune"
[stage.warm]
kind = "Distill"
teacher = "teacher"
student = "teacher"
"""
ROUTE = (
    WARM
    + """
[stage.prune]
kind = "Structured"
teacher = "teacher"
student = "warm"
sparsity = 0.6
steps = 120
gate_lr = 0.1
[stage.small]
kind = "Distill"
teacher = "teacher"
student = "prune"
"""
)
CUT = """
[stage.cut]
kind = "Cut"
model = "warm"
like = "prune"
way = "{way}"
[stage.tuned]
kind = "Distill"
teacher = "teacher"
student = "cut"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One for all tests: what they share is computed once."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def ran(store, tmp_path):
    """Runs stages given as TOML; returns a `Parent` by stage name, as a stage after them would see it."""

    def run(stages: str, **overrides) -> dict[str, Parent]:
        path = tmp_path / "trial.toml"
        path.write_text(stages)
        plan = planning.plan(read(str(path)), overrides=overrides)
        runner.run(plan, store)
        rows = {job.name: (store.done(job.key) or {})["rows"] for job in plan.jobs}
        return {job.name: Parent(job.stage, store.folder(job.key), rows[job.name]) for job in plan.jobs}

    return run


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_sizes_in_the_row_are_counted_in_the_model_that_is_left(ran):
    stages = ran(ROUTE)
    whole, small, row = stages["teacher"].model(0), stages["prune"].model(0), stages["prune"].row
    assert row["parameters"] == count(small)
    assert row["sparsity_total"] == pytest.approx(1 - count(small) / count(whole))
    layers = [
        sum(p.numel() for name, p in model.named_parameters() if name.startswith("layers")) for model in (whole, small)
    ]
    assert row["sparsity_layers"] == pytest.approx(1 - layers[1] / layers[0])
    assert row["sparsity"] == 0.6
    assert 0.3 < row["sparsity_layers"] < 0.95


def test_pruning_is_active_in_what_is_scored_issue_47(ran):
    stages = ran(ROUTE)
    task = digits()
    for name in ("prune", "small"):
        model = stages[name].model(0)
        assert count(model) < 0.6 * count(stages["teacher"].model(0))
        assert task.evaluate(model)["accuracy"] == stages[name].row["value"]


def test_the_size_reached_is_stated_beside_the_target_issue_29(ran):
    row = ran(ROUTE)["small"].row
    assert row["variant"] == "cofi"
    assert {"sparsity", "sparsity_layers", "sparsity_cofi", "sparsity_total", "parameters", "shape"} <= row.keys()
    assert row["sparsity_cofi"] != row["sparsity_layers"], "two ways of counting, both named"


def test_several_sparsities_share_one_warm_start_issue_2(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text(ROUTE + '[sweep]\n"prune.sparsity" = [0.3, 0.6, 0.9]\n')
    jobs = planning.plan(read(str(path))).jobs
    assert [job.name for job in jobs].count("warm") == 1
    assert [job.name for job in jobs].count("prune") == 3
    assert len({job.parents["student"].key for job in jobs if job.name == "prune"}) == 1


def test_the_warm_start_is_as_long_as_asked_not_a_hundred_steps(ran):
    """Their commit 1f9f391 hard-wires it."""
    assert ran(WARM, **{"warm.steps": 3})["warm"].row["steps"] == 3


def test_a_student_learns_from_a_teacher_of_its_own_task_and_labels_issue_3(ran):
    with pytest.raises(ValueError, match="with the labels in the order, of its teacher"):
        ran(WARM, **{"warm.task": "docstrings"})


def test_gates_need_no_teacher_issue_6():
    task = digits()
    model = task.model(0)
    gates = compress.Gates(compress.structure(model))
    held = compress.Lagrangian(task.objective, gates, target=train.linear(0.6, 0.6, warmup=0.1), lr=0.1)
    optimizer = torch.optim.Adam([{"params": [*model.parameters()], "lr": 1e-3}, *held.groups()])
    with gates.on(model):
        for step in train.loop(model, held, task.batches(0), optimizer, steps=120):
            held.advance((step.index + 1) / 120)
    assert float(gates.sparsity().detach()) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("missing", FAMILIES)
def test_any_family_may_be_left_out(ran, missing):
    """There a stale variable and a missing attribute break it."""
    families = [family for family in FAMILIES if family != missing]
    shape = ran(ROUTE, **{"prune.families": families, "prune.steps": 4})["prune"].row["shape"]
    if missing == "hidden":
        assert shape["hidden"] == 64


@pytest.mark.parametrize("frozen", [True, False])
def test_embeddings_are_frozen_if_asked_and_only_then(ran, frozen):
    """There they are always left out of the optimizer, whatever the option says."""
    stages = ran(WARM, **{"warm.freeze_embeddings": frozen})
    before, after = stages["teacher"].model(0).state_dict(), stages["warm"].model(0).state_dict()
    assert torch.equal(before["embeddings.position.weight"], after["embeddings.position.weight"]) == frozen
    assert not torch.equal(before["layers.0.output.weight"], after["layers.0.output.weight"])


def test_the_best_model_is_chosen_only_once_the_sparsity_is_reached(ran, monkeypatch):
    """There the tolerance never reached the trainer, and under some metrics' names nothing was ever best."""
    said = []
    reached = compress.Lagrangian.reached
    monkeypatch.setattr(compress.Lagrangian, "reached", lambda held: said.append(reached(held)) or said[-1])
    stage = ran(ROUTE, **{"prune.keep": "best", "prune.steps": 164, "prune.tolerance": 0.05})["prune"]
    assert said[-1]
    assert not said[0], "the first of four epochs is too early"
    assert stage.row["sparsity_layers"] > 0.5


def test_pruning_stopped_in_the_middle_goes_on_to_the_same_bits(ran, tmp_path, monkeypatch):
    whole = ran(ROUTE)["prune"]
    path = tmp_path / "again.toml"
    path.write_text(ROUTE)
    plan, again = planning.plan(read(str(path))), Store(tmp_path / "again")
    job = next(job for job in plan.jobs if job.name == "prune")
    original, left = Structured.run, [7, 30]

    def stopped(stage, work):
        """Somebody wants to stop after so many steps."""
        steps, after = itertools.count(1), left.pop(0) if left else None
        return original(stage, replace(work, stop=lambda: next(steps) == after))

    monkeypatch.setattr(Structured, "run", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run(plan, again)
    runner.run(plan, again)
    for file in ("model.safetensors", "projection.safetensors"):
        assert (again.folder(job.key) / file).read_bytes() == (whole.folder / file).read_bytes()


@pytest.mark.parametrize("way", ["narrow", "shallow"])
def test_a_control_is_as_large_as_what_it_is_compared_with(ran, way):
    stages = ran(ROUTE + CUT.format(way=way))
    ours, plain = stages["prune"].row, stages["cut"].row
    assert plain["sparsity_layers"] == pytest.approx(ours["sparsity_layers"], abs=0.005)
    assert plain["sparsity"] == ours["sparsity"]
    assert plain["variant"] == f"{way}, raw"
    assert stages["tuned"].row["variant"] == way
    assert stages["tuned"].row["shape"] == plain["shape"]


def test_the_projection_goes_on_where_the_gates_left_it(ran):
    stages = ran(ROUTE)
    kept = train.state.read(stages["prune"].folder / "projection.safetensors")[0]["projection.weight"]
    assert kept.shape == (64, stages["prune"].row["shape"]["hidden"])
    assert not torch.equal(kept, torch.eye(64)[:, : kept.shape[1]]), "it was learnt"


def test_int8_and_cost_follow_a_shrunk_model(ran):
    stages = ran(
        ROUTE + '[stage.int8]\nkind = "Quantize"\nmodel = "small"\n[stage.cost]\nkind = "Measure"\nmodel = "small"\n'
    )
    assert stages["cost"].rows[0]["cost"]["parameters"] == stages["small"].row["parameters"]
    assert stages["int8"].row["sparsity"] == 0.6


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prune.sparsity": 1.0}, "sparsity must be in [0, 1), got 1.0"),
        ({"prune.families": ["heads"]}, "families are some of attention, head"),
        ({"prune.gate_lr": 0.0}, "gate_lr must be above 0"),
        ({"prune.drop": 1.0}, "drop is a probability"),
        ({"prune.warmup": 1.5}, "warmup"),
        ({"warm.distillation": {"name": "distill", "temperature": 0.0}}, "temperature must be positive"),
        ({"warm.distillation": {"name": "distill", "matching": "nearest"}}, "matching must be one of"),
        ({"warm.objective": {"name": "l1", "strength": 0.1}}, "has no say where a teacher has"),
        ({"cut.like": None}, "give one of the two"),
        ({"cut.like": "warm"}, "must be a Structured stage"),
        ({"cut.model": "int8"}, "which leaves no model"),
    ],
)
def test_what_cannot_be_is_told_while_planning(ran, fields, said):
    route = ROUTE + '[stage.int8]\nkind = "Quantize"\nmodel = "small"\n' + CUT.format(way="narrow")
    if fields == {"cut.like": None}:
        route, fields = route.replace('like = "prune"\n', ""), {}
    with pytest.raises(ValueError) as error:
        ran(route, **fields)
    assert said in str(error.value)
