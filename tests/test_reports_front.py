"""Smaller models: one setting, the right cost beside the right score, the front by definition, a choice that is checked."""

from __future__ import annotations

import itertools
import random

import pytest

from trainflat import reports
from trainflat.reports.front import example_front, pareto, smaller
from trainflat.reports.front.given_up import best_dense, forgone
from trainflat.reports.front.offers import Offer, offers, setting
from trainflat.reports.rows import results

LATENCY = {("dense", 0.0): 60.0, ("cofi", 0.6): 26.0, ("cofi", 0.95): 5.0, ("narrow", 0.6): 24.0}


def rows(batches=(1, 8), seeds=(0, 1)):
    """A teacher, CoFi at two sizes and a control at one, each scored once a seed and measured at every batch."""
    found = []
    for arm, ahead in (("Adam", 0.0), ("SAM", 0.01)):
        for seed in seeds:
            for (variant, sparsity), latency in LATENCY.items():
                for label in ("60 %", "95 %") if variant == "dense" else (f"{100 * sparsity:g} %",):
                    shared = {
                        "recipe": "made-up", "seed": seed, "task": "sst2", "model": "minilm", "variant": variant,
                        "arm": {"task": "sst2", "sparsity": label, "optimizer": arm}, "sparsity": sparsity,
                    }  # fmt: skip
                    if sparsity:
                        shared |= {
                            "sparsity_layers": sparsity + 0.017,
                            "sparsity_cofi": sparsity,
                            "sparsity_total": 0.3,
                        }
                    key = f"{arm}-{seed}-{variant}-{sparsity}"
                    value = 0.9 + ahead - 0.05 * sparsity - 0.02 * (variant == "narrow") + 0.002 * seed
                    spent = {"seconds": 10.0, "passes": 100}
                    score = {"stage": "train", "kind": "Distill", "metric": "accuracy", "value": value, **spent}
                    found.append({**shared, **score, "key": key, "metrics": {"accuracy": value}})
                    for batch in batches:
                        cost = {
                            "parameters": 20e6, "nonzeros": 20e6, "bytes": 80e6, "multiply_adds": 1e9, "batch": batch,
                            "latency_ms": latency * batch + seed, "latency_low_ms": latency, "latency_high_ms": latency,
                            "runs": 30, "length": 128, "padding": 0.0, "device": "cpu", "threads": 1,
                        }  # fmt: skip
                        at = {"stage": f"cost-{batch}", "kind": "Measure", "key": f"{key}-{batch}"}
                        found.append({**shared, **at, "cost": cost})
    return found


def test_every_score_stands_beside_the_latency_of_its_own_model_at_the_smallest_batch():
    found = offers(rows())
    assert {(o.arm, o.variant, o.sparsity): o.latency for o in found} == {
        (arm, variant, sparsity): latency + 0.5
        for arm in ("Adam", "SAM")
        for (variant, sparsity), latency in LATENCY.items()
    }
    assert all(offer.value.n == 2 for offer in found)
    by_name = {(o.arm, o.variant, o.sparsity): o.value.mean for o in found}
    assert by_name["SAM", "cofi", 0.95] == pytest.approx(0.91 - 0.0475 + 0.001)


def test_the_setting_is_the_one_with_most_models():
    assert setting(rows()) == (1, 128, 1, "cpu")
    more = [row for row in rows() if "cost" not in row or row["cost"]["batch"] == 8 or row["variant"] == "dense"]
    assert setting(more) == (8, 128, 1, "cpu")
    assert setting([row for row in rows() if "cost" not in row]) is None


def test_what_really_went_is_in_the_table_beside_the_target():
    table = smaller.table(results(rows()), "sst2")
    assert table is not None
    line = next(line for line in table.rows if line[:2] == ("cofi 60 %", "Adam"))
    assert line[2:5] == ("61.7 %", "60 %", "30 %")
    assert line[9] == "2.3 ×"
    assert "1 thread, batch of 1 x 128 tokens" in table.title


def test_gates_are_compared_with_a_control_of_their_size_only():
    table = smaller.ways(results(rows()), "sst2")
    assert table is not None
    assert [line[:2] for line in table.rows] == [("cofi − narrow at 60 %", arm) for arm in ("Adam", "SAM")]
    assert all(line[4] == "+2.0" for line in table.rows)


