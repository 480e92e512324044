"""The transfer maps: the paper's numbers, their means, ours, the test over seeds, and the drawing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy import stats as scipy_stats

from trainflat.reports.paper import heatmaps, section, transfer
from trainflat.reports.paper.example_paper import TASKS, paper_rows
from trainflat.reports.paper.reference import reference
from trainflat.reports.paper.transfer import cells_of, maps, margins, papers
from trainflat.reports.rows import results

COLUMNS = {  # recomputed from the poster's cells in the specification, two decimals
    "A": [0.04, 0.06, 0.61, -0.01, 1.39, 1.85, 0.00, 0.69],
    "B": [-0.15, 0.01, 0.26, -0.17, 0.67, 1.75, 0.29, -0.63],
    "C": [0.34, 0.10, 0.41, -0.29, -1.75, -2.64, 0.86, 0.51],
    "D": [0.12, 0.04, 0.01, -0.45, -2.45, -2.74, 1.15, -0.81],
}
MEANS = {"A": (0.58, 1.55, 0.44), "B": (0.25, 1.39, 0.09), "C": (-0.31, 0.09, -0.36), "D": (-0.64, -0.07, -0.72)}


def grid(m):
    return np.array([[100 * m.values[s, t] for t in m.targets] for s in m.sources])


@pytest.mark.parametrize("key", "ABCD")
def test_the_papers_map_has_64_cells_whose_rows_average_to_what_is_printed(key):
    m = papers()[key]
    assert len(m.values) == 64
    printed = [100 * m.averages[source] for source in m.sources]
    np.testing.assert_allclose(grid(m).mean(axis=1), printed, atol=0.1 + 1e-9)  # a cell and the average: 0.05 each


@pytest.mark.parametrize("key", "ABCD")
def test_the_papers_column_means_are_those_recomputed(key):
    np.testing.assert_allclose(grid(papers()[key]).mean(axis=0), COLUMNS[key], atol=0.0051)


@pytest.mark.parametrize("key", "ABCD")
def test_all_cells_the_diagonal_and_the_rest_have_the_means_recomputed(key):
    m = papers()[key]
    found = [100 * m.mean(cells) for cells in cells_of(m).values()]
    np.testing.assert_allclose(found, MEANS[key], atol=0.0051)
    values = grid(m)
    off = values[~np.eye(8, dtype=bool)].mean()
    np.testing.assert_allclose(found, [values.mean(), np.diag(values).mean(), off])


def test_the_four_maps_agree_with_one_another():
    """A − B and C − D are the same double difference."""
    a, b, c, d = (grid(papers()[key]) for key in "ABCD")
    np.testing.assert_allclose(a - b, c - d, atol=0.2 + 1e-9)


def test_ours_are_paired_differences_of_the_right_arms():
    rows = paper_rows("fig13-transfer")
    value = {(*(r["arm"][x] for x in ("source", "target", "mask", "final")), r["seed"]): r["value"] for r in rows}
    found = {m.key: m for m in maps(results(rows))}
    for seed in range(3):
        at = lambda mask, final, seed=seed: value["rte", "cola", mask, final, seed]
        assert found["A"].seeds["rte", "cola"][seed] == at("SAM", "SAM") - at("Adam", "SAM")
        assert found["B"].seeds["rte", "cola"][seed] == at("SAM", "Adam") - at("Adam", "Adam")
        assert found["C"].seeds["rte", "cola"][seed] == at("SAM", "SAM") - at("SAM", "Adam")
        assert found["D"].seeds["rte", "cola"][seed] == at("Adam", "SAM") - at("Adam", "Adam")
    assert found["A"].sources == TASKS  # the paper's order
    assert maps(results(reversed(rows)))[0].targets == TASKS


def test_means_of_ours_are_numpys_and_their_interval_is_scipys():
    m = maps(results(paper_rows("fig13-transfer", seeds=range(5))))[0]
    cube = np.array([[[m.seeds[s, t][seed] for t in m.targets] for s in m.sources] for seed in range(5)])
    expected = {
        "all cells": cube.mean(axis=(1, 2)),
        "the diagonal": cube[:, np.arange(4), np.arange(4)].mean(axis=1),
        "off the diagonal": cube[:, ~np.eye(4, dtype=bool)].mean(axis=1),
        "tickets of rte": cube[:, list(m.sources).index("rte")].mean(axis=1),
        "onto cola": cube[:, :, list(m.targets).index("cola")].mean(axis=1),
    }
    groups = {**cells_of(m), **margins(m)}
    for name, by_seed in expected.items():
        d = m.test(groups[name])
        theirs = scipy_stats.ttest_1samp(by_seed, 0).confidence_interval()
        assert d.mean == pytest.approx(by_seed.mean())
        assert (d.low, d.high) == pytest.approx((theirs.low, theirs.high))
        assert m.mean(groups[name]) == pytest.approx(by_seed.mean())
    assert len(groups) == 3 + 4 + 4


def test_a_seed_that_lacks_a_cell_does_not_count_in_its_means():
    rows = [
        r
        for r in paper_rows("fig13-transfer")
        if not (r["seed"] == 2 and r["arm"]["source"] == "rte" and r["task"] == "cola")
    ]
    m = maps(results(rows))[0]
    groups = {**cells_of(m), **margins(m)}
    assert {name: m.test(groups[name]).n for name in ("all cells", "tickets of rte", "onto cola", "onto rte")} == {
        "all cells": 2,
        "tickets of rte": 2,
        "onto cola": 2,
        "onto rte": 3,
    }


def test_one_seed_has_no_interval_and_says_so():
    rows = paper_rows("fig13-transfer", seeds=[0])
    means = heatmaps.heat_tables(results(rows))[1]
    assert {row[4] for row in means.rows} == {"–"}
    assert {row[-1] for row in means.rows} == {"cannot tell"}
    assert "One seed: no interval" in means.note


def test_the_papers_mean_is_given_for_our_tasks_as_well():
    means = {row[0]: row for row in heatmaps.heat_tables(results(paper_rows("fig13-transfer")))[1].rows}
    values = {at: v for at, v in reference().maps[0].values.items() if set(at) <= set(TASKS) and at[0] != at[1]}
    assert means["off the diagonal"][1:3] == ("+0.4", f"{np.mean(list(values.values())):+.1f}")
    assert means["tickets of cola"][1] == "−0.1"  # as printed, though its rounded cells give −0.16


@pytest.mark.parametrize(
    "m", [papers()["C"], maps(results(paper_rows("fig13-transfer")))[0]], ids=["the paper's", "ours"]
)
def test_a_drawing_is_xml_with_every_number_and_two_colours(m):
    root = ET.fromstring(heatmaps.svg(m))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    numbers = [text for text in texts if re.fullmatch(r"−?\d+\.\d", text)]
    shown = [heatmaps.shown(value).lstrip("+") for value in m.values.values()]
    assert len(numbers) == len(m.values) + len(m.sources) + len(m.targets) + 1
    assert set(shown) <= set(numbers)
    drawing = ET.tostring(root, encoding="unicode")
    assert set(re.findall(r"fill: (#\w+)", drawing)) <= {heatmaps.ABOVE, heatmaps.BELOW}
    assert heatmaps.svg(m) == heatmaps.svg(m)


def test_colour_is_symmetric_about_zero_and_stops_at_its_fullest():
    values = {("a", "a"): 0.02, ("a", "b"): -0.02, ("b", "a"): 0.3, ("b", "b"): 0.0}
    drawing = heatmaps.svg(transfer.Map("A", "t", ("a", "b"), ("a", "b"), values, {}))
    cells = re.findall(r"fill: (#\w+); opacity: ([\d.]+)", drawing)
    assert (heatmaps.ABOVE, "0.28") in cells
    assert (heatmaps.BELOW, "0.28") in cells
    assert max(float(alpha) for _, alpha in cells) == heatmaps.STRONGEST


def blend(colour, ground, alpha):
    return [alpha * int(colour[i : i + 2], 16) + (1 - alpha) * int(ground[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(parts):
    linear = [x / 12.92 if (x := p / 255) <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("ground", "ink"), [("#fcfcfb", "#1c1e21"), ("#131518", "#e4e6e9")], ids=["light", "dark"])
@pytest.mark.parametrize("colour", [heatmaps.ABOVE, heatmaps.BELOW])
def test_a_number_is_readable_on_the_fullest_colour(colour, ground, ink):
    lights = sorted(luminance(c) for c in (blend(colour, ground, heatmaps.STRONGEST), blend(ink, ink, 1)))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def test_the_picture_has_ours_and_the_papers_and_needs_a_map(tmp_path):
    path = heatmaps.png(results(paper_rows("fig13-transfer")), tmp_path / "maps.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="a map needs tickets"):
        heatmaps.png(results(paper_rows("table8-int8")), tmp_path / "none.png")


def test_a_stand_ins_map_says_so_and_the_papers_own_does_not():
    ours, theirs = maps(results(paper_rows("fig13-transfer")))[0], papers()["A"]
    assert heatmaps.whose(ours) == "stand-in: MiniLM, data whole, n = 3"
    assert "stand-in" in heatmaps.describe(ours)
    assert heatmaps.kind(ours) == "stand-in"
    assert heatmaps.whose(theirs).startswith("the paper")
    whole = maps(results(paper_rows("fig13-transfer", model="bert-base-uncased")))[0]
    assert heatmaps.whose(whole) == "ours: BERT-base, data whole, n = 3"
    assert all(
        "stand-in" not in said
        for said in section.claims(results(paper_rows("fig13-transfer", model="bert-base-uncased")))
    )


def test_one_partial_task_makes_the_whole_map_one_of_partial_data():
    rows = [{**r, "official": r["task"] != "rte"} for r in paper_rows("fig13-transfer", model="bert-base-uncased")]
    assert maps(results(rows))[0].origin.official is False


def test_tasks_that_the_paper_lacks_have_maps_without_its_numbers():
    rows = []
    for r in paper_rows("fig13-transfer"):
        arm = {**r["arm"], "source": f"my-{r['arm']['source']}", "target": f"my-{r['task']}"}
        rows.append({**r, "task": f"my-{r['task']}", "arm": arm})
    means = heatmaps.heat_tables(results(rows))[1]
    assert {row[2] for row in means.rows} == {"–"}
    assert "which has none of our tasks" in section.claims(results(rows))[0]


def test_mask_and_final_are_compared_together_and_the_source_is_in_the_heading():
    data = results(paper_rows("fig13-transfer"))
    assert data.axes == ("mask", "final")
    assert data.arms == ["Adam, Adam", "Adam, SAM", "SAM, Adam", "SAM, SAM"]
    assert len(data.tasks) == 16
    assert "rte, ticket of mrpc" in data.tasks
    assert len(data.values("rte, ticket of mrpc", "SAM, Adam", "ticket", 0.7)) == 3
    tickets = results(paper_rows("table6-tickets"))
    assert (tickets.tasks, tickets.arms[:2]) == (list(TASKS), ["random, Adam", "random, SAM"])


def test_the_search_for_tickets_stands_under_its_own_task_once():
    arm = {"mask": "Adam", "final": "Adam", "source": "mrpc"}
    found = [
        {
            "task": "mrpc",
            "variant": "imp",
            "sparsity": 0.7,
            "seed": 0,
            "key": "k",
            "value": 0.8,
            "arm": {**arm, "target": t},
        }
        for t in TASKS
    ]
    data = results([*paper_rows("fig13-transfer"), *found])
    assert data.tasks.count("mrpc, ticket of mrpc") == 1
    assert len(data.tasks) == 16
    assert data.values("mrpc, ticket of mrpc", "Adam, Adam", "imp", 0.7) == {0: 0.8}
