"""The stage `Measure`: of what a cost was taken stands in its row, lengths are checked while planning, old results stay valid."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainflat import compress, tasks
from trainflat.compress.sizes import gates_of
from trainflat.experiments import plan as planning
from trainflat.experiments.recipe import read
from trainflat.experiments.resolve import Spec
from trainflat.experiments.stages import Measure
from trainflat.experiments.store import identity
from trainflat.experiments.work import Work
from trainflat.reports.cost import models
from trainflat.reports.rows import results

SHAPE = compress.Shape(hidden=9, heads=(1, 0), neurons=(5, 3))


@pytest.fixture(scope="module")
def task():
    return tasks.docstrings()


def measured(task, tmp_path: Path, small: bool, **fields):
    """The rows of a Measure stage of an untrained model, whole or shrunk, as if another stage had left it."""
    model = task.model(seed=0)
    row = {"variant": "dense", "sparsity": 0.0, "sparsity_total": 0.0, "value": 0.5}
    if small:
        parts = compress.structure(model)
        model = compress.shrink(model, parts, gates_of(parts, SHAPE))
        row |= {"variant": "cofi", "sparsity": 0.95, "sparsity_layers": 0.97, "shape": SHAPE.as_dict()}
    parent = SimpleNamespace(task=lambda: task, model=lambda seed: model, row=row)
    return Measure(model="train", **fields).run(Work(tmp_path, 0, {"model": parent}))


@pytest.mark.parametrize("batch", [1, 8])
def test_a_row_states_batch_length_padding_and_threads(task, tmp_path, batch):
    (own,) = measured(task, tmp_path, False, batch=batch)
    (padded,) = measured(task, tmp_path, False, batch=batch, length=48)
    inputs = task.inputs(batch)
    assert (own["cost"]["batch"], own["cost"]["length"]) == inputs["input_ids"].shape
    assert own["cost"]["padding"] == pytest.approx(1 - inputs["attention_mask"].float().mean().item())
    assert (own["cost"]["padding"] == 0) == (batch == 1), "one example alone is not padded"
    assert (padded["cost"]["batch"], padded["cost"]["length"], padded["cost"]["threads"]) == (batch, 48, 1)
    assert padded["cost"]["padding"] == pytest.approx(1 - inputs["attention_mask"].sum().item() / (48 * batch))
    more = padded["cost"]["multiply_adds"] > own["cost"]["multiply_adds"]
    assert more == (own["cost"]["length"] < 48)
    assert padded["cost"]["parameters"] == own["cost"]["parameters"]


def test_dense_shrunk_and_both_in_int8_are_four_variants(task, tmp_path):
    rows = [
        *measured(task, tmp_path, False),
        *measured(task, tmp_path, True),
        *measured(task, tmp_path, False, quantizer=Spec("dynamic_int8")),
        *measured(task, tmp_path, True, quantizer=Spec("dynamic_int8")),
    ]
    assert [row["variant"] for row in rows] == ["dense", "cofi", "int8 per_channel", "cofi, int8 per_channel"]
    dense, small, eight, both = (row["cost"] for row in rows)
    assert small["multiply_adds"] == both["multiply_adds"] < dense["multiply_adds"] == eight["multiply_adds"]
    assert dense["bytes"] > eight["bytes"] > small["bytes"] > both["bytes"]
    assert rows[3]["sparsity_layers"] == 0.97
    assert rows[3]["shape"]["hidden"] == 9


def test_the_table_of_costs_says_how_many_tokens_and_how_much_padding(task, tmp_path):
    rows = [*measured(task, tmp_path, False, length=48), *measured(task, tmp_path, True, length=48)]
    about = {"seed": 0, "arm": {"optimizer": "SAM"}, "kind": "Measure", "stage": "cost"}
    table = models(results([{**about, **row, "key": row["variant"]} for row in rows]))
    share = round(100 * rows[0]["cost"]["padding"], 1)
    assert f"cpu, 1 thread, batch of 1 x 48 tokens, {share:g} % padding" in table.title


RECIPE = """
[defaults]
task = "{task}"
steps = 2
[stage.train]
kind = "Finetune"
[stage.cost]
kind = "Measure"
model = "train"
"""


def planned(tmp_path: Path, task: str, more: str = ""):
    path = tmp_path / "trial.toml"
    path.write_text(RECIPE.format(task=task) + more)
    return planning.plan(read(str(path))).jobs


def test_a_length_that_the_task_does_not_have_is_refused_while_planning(tmp_path):
    with pytest.raises(ValueError, match=r"\[stage.cost\] .*: length = 128, but docstrings has examples of 48 tokens"):
        planned(tmp_path, "docstrings", "length = 128\n")
    with pytest.raises(ValueError, match="length = 8, but the examples of digits are not made of tokens"):
        planned(tmp_path, "digits", "length = 8\n")
    with pytest.raises(ValueError, match="length counts tokens and must be at least 1, got 0"):
        planned(tmp_path, "docstrings", "length = 0\n")
    assert [job.name for job in planned(tmp_path, "docstrings", "length = 48\n")] == ["train", "cost"]


def test_a_task_of_somebody_whose_inputs_take_no_length_is_told_so(tmp_path):
    mine = SimpleNamespace(name="mine", inputs=lambda size=32: None)
    parent = SimpleNamespace(task=lambda: mine, model=lambda seed: None, row={"variant": "dense", "sparsity": 0.0})
    with pytest.raises(ValueError, match=r"length = 8, but inputs\(size\) of mine takes no length"):
        Measure(model="train", length=8).run(Work(tmp_path, 0, {"model": parent}))


def test_a_stage_without_a_length_keeps_the_identity_that_it_had_before_there_were_lengths(tmp_path):
    train, cost = planned(tmp_path, "docstrings")
    before = {"quantizer": None, "batch": 1, "threads": 1}
    assert cost.key == identity("Measure", 1, before, {"model": train.key}, 0)
    _, longer = planned(tmp_path, "docstrings", "length = 48\n")
    assert longer.key != cost.key