def test_a_sweep_over_sparsities_is_one_task_with_its_teacher_once():
    data = results(rows())
    assert data.tasks == ["sst2"]
    dense = [row for row in data.rows if row["variant"] == "dense" and "value" in row]
    assert len(dense) == 4, "two arms, two seeds; the labels of the sweep don't repeat them"


def test_costs_at_several_batches_are_not_mixed(tmp_path):
    reports.write_all(rows(), {"name": "made-up"}, tmp_path)
    table = (tmp_path / "table.md").read_text().partition("Cost of the models")[2]
    assert "batch of 1 x 128 tokens" in table
    assert "batch of 8 x 128 tokens" in table
    assert "| 26.50 [26.00, 26.00] |" in table
    assert "| 208.50 [26.00, 26.00] |" in table


def made(variant, value, latency, megabytes, arm="SAM", task="t", gone=0.0):
    """An offer with one or several seeds."""
    values = dict(enumerate(value)) if isinstance(value, tuple) else {0: value}
    return Offer(task, arm, variant, 0.0, values, latency, 1e6, megabytes * 1e6, 1e6, {"sparsity_total": gone})


def several(number):
    """A dense model and up to seven others on so coarse a grid that ties are common."""
    draw = random.Random(number)
    coarse = lambda: (draw.randint(80, 90) / 100, draw.randint(1, 6), draw.randint(1, 6))
    more = [
        made(f"cofi {i}", *coarse(), arm=draw.choice(["Adam", "SAM"]), gone=draw.randint(0, 4) / 5)
        for i in range(draw.randint(0, 7))
    ]
    return [made("dense", draw.randint(84, 90) / 100, 5, 5), *more]


HAND = [
    made("dense", 0.92, 40, 90),
    made("int8", 0.915, 20, 25),
    made("small", 0.913, 8, 40, gone=0.5),
    made("tiny", 0.85, 3, 10, gone=0.6),
    made("narrow", 0.84, 9, 40, gone=0.7),
]


@pytest.mark.parametrize("by", pareto.COSTS)
def test_the_front_is_what_no_offer_beats(by):
    for number in range(200):
        listed = several(number)
        cost = {id(offer): pareto.cost(offer, by) for offer in listed}
        beats = lambda a, b, cost=cost: (
            cost[id(a)] <= cost[id(b)]
            and a.value.mean >= b.value.mean
            and (cost[id(a)] < cost[id(b)] or a.value.mean > b.value.mean)
        )
        expected = {id(b) for b in listed if not any(beats(a, b) for a in listed)}
        found = pareto.pareto(listed, by)
        assert {id(offer) for offer in found} == expected
        assert [cost[id(offer)] for offer in found] == sorted(cost[id(offer)] for offer in found)


def test_equal_twins_both_stay_on_the_front_and_what_has_no_metric_does_not():
    twins = [made("a", 0.9, 2, 1), made("b", 0.9, 2, 1)]
    assert pareto.pareto([*twins, made("c", float("nan"), 1, 1)]) == twins
    assert pareto.pareto([]) == []


def test_offers_of_two_tasks_have_no_common_front():
    with pytest.raises(ValueError, match="are of a, b, whose metrics cannot be compared"):
        pareto.pareto([made("dense", 0.9, 1, 1, task="a"), made("dense", 0.9, 1, 1, task="b")])
    with pytest.raises(ValueError, match="by = 'speed' is no cost"):
        pareto.pareto(HAND, "speed")


