"""Tables and sentences on rows whose answers are known."""

from __future__ import annotations

import math
import re

import pytest

from trainflat.reports import cost, example, render, tables
from trainflat.reports.rows import results
from trainflat.reports.sentences import findings, holds_up_to

DENSE = {"Adam": [0.90, 0.92, 0.94], "SAM": [0.91, 0.94, 0.97]}


def row(arm, seed, variant="dense", sparsity=0.0, value=0.9, **more):
    known = {"task": "t", "stage": variant, "kind": variant, "key": f"{variant}-{arm}-{seed}", "metric": "accuracy"}
    return {
        **known,
        "arm": {"optimizer": arm},
        "seed": seed,
        "variant": variant,
        "sparsity": sparsity,
        "value": value,
        **more,
    }


def dense():
    return [row(arm, seed, value=value) for arm, values in DENSE.items() for seed, value in enumerate(values)]


def pruned(values):
    """``{arm: {sparsity: value}}``, the same for three seeds."""
    return [
        row(arm, seed, "pruned", s, v) for arm, curve in values.items() for s, v in curve.items() for seed in range(3)
    ]


def test_a_cell_is_mean_and_sample_deviation_in_points():
    table = tables.others(results(dense()), "t")
    assert table.rows == (("Adam", "92.0 ± 2.0"), ("SAM", "94.0 ± 3.0"))
    assert table.title.endswith("in points (metric × 100), n = 3")


def test_cells_say_n_where_it_differs_and_one_seed_has_no_deviation():
    table = tables.others(results(dense()[:4]), "t")
    assert table.rows == (("Adam", "92.0 ± 2.0 (n = 3)"), ("SAM", "91.0 (n = 1)"))
    assert "n = " not in table.title


def test_the_change_of_a_quantized_model_is_against_the_same_seeds_dense():
    small = [
        row("Adam", seed, "int8 per_tensor", value=value - 0.01 * seed) for seed, value in enumerate(DENSE["Adam"])
    ]
    table = tables.others(results(dense() + small), "t")
    assert table.header == ("optimizer", "dense", "int8 per tensor", "change")
    assert table.rows[0] == ("Adam", "92.0 ± 2.0", "91.0 ± 1.0", "−1.0 ± 1.0")
    assert table.rows[1] == ("SAM", "94.0 ± 3.0", "–", "–")


def test_a_curve_has_dense_and_at_most_six_sparsities_with_both_ends():
    table = tables.curve(results(example.rows()), "digits", "pruned")
    assert table.header == ("optimizer", "dense", "10 %", "30 %", "40 %", "60 %", "70 %", "90 %")
    assert [line[0] for line in table.rows] == ["Adam", "SAM"]
    assert tables.thin([1.0, 2.0]) == [1.0, 2.0]


def test_a_difference_is_paired_with_its_interval_and_a_plain_word():
    table = tables.differences(
        results(dense()), "t", "Adam", "SAM"
    )  # 1, 2, 3 points: mean 2, s.d. 1, half-width 4.303 / sqrt(3)
    assert table.header == ("model", "SAM", "Adam", "difference", "95 % CI", "n", "SAM is")
    assert table.rows == (("dense", "94.0", "92.0", "+2.0", "[−0.5, 4.5]", "3", "cannot tell"),)
    assert "paired" in table.title
    assert "no correction for multiplicity" in table.note
    better = dense() + pruned({"Adam": {0.5: 0.5}, "SAM": {0.5: 0.75}})
    assert tables.differences(results(better), "t", "Adam", "SAM").rows[1][3:] == (
        "+25.0",
        "[25.0, 25.0]",
        "3",
        "better",
    )
    assert tables.differences(results(better), "t", "SAM", "Adam").rows[1][3:] == (
        "−25.0",
        "[−25.0, −25.0]",
        "3",
        "worse",
    )


