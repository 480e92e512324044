"""Two models beside each other: what the mean over pairs of models is of."""

from __future__ import annotations

from trainflat.reports.barriers import table
from trainflat.reports.rows import results


def row(stage, arm, seed, barrier):
    where = {"task": "rte", "variant": "ticket", "sparsity": 0.2, "stage": stage}
    return {**where, "seed": seed, "arm": {"rule": arm}, "geometry": {"barrier": barrier, "cka": 0.9}}


def cell(rows, between, what):
    return next(line[3] for line in table(results(rows)).rows if line[1:3] == (between, what))


def test_the_mean_is_over_the_pairs_that_every_arm_has():
    """One arm lacks its hardest pair: where both were measured they are equal."""
    barriers = {"0-to-10": 0.1, "10-to-20": 0.2, "20-to-30": 0.9}
    rows = [row(stage, arm, seed, b) for stage, b in barriers.items() for arm in ("Adam", "SAM") for seed in range(3)]
    rows = [one for one in rows if (one["stage"], one["arm"]["rule"]) != ("20-to-30", "SAM")]
    assert cell(rows, "mean", "Adam") == cell(rows, "mean", "SAM") == "0.150 ± 0.000"
    assert cell(rows, "mean", "SAM − Adam") == "+0.000 [0.000, 0.000]"
    assert cell(rows, "20-to-30", "Adam") == "0.900 ± 0.000"  # it is shown all the same


def test_seeds_that_lack_a_pair_are_not_in_the_mean():
    rows = [row(stage, "Adam", seed, seed / 10) for stage in ("a", "b") for seed in range(3)]
    assert cell(rows[:-1], "mean", "Adam") == "0.050 ± 0.071"  # seeds 0 and 1


def test_one_pair_has_no_mean():
    rows = [row("a", arm, seed, 0.1) for arm in ("Adam", "SAM") for seed in range(2)]
    assert {line[1] for line in table(results(rows)).rows} == {"a"}