def test_a_choice_is_what_an_exhaustive_search_finds():
    budgets = list(itertools.product([None, 1.5, 3, 4.5], [None, 2, 4], [None, 0, 1.0, 3.0], pareto.COSTS))
    chosen = 0
    for number, (ms, mb, drop, by) in itertools.product(range(15), budgets):
        listed = several(number)
        best = max(offer.value.mean for offer in listed if offer.variant == "dense")
        fits = [
            offer
            for offer in listed
            if (ms is None or offer.latency <= ms)
            and (mb is None or offer.bytes <= mb * 1e6)
            and (drop is None or round(100 * best) - round(100 * offer.value.mean) <= drop)
        ]
        found, sentence = pareto.choose(listed, ms, mb, drop, by=by)
        assert sentence.endswith(".")
        assert (found is None) == (not fits)
        if found is None:
            assert sentence.startswith("No model")
            continue
        chosen += 1
        assert found in fits
        if drop is not None and ms is None and mb is None:
            assert pareto.cost(found, by) == min(pareto.cost(offer, by) for offer in fits)
        else:
            assert found.value.mean == max(offer.value.mean for offer in fits)
    assert chosen > 300


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "dense"),
        ({"budget_ms": 20}, "int8"),
        ({"budget_ms": 19.9}, "small"),
        ({"budget_mb": 30}, "int8"),
        ({"budget_ms": 10, "budget_mb": 30}, "tiny"),
        ({"max_drop": 1.0}, "small"),
        ({"max_drop": 1.0, "by": "bytes"}, "int8"),
        ({"max_drop": 0}, "dense"),
        ({"max_drop": 1.0, "budget_ms": 30}, "int8"),
        ({"max_drop": 0.7}, "small"),
        ({"max_drop": 0.7, "by": "sparsity"}, "small"),
        ({"max_drop": 10, "by": "sparsity"}, "narrow"),
        ({"max_drop": 0.5, "by": "sparsity"}, "int8"),
    ],
)
def test_a_budget_gets_the_best_and_a_drop_the_cheapest(asked, name):
    assert pareto.choose(HAND, **asked)[0].variant == name


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"budget_ms": 2}, "No model is within 2 ms; the nearest, tiny from SAM, takes 3.00 ms (1.5 × the budget)."),
        (
            {"budget_mb": 9.99},
            "No model is within 9.99 MB; the nearest, tiny from SAM, has 10.0 MB (1.001 × the budget).",
        ),
        (
            {"budget_ms": 2, "max_drop": 1.0},
            "No model is within 2 ms and loses at most 1 point; the nearest, small from SAM, takes 8.00 ms (4.0 × the budget).",
        ),
        (
            {"budget_ms": 4, "max_drop": 1.0},
            "No model within 4 ms loses at most 1 point; the best there, tiny from SAM, loses 7.0, and the nearest that loses "
            "no more, small from SAM, takes 8.00 ms (2.0 × the budget).",
        ),
        (
            {"budget_ms": 10, "budget_mb": 5},
            "No model is within 10 ms and 5 MB; the nearest, tiny from SAM, has 10.0 MB (2.0 × the budget).",
        ),
    ],
)
def test_a_budget_that_nothing_meets_names_the_nearest_and_how_far_it_is(asked, sentence):
    assert pareto.choose(HAND, **asked) == (None, sentence)


def test_a_drop_is_counted_from_the_best_dense_model_whatever_its_arm():
    listed = [made("dense", 0.90, 9, 9, arm="Adam"), made("dense", 0.92, 9, 9), made("cofi", 0.905, 3, 3, arm="Adam")]
    assert best_dense(listed).arm == "SAM"
    assert pareto.choose(listed, max_drop=1.0)[0].variant == "dense"
    assert pareto.choose(listed, max_drop=1.5)[0].variant == "cofi"


def test_a_request_that_makes_no_sense_is_a_sentence():
    with pytest.raises(ValueError, match="nothing to choose from"):
        pareto.choose([])
    with pytest.raises(ValueError, match="a budget must be above 0, got 0 ms"):
        pareto.choose(HAND, budget_ms=0)
    with pytest.raises(ValueError, match="use 'latency', 'bytes' or 'sparsity'"):
        pareto.check_wish(by="speed")
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        pareto.choose(HAND, max_drop=-1)
    with pytest.raises(ValueError, match="none was measured; measure it, or give a budget"):
        pareto.choose(HAND[1:], max_drop=1)


def test_what_is_given_up_is_paired_over_seeds_and_says_gains_as_gains():
    dense, small, better = (
        made("dense", (0.9, 0.92), 40, 90),
        made("a", (0.89, 0.91), 10, 30),
        made("b", (0.91, 0.93), 80, 90),
    )
    assert forgone(small, [dense, small]) == (
        "Beside the best dense model, dense from SAM (91.0 at 40.00 ms and 90.0 MB), it loses 1 point (95 % CI 1.0 to 1.0, "
        "n = 2), is 4.0 × faster and 3.0 × smaller."
    )
    assert "it gains 1 point (95 % CI 1.0 to 1.0, n = 2), is 2.0 × slower and as large." in forgone(
        better, [dense, better]
    )
    assert forgone(dense, [dense]) == "It is the best dense model itself."
    assert forgone(small, [small]) == ""
    assert "(no interval, n = 1)" in forgone(HAND[1], HAND)


