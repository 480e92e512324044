"""Rank correlations of measures with what survives: against SciPy, against resamples written out, and on rows made for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from trainflat.reports import results
from trainflat.reports.predicts import Correlation, _weighted, change, correlation, predicts


def grid(arms: int, seeds: int, value) -> dict[tuple[str, int], float]:
    return {(f"rule {i}", j): float(value(i, j)) for i in range(arms) for j in range(seeds)}


def drawn(seed: int, ties: bool = False):
    """A number for each arm and seed: an effect of the arm, one of the seed, and noise."""
    draw = np.random.default_rng(seed)
    arm, one, noise = draw.normal(size=12), draw.normal(size=4), draw.normal(size=(12, 4))
    number = lambda i, j: arm[i] + 0.5 * one[j] + 0.5 * noise[i, j]
    return lambda i, j: round(number(i, j)) if ties else number(i, j)


# the correlation


@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys_over_the_points_that_both_have(ties):
    x, y = grid(8, 3, drawn(0, ties)), grid(8, 4, drawn(1, ties))
    del x["rule 2", 1], y["rule 5", 0]
    shared = [point for point in x if point in y]
    found = correlation(x, y)
    assert found.rho == pytest.approx(spearmanr([x[p] for p in shared], [y[p] for p in shared])[0], rel=1e-12)
    assert (found.arms, found.seeds, found.n) == (8, 3, 22)
    assert found.low < found.rho < found.high


@pytest.mark.parametrize("ties", [False, True])
def test_a_resample_is_scipys_rho_of_the_points_each_as_often_as_it_was_drawn(ties):
    x, y = (np.array(list(grid(6, 3, drawn(seed, ties)).values())) for seed in (0, 1))
    draw = np.random.default_rng(0)
    weights = draw.integers(0, 4, size=(20, len(x)))
    written_out = [spearmanr(np.repeat(x, w), np.repeat(y, w))[0] for w in weights]
    np.testing.assert_allclose(_weighted(x, y, weights.astype(float)), written_out, rtol=1e-9)


def test_a_resample_without_spread_has_no_rho():
    x = np.array([1.0, 2.0, 2.0])
    weights = np.array([[3.0, 0, 0], [0, 2, 1], [0, 0, 0], [1, 1, 0]])
    found = _weighted(x, x, weights)
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert found[3] == pytest.approx(1)


def test_arms_and_seeds_are_drawn_apart_so_the_interval_equals_one_by_hand():
    x, y = grid(7, 3, drawn(0)), grid(7, 3, drawn(3))
    draw, found = np.random.default_rng(99), []
    a, b = (np.array(list(of.values())).reshape(7, 3) for of in (x, y))
    for _ in range(4000):
        rows, columns = draw.integers(7, size=7), draw.integers(3, size=3)
        pick = np.ix_(rows, columns)
        found.append(spearmanr(a[pick].ravel(), b[pick].ravel())[0])
    low, high = np.nanquantile(found, [0.025, 0.975])
    ours = correlation(x, y, resamples=4000)
    assert ours.low == pytest.approx(low, abs=0.05)  # both are of 4000 resamples, and the tails are thin
    assert ours.high == pytest.approx(high, abs=0.05)


def test_seeds_of_one_arm_are_not_taken_for_independent():
    """Eight copies of each arm say no more than one: the interval is as wide. Copies under other names would narrow it."""
    x, y = grid(10, 1, drawn(0)), grid(10, 1, drawn(4))
    copies = [{(arm, j): v for (arm, _), v in of.items() for j in range(8)} for of in (x, y)]
    others = [{(f"{arm} {j}", 0): v for (arm, _), v in of.items() for j in range(8)} for of in (x, y)]
    width = lambda c: c.high - c.low
    alone, copied, renamed = correlation(x, y), correlation(*copies), correlation(*others)
    assert copied.rho == pytest.approx(alone.rho)
    assert width(copied) == pytest.approx(width(alone), rel=0.1)
    assert width(renamed) < 0.6 * width(alone)


def test_of_unrelated_measures_the_interval_seldom_excludes_zero():
    """Nominally 5 %; of sixty studies of twelve rules and four seeds with effects of both, at most eleven (p < 1e-4 at 5 %)."""
    wrong = 0
    for study in range(60):
        c = correlation(grid(12, 4, drawn(1000 + study)), grid(12, 4, drawn(2000 + study)), resamples=400)
        wrong += not c.low <= 0 <= c.high
    assert wrong <= 11


def test_the_same_seed_gives_the_same_interval():
    x, y = grid(8, 3, drawn(0)), grid(8, 3, drawn(1))
    assert correlation(x, y) == correlation(x, y)
    assert correlation(x, y, seed=1).rho == correlation(x, y).rho
    assert correlation(x, y, seed=1).low != correlation(x, y).low


def test_there_is_no_interval_from_four_arms_and_no_rho_from_two_points_or_of_a_constant():
    four = grid(4, 3, lambda i, j: i + 0.1 * j)
    assert correlation(four, four) == Correlation(pytest.approx(1), None, None, 4, 3, 12)
    two = grid(2, 1, lambda i, j: i)
    assert correlation(two, two) == Correlation(None, None, None, 2, 1, 2)
    assert correlation({}, two).n == 0
    assert correlation(grid(9, 1, lambda i, j: 3), grid(9, 1, lambda i, j: i)).rho is None
    holes = grid(6, 1, lambda i, j: float("nan") if i == 0 else i)
    assert correlation(holes, grid(6, 1, lambda i, j: i)).n == 5
    with pytest.raises(ValueError, match="confidence must be in"):
        correlation(two, two, confidence=1.0)


# from rows


def study(arms: int = 8, seeds: int = 3):
    """Rows of two tasks: arm i keeps 0.1 i of the dense value more and rises less along the ascent; the trace says nothing."""
    rows = []
    for task in ("digits", "docstrings"):
        for i in range(arms):
            for seed in range(seeds):
                about = {"task": task, "seed": seed, "arm": {"task": task, "optimizer": f"rule {i}"}, "sparsity": 0.0}
                key = f"{task}{i}{seed}"
                dense = {
                    **about,
                    "variant": "dense",
                    "stage": "train",
                    "kind": "Finetune",
                    "value": 0.9,
                    "key": "t" + key,
                }
                flat = {
                    "loss": 0.5 + 0.01 * seed,
                    "ascent": 1 - 0.1 * i,
                    "trace": (i * 5 + seed * 3) % 7,
                    "residual": 0.1 * i,
                }
                geometry = {
                    "loss": 0.5 + 0.01 * seed,
                    "feature rank": 9 + i,
                    "features": 64,
                    "path": [0.1, 0.2],
                    "barrier at": i,
                }
                rows += [
                    dense,
                    *(
                        {**dense, "variant": "pruned", "stage": "oneshot", "kind": "OneShot", "key": "o" + key}
                        | {"sparsity": sparsity, "value": 0.9 * (0.2 + 0.1 * i) - 0.2 * sparsity}
                        for sparsity in (0.5, 0.7)
                    ),
                    {**about, "variant": "dense", "stage": "flat", "kind": "Sharpness", "key": "s" + key, "sharpness": flat},
                    {**about, "variant": "dense", "stage": "geo", "kind": "Geometry", "key": "g" + key, "geometry": geometry},
                    {**about, "variant": "imp", "stage": "imp", "key": "p" + key, "sharpness": {"ascent": i}},
                ]  # fmt: skip
    return rows


def test_the_change_is_the_mean_over_sparsities_minus_dense():
    data = results(study())
    by_hand = pytest.approx(0.9 * 0.5 - 0.2 * 0.6 - 0.9)
    assert change(data, "digits", "rule 3") == {0: by_hand, 1: by_hand, 2: by_hand}
    less = [row for row in study() if (row["seed"], row["sparsity"], row["arm"]["optimizer"]) != (1, 0.7, "rule 3")]
    assert list(change(results(less), "digits", "rule 3")) == [0, 2]
    assert change(results([row for row in study() if row["variant"] == "dense"]), "digits", "rule 3") == {}


def test_a_measure_that_orders_the_rules_predicts_and_one_that_does_not_cannot_tell():
    table = predicts(results(study()))
    assert table.header[2:4] == ("rho", "95 % interval")
    lines = {row[:2]: row[2:] for row in table.rows}
    assert lines["digits", "ascent"] == ("−1.00", "[−1.00, −1.00]", "8", "3", "24", "less")
    assert lines["digits", "feature rank"][-1] == "more"
    assert lines["digits", "trace"][-1] == "cannot tell"
    assert lines["digits", "trace"] == lines["docstrings", "trace"]


def test_only_measures_of_dense_models_count_and_no_bookkeeping_and_the_loss_once():
    names = [row[1] for row in predicts(results(study())).rows if row[0] == "digits"]
    assert names == ["loss", "ascent", "trace", "feature rank"]


def test_two_stages_that_differ_are_told_apart():
    rows = study()
    more = [{**row, "stage": "more", "key": "m" + row["key"]} for row in rows if row.get("kind") == "Sharpness"]
    for row in more:
        row["sharpness"] = {name: value + 1 for name, value in row["sharpness"].items()}
    names = [row[1] for row in predicts(results([*rows, *more])).rows if row[0] == "digits"]
    assert {"ascent / flat", "ascent / more", "feature rank"} <= set(names)
    assert "ascent" not in names


def test_what_survives_may_be_another_number():
    """The compressibility of a rule, say: one number for all its seeds, here the other way round."""
    table = predicts(results(study()), lambda data, task, arm: dict.fromkeys(range(3), -int(arm[-1])), "compressible")
    lines = {row[:2]: row[-1] for row in table.rows}
    assert lines["digits", "ascent"] == "more"
    assert "compressible" in table.title


def test_without_measures_or_without_pruning_there_is_no_table():
    rows = study()
    assert predicts(results([row for row in rows if "sharpness" not in row and "geometry" not in row])) is None
    assert predicts(results([row for row in rows if row["variant"] != "pruned"])) is None


def test_few_arms_have_a_rho_and_no_verdict():
    lines = {row[:2]: row[2:] for row in predicts(results(study(arms=3))).rows}
    assert lines["digits", "ascent"] == ("−1.00", "–", "3", "3", "9", "cannot tell")
