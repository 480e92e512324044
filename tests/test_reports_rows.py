"""How rows are checked, told apart, named and flattened."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys

import pytest

from trainflat import reports
from trainflat.reports import example
from trainflat.reports.formats import to_csv, to_json
from trainflat.reports.rows import compared, results, unique


def row(**about):
    known = {
        "task": "digits",
        "variant": "dense",
        "sparsity": 0.0,
        "seed": 0,
        "stage": "train",
        "kind": "Finetune",
        "metric": "accuracy",
    }
    return {**known, "key": "k", "arm": {"task": "digits", "optimizer": "Adam"}, "value": 0.9, **about}


def test_reports_import_neither_torch_nor_transformers_nor_sklearn():
    heavy = "{'torch', 'transformers', 'sklearn', 'matplotlib', 'scipy.stats'}"
    code = f"import sys, trainflat.reports; print(sorted({heavy} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_rows_are_a_sentence():
    with pytest.raises(ValueError, match="there are no rows to report.*run it"):
        results([])


def test_a_row_that_lacks_something_is_named():
    with pytest.raises(ValueError, match="row 1 of the results has no 'seed'; every row needs task"):
        results([row(), {"task": "digits", "variant": "dense", "arm": {}}])
    with pytest.raises(ValueError, match="not a table of labels"):
        results([row(arm="SAM")])


def test_the_same_point_twice_counts_once():
    rows = example.rows()
    assert unique(rows + rows) == rows
    assert reports.text(reports.every(rows + rows)[1]) == reports.text(reports.every(rows)[1])


def test_a_stage_that_two_arms_share_stays_with_both():
    shared = [row(), row(arm={"task": "digits", "optimizer": "SAM"})]
    assert len(unique(shared)) == 2


def test_the_optimizer_is_compared_where_there_is_one_and_other_axes_become_headings():
    rows = [row(arm={"optimizer": o, "model": m}) for o in ("Adam", "SAM") for m in ("small", "large")]
    data = results(rows)
    assert compared(rows) == ("optimizer",)
    assert data.arms == ["Adam", "SAM"]
    assert data.tasks == ["digits, small", "digits, large"]


def test_an_axis_that_only_names_the_task_is_neither_compared_nor_told_twice():
    arms = [{"subset": task, "gradient": gradient} for task in ("rte", "mrpc") for gradient in ("plain", "sam")]
    data = results([row(task=arm["subset"], arm=arm) for arm in arms])
    assert (data.tasks, data.arms) == (["rte", "mrpc"], ["plain", "sam"])
    data = results(
        [row(task=arm["subset"], arm={"subset": arm["subset"], "optimizer": arm["gradient"]}) for arm in arms]
    )
    assert (data.tasks, data.arms) == (["rte", "mrpc"], ["plain", "sam"])


def test_without_an_optimizer_all_other_axes_are_compared_together():
    data = results([row(arm={"find": f, "retrain": r}) for f in ("plain", "sam") for r in ("plain", "sam")])
    assert data.arms == ["plain, plain", "plain, sam", "sam, plain", "sam, sam"]
    assert results([row(arm={"task": "digits"})]).arms == ["all"]


def test_two_alternatives_under_one_task_name_are_told_apart_by_their_labels():
    data = results([row(arm={"task": label, "optimizer": "Adam"}) for label in ("digits, all", "digits, half")])
    assert data.tasks == ["digits, all", "digits, half"]
    assert data.arms == ["Adam"]


def test_two_stages_of_one_kind_are_told_apart_and_a_second_look_at_a_model_is_not():
    twice = [row(), row(stage="again", key="l", value=0.8)]
    assert results(twice).variants("digits") == ["dense / train", "dense / again"]
    looked = [row(), row(stage="quantize", kind="Quantize", key="l", value=0.8)]
    assert results(looked).variants("digits") == ["dense"]
    assert results(looked).values("digits", "Adam", "dense", 0.0) == {0: 0.9}


def test_two_measurements_of_cost_do_not_rename_the_scores():
    costs = [row(stage=stage, kind="Measure", key=stage, value=None, cost={"bytes": 1}) for stage in ("one", "two")]
    data = results([row(), *costs])
    assert data.variants("digits") == ["dense"]
    assert data.variant(data.rows[1]) == "dense / one"


def test_points_have_names_that_a_reader_knows():
    data = results([row()])
    assert data.title("dense") == "dense"
    assert data.title("pruned", 0.6) == "one-shot 60 %"
    assert data.title("imp", 0.488) == "IMP 48.8 %"
    assert data.title("int8 per_channel") == "int8 per channel"
    assert data.title("int8 per_channel", 0.5) == "int8 per channel 50 %"
    assert data.family("imp / find") == "IMP / find"


def test_csv_holds_every_row_and_every_field():
    rows = example.rows()
    back = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(back) == len(rows)
    assert [float(line["value"]) for line in back if line["value"]] == [r["value"] for r in rows if "value" in r]
    assert back[0]["arm.optimizer"] == "Adam"
    assert back[0]["metrics.f1_macro"] == str(rows[0]["metrics"]["f1_macro"])
    assert {"cost.latency_ms", "cost.bytes", "passes", "note"} <= back[0].keys()


def test_json_gives_the_rows_back_and_says_null_for_what_is_no_number():
    assert json.loads(to_json(example.rows())) == example.rows()
    assert json.loads(to_json([row(value=math.nan, metrics={"f1": math.inf})]))[0]["value"] is None
