"""The paper's numbers are all there and as printed; ours stand beside them under their right name."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib import resources

import numpy as np
import pytest
from scipy import stats as scipy_stats

from trainflat.reports import render
from trainflat.reports.paper import effects, printed_tables
from trainflat.reports.paper.effects import Origin, arguments, levels
from trainflat.reports.paper.example_paper import paper_rows
from trainflat.reports.paper.reference import _grid, parse, reference
from trainflat.reports.rows import results
from trainflat.reports.stats import Summary, between, combination, welch

TABLES = {table.key: table for table in reference().tables}
PRINTED = {  # cells with s.d., the sum of their means and that of their s.d., each taken from the paper's text by another parser
    "table1": (69, 5555.9, 35.9), "table2": (16, 1415.9, 4.5), "table3": (48, 761.4, 160.7), "table4": (72, 1734.9, 342.1),
    "table5": (74, 6081.0, 35.8), "table6": (24, 1875.5, 15.99), "table8": (36, 2951.25, 31.6),
}  # fmt: skip
WITHOUT_SD = {"table5": 25, "table7": 24, "table8": 8}


@pytest.mark.parametrize("key", TABLES)
def test_every_printed_number_is_there(key):
    cells = TABLES[key].cells.values()
    spread = [cell for cell in cells if cell.sd is not None]
    if key in PRINTED:
        count, means, sds = PRINTED[key]
        assert len(spread) == count
        assert sum(cell.mean for cell in spread) == pytest.approx(means)
        assert sum(cell.sd for cell in spread) == pytest.approx(sds)
    assert len(cells) - len(spread) == WITHOUT_SD.get(key, 0)


def test_there_are_eight_tables_and_four_maps():
    assert sorted(TABLES) == [f"table{i}" for i in range(1, 9)]
    assert [m.key for m in reference().maps] == ["A", "B", "C", "D"]
    assert len(reference().drawn) == 7


@pytest.mark.parametrize(
    ("key", "row", "column", "said"),
    [
        ("table1", "IMP SWA", "qqp", "87.7 ± 0.2"),
        ("table1", "Full Adam", "mnli-mm", "83.6 ± 0.3"),
        ("table5", "IMP SAM", "rte", "71.8 ± 1.7"),
        ("table5", "Std SAM", "mnli", "83.3"),
        ("table6", "Adam → SAM", "qnli", "89.50 ± 0.04"),
        ("table8", "Adam int8", "rte", "56.80 ± 4.51"),
        ("table3", "5e-3 Adam", "stsb", "160.9 ± 34.3"),
        ("table4", "5e-4 SWA", "qqp", "2.9 ± 0.0"),
        ("table2", "SAM pruned", "qnli", "86.9 ± 0.4"),
        ("table7", "pruned, reproduced", "mnli", "80.1"),
    ],
)
def test_a_cell_is_as_printed(key, row, column, said):
    assert str(TABLES[key].cells[row, column]) == said


def test_a_row_says_which_rows_of_ours_it_is_about():
    cell = TABLES["table5"].cells["IMP SAM", "qqp"]
    assert (cell.variant, cell.sparsity, dict(cell.labels), cell.metric) == (
        "imp",
        0.9,
        {"optimizer": "SAM"},
        "accuracy",
    )
    assert TABLES["table5"].cells["±10% SAM", "qqp"].sparsity == 0.8
    assert TABLES["table8"].cells["SAM int8", "qqp"].metric == "f1"
    assert TABLES["table1"].cells["Full SAM", "mnli-mm"].metric == "accuracy_mismatched"
    assert TABLES["table4"].cells["1e-3 SWA", "rte"].metric == "eps 0.001"
    assert TABLES["table5"].cells["Full Ref", "rte"].variant == ""
    hidden = {cell.column for cell in TABLES["table1"].cells.values() if not cell.hidden}
    assert hidden == {"squad"}  # the only columns that are not of the test server


def test_quoted_rows_and_rows_without_deviation_have_no_known_n():
    assert {cell.n for row, cell in TABLES["table5"].cells.items() if "Ref" in row[0]} == {0}
    assert TABLES["table5"].cells["Std Adam", "rte"].n == 0
    assert TABLES["table5"].cells["Std Adam", "squad"].n == 3


@pytest.mark.parametrize("wrong", ["", "83.5(", "83.5 (.1)", "n/a", "83,5"])
def test_what_is_no_cell_is_refused(wrong):
    with pytest.raises(ValueError, match="is no cell"):
        parse(wrong)


def test_a_row_with_a_cell_too_few_is_named():
    with pytest.raises(ValueError, match="'b' has 1 cells for 2 columns"):
        _grid("  | x y\na | 1 2\nb | 1")


INCONSISTENT = {  # the spec's list of internal inconsistencies
    "two values of the same full CoLA": {("table5", "Full Adam", "cola"), ("table8", "SAM full", "cola")},
    "copying error": {("table8", "Adam full", "squad"), ("table5", "Full Adam", "squad")},
    "full MNLI models": {("table5", "Full SAM", "mnli"), ("table8", "Adam full", "mnli")},
    "QQP at 90 %": {("table1", "IMP SAM", "qqp"), ("table5", "IMP Adam", "qqp")},
    "trained again": {("table6", "SAM → SAM", "sst2"), ("table6", "Adam → Adam", "qnli")},
    "The caption searches λ": {("table7", "layer weight λ", "mnli")},
}


@pytest.mark.parametrize("words", INCONSISTENT)
def test_an_inconsistency_of_the_paper_is_a_footnote_on_its_cells(words):
    noted = {
        (t.key, *at) for t in reference().tables for at, cell in t.cells.items() if any(words in n for n in cell.notes)
    }
    assert noted >= INCONSISTENT[words]
    assert len({column for _, _, column in noted}) <= 4
    assert not any(words in note for note in TABLES["table6"].cells["SAM → SAM", "rte"].notes)


def test_every_footnote_with_cells_stands_on_some():
    document = tomllib.loads(
        resources.files("trainflat.reports.paper").joinpath("paper.toml").read_text(encoding="utf-8")
    )
    used = {note for table in reference().tables for cell in table.cells.values() for note in cell.notes}
    assert used | set(reference().notes) == {note["text"] for note in document["footnote"]}
    assert len(document["footnote"]) == 9
    names = {f"{t.key}/{row}/{column}" for t in reference().tables for row, column in t.cells}
    for note in document["footnote"]:
        assert all(name in names or name.endswith("/*") for name in note["cells"]), note


def test_the_inconsistency_about_epsilon_belongs_to_no_cell():
    assert any("epsilon = 0" in note for note in reference().notes)


def test_welch_from_summaries_is_scipys():
    for (m1, s1, n1), (m2, s2, n2) in itertools.permutations([(83.5, 0.1, 3), (84.1, 0.9, 5), (80.0, 2.0, 3)], 2):
        theirs = scipy_stats.ttest_ind_from_stats(m2, s2, n2, m1, s1, n1, equal_var=False)
        d = between(Summary(n1, m1, s1), Summary(n2, m2, s2))
        v = s1**2 / n1, s2**2 / n2
        freedom = sum(v) ** 2 / (v[0] ** 2 / (n1 - 1) + v[1] ** 2 / (n2 - 1))
        half = (d.high - d.low) / 2
        t = d.mean / (half / scipy_stats.t.ppf(0.975, freedom))
        assert d.mean == pytest.approx(m2 - m1)
        assert t == pytest.approx(theirs.statistic)
        assert (d.low > 0 or d.high < 0) == (theirs.pvalue < 0.05)


def test_welch_of_values_is_welch_of_their_summaries():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 7.0, 7.5, 8.0])
    both = welch(a, b), between(Summary(3, a.mean(), a.std(ddof=1)), Summary(4, b.mean(), b.std(ddof=1)))
    assert both[0].low == pytest.approx(both[1].low)
    assert both[0].high == pytest.approx(both[1].high)


def test_a_mean_of_equal_differences_has_the_error_of_one_over_root_k():
    s = Summary(3, 1.0, 0.6)
    one, four = combination([(1.0, s)]), combination([(0.25, s)] * 4)
    assert four.mean == one.mean
    scale = scipy_stats.t.ppf(0.975, 8) / scipy_stats.t.ppf(0.975, 2) / 2  # four times the freedom, half the error
    assert four.high - four.mean == pytest.approx(scale * (one.high - one.mean))


def test_a_side_without_deviation_has_no_interval():
    assert between(Summary(3, 1.0, 0.1), Summary(1, 2.0, None)).low is None
    [level] = [
        x
        for x in levels(results(paper_rows("table1-imp")), TABLES["table5"])
        if x.cell.row == "Std SAM" and x.cell.column == "rte"
    ]
    assert (level.difference.low, level.difference.high) == (None, None)
    assert "(no interval)" in render.markdown(printed_tables.besides(results(paper_rows("table1-imp")))[-1])


def test_the_difference_from_the_paper_is_in_points_of_the_same_metric():
    rows = paper_rows("table8-int8", model="bert-base-uncased")
    level = next(
        x for x in levels(results(rows), TABLES["table8"]) if (x.cell.row, x.cell.column) == ("SAM int8", "mrpc")
    )
    ours = [
        r["metrics"]["f1"]
        for r in rows
        if (r["task"], r["variant"], r["arm"]["optimizer"]) == ("mrpc", "int8 per_tensor", "SAM")
    ]
    assert list(level.values.values()) == ours
    theirs = scipy_stats.ttest_ind_from_stats(
        np.mean(ours), np.std(ours, ddof=1), 3, 0.8937, 0.0083, 3, equal_var=False
    )
    assert level.difference.mean == pytest.approx(np.mean(ours) - 0.8937)
    assert (level.difference.verdict == "cannot tell") == (theirs.pvalue > 0.05)


STAND_INS = [
    ("minilm", True),
    ("bert-base-uncased", False),
    ("bert-base-uncased", None),
    ("minilm", None),
    ("bert-large-uncased", True),
]


@pytest.mark.parametrize(("model", "official"), STAND_INS)
@pytest.mark.parametrize("recipe", ["table1-imp", "table8-int8", "tables3-4-sharpness"])
def test_a_stand_in_is_never_called_the_papers(recipe, model, official):
    rows = paper_rows(recipe, model=model, official=official)
    tables = printed_tables.besides(results(rows))
    assert len(tables) >= 2
    for table in tables:
        text = render.markdown(table)
        assert "stand-in" in table.title
        assert "stand-in" in table.kind.split()
        assert not re.search(r"\bours\b(?! is (paired|drawn))", text.replace(table.note, ""))
        assert {row[1] for row in table.rows} & {"ours", "ours − paper"} == set()
        assert "values beside" not in table.title or "Not a replication" in table.note
    assert all("on a stand-in (" in said for said in printed_tables.claims(results(rows)))


def test_the_papers_model_on_whole_data_is_ours_and_no_stand_in():
    tables = printed_tables.besides(results(paper_rows("table8-int8", model="bert-base-uncased")))
    assert [table.kind for table in tables] == ["dense", "beside"]
    assert all("stand-in" not in render.markdown(table) for table in tables)
    assert "ours − paper" in {row[1] for row in tables[1].rows}


def test_a_variation_of_the_papers_setting_is_a_stand_in():
    rows = [{**r, "arm": {**r["arm"], "rho": "0.1"}} for r in paper_rows("table8-int8", model="bert-base-uncased")]
    origins = {level.origin for level in levels(results(rows), TABLES["table8"])}
    assert origins == {Origin("bert-base-uncased", True, ("0.1",))}
    assert not next(iter(origins)).paper


def test_two_models_in_one_table_are_kept_apart():
    rows = paper_rows("table8-int8") + [
        {**r, "key": r["key"] + "b"} for r in paper_rows("table8-int8", model="bert-base-uncased", tasks=["rte"])
    ]
    titles = [table.title.partition(";")[0] for table in printed_tables.besides(results(rows))]
    assert len(titles) == 4
    assert sum("MiniLM" in title for title in titles) == sum("BERT-base" in title for title in titles) == 2


def answer(values, **about):
    """The RTE effect of table 5's full models on invented values of Adam and SAM."""
    rows = [
        {"task": "rte", "variant": "dense", "seed": seed, "key": f"{name}{seed}", "arm": {"optimizer": name}, "model": "minilm",
         "official": True, "metrics": {"accuracy": value}, "recipe": "paper/table1-imp", **about}
        for name, of in values.items() for seed, value in enumerate(of)
    ]  # fmt: skip
    return arguments(levels(results(rows), TABLES["table5"]), TABLES["table5"])