def test_the_chosen_offer_is_found_by_all_four_of_its_names():
    listed = example_front.offers()
    chosen = example_front.header()["chosen"]
    found = pareto.marked(listed, chosen)
    assert {name: getattr(found, name) for name in chosen} == chosen
    for name, other in {"task": "x", "arm": "x", "variant": "x", "sparsity": 0.61}.items():
        assert pareto.marked(listed, {**chosen, name: other}) is None
    assert pareto.marked(listed, None) is None


def test_an_offer_says_by_what_it_was_made():
    said = offers([{**row, "command": "do it"} if row["variant"] == "dense" else row for row in example_front.rows()])
    assert said[0].made == {"recipe": "made-up-smaller", "stage": "finetune", "command": "do it"}
    assert said[-1].made["stage"] == "cofi-int8"
    assert said[-1].made["command"].endswith(f"--offer '{said[-1].name}' --out small")


def pruned_rows(measured=False):
    """Two arms, dense and pruned to 50 and 70 %; of the pruned ones only the score, unless that at 50 % is measured as well."""
    kept = []
    for row in rows(batches=(1,)):
        if row["variant"] != "dense":
            continue
        kept.append(row)
        if "value" in row:
            for sparsity in (0.5, 0.7):
                about = {"variant": "pruned", "sparsity": sparsity, "sparsity_total": sparsity / 2, "stage": "pruned"}
                kept.append({**row, **about, "key": f"{row['key']}-pruned", "value": row["value"] - sparsity / 100})
        elif measured:
            cost = {**row["cost"], "latency_ms": 7.0}
            kept.append({**row, "variant": "pruned", "sparsity": 0.5, "key": f"{row['key']}-p", "cost": cost})
    return kept


def test_a_pruned_model_costs_what_its_dense_one_costs_unless_it_was_measured_itself():
    found = {(o.arm, o.variant, o.sparsity): o for o in offers(pruned_rows())}
    assert [key[1:] for key in found if key[0] == "SAM"] == [("dense", 0.0), ("pruned", 0.5), ("pruned", 0.7)]
    for arm in ("Adam", "SAM"):
        costs = {(o.latency, o.bytes, o.parameters) for key, o in found.items() if key[0] == arm}
        assert len(costs) == 1
        assert [found[arm, "pruned", s].gone for s in (0.5, 0.7)] == [0.25, 0.35]
        assert found[arm, "dense", 0.0].gone == 0.0
    measured = {(o.arm, o.variant, o.sparsity): o.latency for o in offers(pruned_rows(measured=True))}
    assert measured["SAM", "pruned", 0.5] == 7.0
    assert measured["SAM", "pruned", 0.7] == measured["SAM", "dense", 0.0] == 60.5


def test_the_most_sparse_is_chosen_by_what_is_gone_of_all_weights_and_it_says_how_much():
    best, said = pareto.choose(offers(pruned_rows()), max_drop=0.6, by="sparsity")
    assert (best.arm, best.variant, best.sparsity) == ("SAM", "pruned", 0.5)
    assert "the most sparse that loses at most 0.6 points (25 % of its weights are zero or cut away)" in said
    assert "is as fast and as large" in said
    assert (
        pareto.choose(offers(pruned_rows()), max_drop=0.6)[0].variant == "dense"
    )  # the same latency, but a better score


def test_the_commands_are_a_table_the_fastest_model_first():
    assert smaller.commands(results(rows()), "sst2") is None
    told = smaller.commands(results(example_front.rows()), "reviews")
    assert told is not None
    assert [line[0] for line in told.rows][-1].startswith("dense")
    assert all(line[-1].endswith(f"--offer '{line[0]}' --out small") for line in told.rows)
    assert len(told.rows) == len(example_front.offers())
    assert "stored and multiplied" in told.note


@pytest.mark.parametrize(
    ("variant", "way", "quantized"),
    [
        ("dense", "dense", False),
        ("pruned", "one-shot", False),
        ("cofi", "cofi", False),
        ("int8 per_channel", "dense", True),
        ("static_int8 per_channel", "dense", True),
        ("cofi, int8 per_channel", "cofi", True),
        ("qat, weight_only 4 group_size 32", "qat", True),
        ("cofi, qat, static_int8 per_channel", "cofi, qat", True),
    ],
)
def test_a_grid_is_no_way_of_its_own_but_a_hollow_mark(variant, way, quantized):
    offer = made(variant, 0.9, 1, 1)
    assert (offer.way, offer.quantized) == (way, quantized)