def test_the_means_beside_a_difference_are_of_the_seeds_that_it_pairs():
    rows = dense() + pruned({"Adam": {0.5: 0.5, 0.8: 0.4}, "SAM": {0.5: 0.75, 0.8: 0.5}})
    rows = [one for one in rows if (one["arm"]["optimizer"], one["seed"]) != ("SAM", 2)]  # still to be trained
    table = tables.differences(results(rows), "t", "Adam", "SAM")
    assert table.rows[0][:4] == ("dense", "92.5", "91.0", "+1.5")  # Adam's mean over all its three seeds is 92
    told = [str(finding) for finding in findings(rows)]
    assert told[0].startswith("Dense, SAM reaches 92.5, Adam 91.0: +1.5 points")
    assert told[2].startswith("On average over 2 one-shot sparsities SAM keeps 62.5, Adam 45.0: +17.5 points")


def test_an_unpaired_difference_is_marked():
    apart = [row("Adam", 0), row("Adam", 1, value=0.8), row("SAM", 2), row("SAM", 3, value=0.7)]
    table = tables.differences(results(apart), "t", "Adam", "SAM")
    assert table.rows[0][5] == "2, unpaired"
    assert table.title.endswith("paired over seeds unless marked")


def test_one_seed_gives_a_difference_without_an_interval():
    table = tables.differences(results([row("Adam", 0, value=0.5), row("SAM", 0, value=0.75)]), "t", "Adam", "SAM")
    assert table.rows[0][3:] == ("+25.0", "–", "1", "cannot tell")


def test_up_to_three_arms_meet_each_other_and_more_meet_the_first():
    assert tables.pairs(["a", "b", "c", "d"]) == [("a", "b"), ("a", "c"), ("a", "d")]
    assert len(tables.pairs(["a", "b", "c"])) == 3
    assert tables.pairs(["a"]) == []


def test_a_bound_that_rounds_to_zero_still_shows_its_side():
    d = tables.Difference(0.01, 0.0003, 0.02, 3, "paired")
    assert tables.bounds(d) == "[0.03, 2.0]"
    assert tables.bounds(tables.Difference(0.01, -0.00007, 0.02, 3, "paired")) == "[−0.007, 2.0]"
    assert tables.signed(-0.0001) == "0.0"


def test_training_cost_sums_the_rounds_and_compares_passes_with_the_first_arm():
    rounds = [
        row(arm, 0, "imp", s, passes=p, seconds=1.5) for arm, p in (("Adam", 100), ("SAM", 200)) for s in (0.0, 0.5)
    ]
    table = cost.training(results(rounds))
    assert table.rows == (("t", "IMP", "Adam", "3.0", "200", "1.00"), ("t", "IMP", "SAM", "3.0", "400", "2.00"))
    assert table.title.endswith("n = 1")


def test_the_cost_of_models_says_where_it_was_measured_and_that_masks_give_no_speed():
    table = cost.models(results(example.rows()))
    assert table.header[-1] == "latency, ms"
    assert table.title.endswith("n = 3, cpu, 1 thread, batch of 1")
    assert re.fullmatch(r"0\.\d\d \[0\.\d\d, 0\.\d\d\]", table.rows[0][-1])
    assert table.rows[0][:6] == ("digits", "dense", "Adam", "104,970", "104,966", "0.42")
    assert "neither smaller on disk nor faster" in table.note


def test_cost_rows_without_a_score_are_enough_for_a_table():
    only = [r for r in example.rows() if "cost" in r]
    assert [table.title.partition(";")[0] for table in cost.costs(only)] == ["Cost of the models"]
    assert tables.every(only) == []
    assert findings(only) == []


def test_all_metrics_of_a_task_have_a_table():
    table = tables.metrics(results(example.rows()), "digits")
    assert table.header == ("optimizer", "accuracy", "f1_macro")
    assert tables.metrics(results(dense()), "t") is None


def test_a_metric_that_is_not_a_number_is_shown_as_such():
    assert tables.others(results([row("Adam", 0, value=math.nan)]), "t").rows == (("Adam", "nan"),)


