"""Many rules side by side: how far each can be pruned, told once instead of pair by pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainflat.reports import family, family_figure, findings, folder, page, reach, tables
from trainflat.reports.rows import results

SPARSITIES = (0.2, 0.4, 0.6, 0.8)


def made(arms=12, seeds=(0, 1, 2), task="digits"):
    """Arm i loses its first point at 30 + 3 i %, costs 1 + i / 10 passes; seed s lifts everything by s / 1000."""
    for i in range(arms):
        name = {0: "Adam", 1: "SAM"}.get(i, f"rule {i}")
        for seed in seeds:
            base = {
                "task": task,
                "arm": {"rule": name},
                "seed": seed,
                "metric": "accuracy",
                "key": f"{task}-{i}-{seed}",
            }
            dense = 0.9 + seed / 1000
            yield {**base, "variant": "dense", "sparsity": 0.0, "value": dense, "passes": 100 + 10 * i, "steps": 100}
            edge = 0.30 + 0.03 * i
            for s in SPARSITIES:
                yield {**base, "variant": "pruned", "sparsity": s, "value": dense - 0.01 * s / edge}
            yield {**base, "variant": "int8 per_channel", "sparsity": 0.0, "value": dense - 0.002}


def brute(curve, least, grid=200_001):
    """The first sparsity of a fine grid at which the curve is below, the curve drawn by NumPy."""
    s = np.linspace(0, max(curve), grid)
    below = np.interp(s, list(curve), list(curve.values())) < least - 1e-12
    return float(s[below.argmax()]) if below.any() else max(curve)


def test_compressibility_equals_a_fine_search_along_the_curve():
    draw = np.random.default_rng(0)
    for _ in range(200):
        s = [0.0, *np.sort(draw.uniform(0.05, 0.95, 5)).round(3)]
        curve = dict(zip(s, 0.9 - np.abs(np.cumsum(draw.normal(0, 0.006, 6)))))
        found = reach._reach(np.array([*curve.values()]), np.array([*curve]), np.array(0.89))
        assert found == pytest.approx(brute(curve, 0.89), abs=2e-5)


def test_what_is_kept_is_of_the_sparsities_that_all_arms_have():
    rows = list(made(arms=2))
    short = results([row for row in rows if row["arm"]["rule"] == "Adam" or row["sparsity"] != 0.8])
    kept = family.kept(short, "digits")
    assert kept["Adam"] == family.kept(results([row for row in rows if row["sparsity"] != 0.8]), "digits")["Adam"]
    assert kept["SAM"] == {s: pytest.approx(0.9 + s / 1000 - 0.4 / 33) for s in (0, 1, 2)}
    assert family.table(short, "digits").note.endswith("kept is of those that all have.")
    near = [{**row, "sparsity": row["sparsity"] + 0.004} if row["arm"]["rule"] == "SAM" else row for row in rows]
    assert family.kept(results(near), "digits")["Adam"] == family.kept(results(rows), "digits")["Adam"]
    assert family.table(results(rows), "digits").note.endswith("for multiplicity.")
    apart = results(
        [
            row
            for row in rows
            if not row["sparsity"] or (row["arm"]["rule"] == "Adam") == (row["sparsity"] in (0.2, 0.4))
        ]
    )
    assert (family.kept(apart, "digits"), family.table(apart, "digits")) == ({}, None)


def test_it_is_measured_against_the_dense_reference_of_the_same_seed():
    data = results(list(made()))
    found = reach.compressibility(data, "digits", "rule 4")
    assert found == pytest.approx(dict.fromkeys((0, 1, 2), 0.42))
    rows = [{**row, "value": row["value"] - 0.02} if row["arm"]["rule"] == "rule 4" else row for row in made()]
    assert set(reach.compressibility(results(rows), "digits", "rule 4").values()) == {
        0.0
    }  # no longer as good when dense


def test_a_curve_that_never_falls_ends_at_its_last_sparsity():
    data = results([row for row in made() if row["sparsity"] <= 0.4])
    assert set(reach.compressibility(data, "digits", "rule 9").values()) == {0.4}


def test_an_exact_point_is_still_kept():
    assert reach._reach(
        np.array([0.97, 0.96, 0.90]), np.array([0.0, 0.5, 0.6]), np.array(0.97 - 0.01)
    ) == pytest.approx(0.5)


def test_one_number_an_arm_is_where_the_mean_curve_crosses_with_the_interval_of_every_draw_of_seeds():
    """Three seeds that lose a point at different places: all 27 draws by hand, each by a fine search."""
    draw = np.random.default_rng(1)
    rows = [
        {**row, "value": row["value"] + (draw.normal(0, 0.004) if row["variant"] != "int8 per_channel" else 0)}
        for row in made(2)
    ]
    data = results(rows)
    curve, line = {}, data.values("digits", "Adam", "dense", 0.0)
    for seed in range(3):
        values = [data.values("digits", "SAM", "dense", 0.0)[seed]]
        values += [data.values("digits", "SAM", "pruned", s)[seed] for s in SPARSITIES]
        curve[seed] = np.array(values)

    def by_hand(seeds):
        mean = np.mean([curve[s] for s in seeds], 0)
        return brute(dict(zip((0.0, *SPARSITIES), mean)), np.mean([line[s] for s in seeds]) - 0.01)

    found = reach.reach(data, "digits", "SAM")
    every = [by_hand(seeds) for seeds in itertools.product(range(3), repeat=3)]
    assert found.value == pytest.approx(by_hand(range(3)), abs=2e-5)
    assert found.low == pytest.approx(np.percentile(every, 2.5, method="inverted_cdf"), abs=1e-3)
    assert found.high == pytest.approx(np.percentile(every, 97.5, method="inverted_cdf"), abs=1e-3)
    assert found.low < found.value < found.high
    assert reach.reach(data, "digits", "SAM", beside="SAM").high == 0.0
    two = results([row for row in rows if row["seed"] < 2])
    assert reach.reach(two, "digits", "SAM").low is None


def test_the_table_puts_the_furthest_first_and_says_cost_and_differences():
    found = family.table(results(list(made())), "digits")
    assert [line[0] for line in found.rows] == [*(f"rule {i}" for i in range(11, 1, -1)), "SAM", "Adam"]
    cells = dict(zip(found.header, found.rows[0]))
    assert cells["passes"] == "2.10"
    assert cells["pruned by"].startswith("63 %")
    first = cells["kept"]
    assert first.startswith(f"{90.1 - 0.5 / 0.63:.1f}")  # the mean of the four sparsities is a half
    gained = 0.5 / 0.30 - 0.5 / 0.63
    assert found.rows[0][5].startswith(f"+{gained:.1f} [")
    assert found.rows[0][8].startswith("+33.0")
    assert found.rows[0][9].startswith("+30.0")
    assert cells["int8 − dense"].startswith("−0.2")
    assert "n = 3 seeds" in found.title


def test_few_arms_are_told_pair_by_pair_and_many_are_not():
    few, many = (results(list(made(arms))) for arms in (tables.MANY, tables.MANY + 1))
    assert not family.is_family(few)
    assert family.leading(few, "digits") == few.arms
    assert len(tables.pairs(few.arms)) == tables.MANY - 1
    assert family.is_family(many)
    assert tables.pairs(many.arms) == []


def test_few_arms_have_the_table_of_cost_and_reach_too_if_their_seeds_make_an_interval():
    few = list(made(tables.MANY))
    assert [table.task for table in family.tables(results(few))] == results(few).tasks
    assert family.tables(results([row for row in few if row["seed"] < 2])) == []
    assert family.tables(results([row for row in few if row["arm"]["rule"] == "Adam"])) == []


def test_a_figure_of_curves_shows_the_first_two_and_the_best():
    data = results(list(made()))
    assert family.leading(data, "digits") == ["Adam", "SAM", *(f"rule {i}" for i in range(6, 12))]


def test_findings_name_the_best_and_the_best_of_the_cheap_ones():
    said = [str(one) for one in findings(list(made()))]
    assert len(said) == 3
    assert "sparsities SAM keeps 88.6, Adam 88.4" in said[0]
    assert said[1].startswith("Of all")
    assert "rule 11 keeps 89.3, Adam 88.4" in said[1]
    assert said[2].startswith("Of those of at most 1.25 passes")
    assert "rule 2 keeps 88.7" in said[2]
    assert family.cheapest(results(list(made())), "digits") == "rule 2"


def test_the_page_and_the_folder_hold_figure_and_table(tmp_path):
    rows = [*made(), *made(task="digits!")]
    assert family_figure.drawn(results(rows)) == ["digits", "digits!"]
    html = page.report(rows, {"name": "family"})
    assert html.count("<figcaption>Cost and compressibility</figcaption>") == 2
    assert "rule 11 keeps 89.3 and can be pruned by 63 % at 2.10 passes" in family_figure.describe(
        results(rows), "digits"
    )
    folder.write_all(rows, {"name": "family"}, tmp_path)
    for name in ("digits-cost.png", "digits-cost-2.png"):  # both tasks have the same letters
        assert (tmp_path / "curves" / name).stat().st_size > 1000
    assert (tmp_path / "table.md").read_text().count("Cost and compressibility") == 2


def test_the_same_rows_draw_the_same_bytes_with_any_name():
    rows = [
        {**row, "arm": {"rule": f"$x_{{{row['arm']['rule']}}}$ <b>"}} for row in made()
    ]  # neither mathematics nor markup
    assert family_figure.svg(results(rows), "digits") == family_figure.svg(results(rows), "digits")
    assert "&lt;b&gt;" in family_figure.svg(results(rows), "digits")


def test_without_a_reference_there_is_no_table():
    rows = [row for row in made() if row["arm"]["rule"] != "Adam" or row["variant"] != "dense"]
    assert family.tables(results(rows)) == []
    assert family_figure.drawn(results(rows)) == []


def test_enough_measured_rules_show_what_predicts_what_survives():
    flat = [
        {**row, "stage": "sharpness", "key": f"s-{row['key']}", "sharpness": {"ascent": 1 / row["passes"]}}
        for row in made()
        if row["variant"] == "dense"
    ]
    for row in flat:
        del row["value"], row["passes"]
    html = page.report([*made(), *flat], {"name": "family"})
    assert "What predicts what survives" in html
    assert html.count("<td>less</td>") + html.count(">less<") >= 2  # the sharper the less, by both numbers


def test_four_rules_do_not():
    few = {row["arm"]["rule"] for row in made(4)}
    flat = [
        {**row, "stage": "sharpness", "key": f"s-{row['key']}", "sharpness": {"ascent": row["value"]}, "value": None}
        for row in made(4)
        if row["variant"] == "dense"
    ]
    assert len(few) == 4
    assert "What predicts" not in page.report([*made(4), *flat], {"name": "few"})