@pytest.mark.parametrize(
    ("sam", "verdict"),
    [
        ([0.48, 0.49, 0.47], "seen"),
        ([0.52, 0.53, 0.51], "opposite"),
        ([0.48, 0.53, 0.49], "cannot tell"),
        ([0.4], "cannot tell"),
    ],
)
def test_an_effect_is_judged_by_sign_and_interval(sam, verdict):
    [one] = answer({"Adam": [0.5, 0.51, 0.49][: len(sam)], "SAM": sam})  # the paper has 67.0 − 67.6 = −0.6
    assert one.paper.mean == pytest.approx(-0.006)
    assert one.verdict == verdict


def test_an_effect_of_ours_is_paired_over_seeds():
    [one] = answer({"Adam": [0.5, 0.6, 0.7], "SAM": [0.51, 0.62, 0.73]})
    theirs = scipy_stats.ttest_rel([0.51, 0.62, 0.73], [0.5, 0.6, 0.7]).confidence_interval()
    assert (one.ours.low, one.ours.high) == pytest.approx((theirs.low, theirs.high))


def test_the_papers_effect_has_welchs_interval():
    [one] = answer({"Adam": [0.5], "SAM": [0.5]})
    v = (0.015**2 + 0.008**2) / 3
    freedom = v**2 / (((0.015**2 / 3) ** 2 + (0.008**2 / 3) ** 2) / 2)
    half = scipy_stats.t.ppf(0.975, freedom) * v**0.5
    assert (one.paper.low, one.paper.high) == pytest.approx((-0.006 - half, -0.006 + half))