def test_markdown_is_a_table_whatever_is_in_a_label():
    table = tables.Table("a | b", ("", "x_y"), (("<b>|`*_\n", "[1.0, 2.0]"), ("[a](b)", "–")))
    lines = render.markdown(table).splitlines()
    assert lines[0] == r"**a \| b**"
    assert lines[4] == r"| \<b\>\|\`\*\_ | [1.0, 2.0] |"
    assert lines[5] == r"| \[a](b) | – |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:6]} == {3}


@pytest.mark.parametrize(
    "table", [*tables.every(example.rows()), *cost.costs(example.rows())], ids=lambda table: table.heading
)
def test_every_rendering_has_every_cell(table):
    rows = render.text(table)
    assert {len(line) for line in rows} == {len(table.header)}
    assert len(render.markdown(table).splitlines()) == len(rows) + (6 if table.note else 4) - 1
    page = render.html(table)
    assert page.count("<tr") == len(rows)
    assert page.count('scope="row"') == table.names * len(table.rows)


def test_a_sentence_has_the_values_the_difference_and_its_interval():
    rows = dense() + pruned({"Adam": {0.55: 0.5}, "SAM": {0.55: 0.75}})
    sentences = [str(finding) for finding in findings(rows)]
    assert sentences == [
        "Dense, SAM reaches 94.0, Adam 92.0: +2.0 points [95 % CI −0.5 to 4.5, n = 3], cannot tell.",
        "At 55 % one-shot sparsity SAM keeps 75.0, Adam 50.0: +25.0 points [95 % CI 25.0 to 25.0, n = 3], better.",
    ]


def test_the_sparsity_that_is_told_does_not_depend_on_who_is_ahead():
    curves = {"Adam": {0.2: 0.9, 0.5: 0.1, 0.65: 0.6}, "SAM": {0.2: 0.9, 0.5: 0.9, 0.65: 0.6}}
    told = [finding.where for finding in findings(dense() + pruned(curves))]
    assert told[1:3] == ["At 65 % one-shot sparsity", "On average over 3 one-shot sparsities"]


def test_the_average_over_sparsities_is_one_number_a_seed():
    curves = {"Adam": {0.0: 0.9, 0.2: 0.8, 0.4: 0.4}, "SAM": {0.0: 0.1, 0.2: 0.9, 0.4: 0.7}}
    average = findings(dense() + pruned(curves))[2]
    assert average.where == "On average over 2 one-shot sparsities"  # zero is no pruning
    assert (average.difference.mean, average.difference.n) == (pytest.approx(0.2), 3)


def test_a_curve_holds_up_to_the_first_sparsity_that_loses_more_than_a_point():
    curve = {"Adam": {0.1: 0.92, 0.2: 0.911, 0.3: 0.90, 0.4: 0.92}, "SAM": {0.1: 0.5}}
    rows = dense() + pruned(curve)
    assert holds_up_to(results(rows), "t", "Adam", "pruned") == 0.2
    assert holds_up_to(results(rows), "t", "SAM", "pruned") == 0.0
    assert holds_up_to(results(rows), "t", "nobody", "pruned") is None
    assert (
        str(findings(rows)[-1])
        == "Within 1 point of its own dense mean: one-shot, Adam up to 20 %, SAM at no sparsity."
    )


def test_a_label_with_a_comma_stays_one_name():
    rows = [row("Adam, twice", 0, value=0.75), row("Adam", 0, value=0.5)]
    assert str(findings(rows)[0]).startswith("Dense, Adam reaches 50.0, “Adam, twice” 75.0: −25.0 points")


def test_a_single_arm_is_told_without_a_comparison():
    assert [str(f) for f in findings([row("Adam", 0)])] == ["Dense: Adam 90.0."]


def test_two_arms_that_share_their_models_are_not_compared():
    ends = {f"Adam, {final}": {0.5: 0.9, 0.6: 0.9} for final in ("Adam", "SAM")}
    rows = pruned(ends)
    assert [f.where for f in findings(rows)][:2] == [
        "At 60 % one-shot sparsity",
        "On average over 2 one-shot sparsities",
    ]
    for one in rows:
        one["key"] = f"search-{one['seed']}"
    assert not [f for f in findings(rows) if f.difference]
