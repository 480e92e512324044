"""Smaller models in a report: one setting, the right cost beside the right score, and sizes that are not hidden."""

from __future__ import annotations

import pytest

from trainflat.reports import front, page
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
    found = front.offers(rows())
    assert {(o.arm, o.variant, o.sparsity): o.latency for o in found} == {
        (arm, variant, sparsity): latency + 0.5
        for arm in ("Adam", "SAM")
        for (variant, sparsity), latency in LATENCY.items()
    }
    assert all(offer.value.n == 2 for offer in found)
    by_name = {(o.arm, o.variant, o.sparsity): o.value.mean for o in found}
    assert by_name["SAM", "cofi", 0.95] == pytest.approx(0.91 - 0.0475 + 0.001)


def test_the_setting_is_the_one_with_most_models():
    assert front.setting(rows()) == (1, 128, 1, "cpu")
    more = [row for row in rows() if "cost" not in row or row["cost"]["batch"] == 8 or row["variant"] == "dense"]
    assert front.setting(more) == (8, 128, 1, "cpu")
    assert front.setting([row for row in rows() if "cost" not in row]) is None


def test_what_really_went_is_in_the_table_beside_the_target():
    table = front.table(rows(), "sst2")
    assert table is not None
    line = next(line for line in table.rows if line[:2] == ("cofi 60 %", "Adam"))
    assert line[2:5] == ("61.7 %", "60 %", "30 %")
    assert line[9] == "2.3 ×"
    assert "1 thread, batch of 1 x 128 tokens" in table.title


def test_gates_are_compared_with_a_control_of_their_size_only():
    table = front.ways(rows(), "sst2")
    assert table is not None
    assert [line[:2] for line in table.rows] == [("cofi − narrow at 60 %", arm) for arm in ("Adam", "SAM")]
    assert all(line[4] == "+2.0" for line in table.rows)


def test_a_sweep_over_sparsities_is_one_task_with_its_teacher_once():
    data = results(rows())
    assert data.tasks == ["sst2"]
    dense = [row for row in data.rows if row["variant"] == "dense" and "value" in row]
    assert len(dense) == 4, "two arms, two seeds; the labels of the sweep don't repeat them"


def test_the_report_shows_figure_and_tables(tmp_path):
    written = page.write_all(rows(), {"name": "made-up", "claim": "Smaller?"}, tmp_path)
    assert {tmp_path / "curves" / "sst2-front.svg", tmp_path / "curves" / "sst2-front.png"} <= set(written)
    html = (tmp_path / "report.html").read_text()
    assert "Smaller models: what is kept at which latency" in html
    assert "cofi 95 % from SAM has" in html
    assert "cofi − narrow at 60 %" in (tmp_path / "table.md").read_text()


def test_costs_at_several_batches_are_not_mixed(tmp_path):
    page.write_all(rows(), {"name": "made-up"}, tmp_path)
    table = (tmp_path / "table.md").read_text().partition("Cost of the models")[2]
    assert "batch of 1 x 128 tokens" in table
    assert "batch of 8 x 128 tokens" in table
    assert "| 26.50 [26.00, 26.00] |" in table
    assert "| 208.50 [26.00, 26.00] |" in table