def test_the_mean_over_tasks_counts_one_number_a_seed():
    rows = paper_rows("table8-int8")
    mean = next(
        a for a in arguments(levels(results(rows), TABLES["table8"]), TABLES["table8"]) if a.mean and "int8" in a.what
    )
    metric = {"stsb": "pearson", "mrpc": "f1", "rte": "accuracy", "cola": "matthews_correlation"}
    value = {
        (r["task"], r["arm"]["optimizer"], r["seed"]): r["metrics"][metric[r["task"]]]
        for r in rows if r["variant"] == "int8 per_tensor"
    }  # fmt: skip
    by_seed = [np.mean([value[t, "SAM", s] - value[t, "Adam", s] for t in metric]) for s in range(3)]
    theirs = scipy_stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert (mean.ours.low, mean.ours.high) == pytest.approx((theirs.low, theirs.high))
    assert mean.paper.mean == pytest.approx(np.mean([0.62, 2.56, 8.90, -1.11]) / 100)


def test_footnotes_are_raised_on_their_cells_and_told_below():
    effects, values = printed_tables.besides(results(paper_rows("table8-int8")))
    full = {row[0]: row for row in values.rows}["Adam full"]
    assert full[values.header.index("cola")] == "60.47 ± 0.55¹"
    assert full[values.header.index("rte")] == "67.63 ± 1.10"
    assert "¹ The paper gives two values of the same full CoLA models" in values.note
    assert [row[2] for row in effects.rows if row[:2] == ("SAM full − Adam full", "cola")] == ["−1.4¹"]


def test_levels_of_the_test_server_are_not_compared_with_the_validation_set():
    titles = [table.title for table in printed_tables.besides(results(paper_rows("table1-imp")))]
    assert [title.partition(" beside")[0] for title in titles] == [
        "Table 1, effects",
        "Table 5, effects",
        "Table 5, values",
    ]
    assert (
        "test server, ours of the validation set" in printed_tables.besides(results(paper_rows("table1-imp")))[0].note
    )


def test_somebodys_own_recipe_of_the_same_name_is_set_beside_the_same_table():
    rows = [{**row, "recipe": "mylab/table8-int8"} for row in paper_rows("table8-int8")]
    assert len(printed_tables.besides(results(rows))) == 2
    assert printed_tables.besides(results([{**row, "recipe": "mylab/another"} for row in rows])) == []
    assert effects.concerned(["glue-imp"]) == []
