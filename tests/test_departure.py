"""A run that was asked for something else than its recipe says so, and none of its numbers counts as the paper's."""

from __future__ import annotations

import json
import re
import sys

import pytest

from trainflat import cli
from trainflat.experiments import plan as planning
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store
from trainflat.reports.departure import departure
from trainflat.reports.paper import printed_tables, section, study
from trainflat.reports.paper.example_paper import paper_header, paper_rows
from trainflat.reports.rows import results

RECIPE = """
name = "trial"
seeds = [0, 1]

[defaults]
task = "mylab:blobs"

[stage.train]
kind = "Finetune"
epochs = 2

[stage.oneshot]
kind = "OneShot"
model = "train"
sparsities = [0.5]

[sweep.optimizer]
Adam = { gradient = "plain" }
SAM = { gradient = { name = "sam", rho = 0.05 } }

[smoke]
steps = 3
seeds = [0]
"""


@pytest.fixture
def recipe(tmp_path, plugins):
    path = tmp_path / "trial.toml"
    path.write_text(RECIPE)
    return read(str(path))


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ({"train.epochs": 3}, ["--set train.epochs=3"]),
        ({"train.steps": 5, "*.keep": "best"}, ["--set train.steps=5", '--set *.keep="best"']),
        ({"*.optimizer": {"name": "Adam", "lr": 1e-3}}, ['--set *.optimizer={ name = "Adam", lr = 0.001 }']),
        ({"oneshot.sparsities": [0.5, 0.9]}, ["--set oneshot.sparsities=[0.5, 0.9]"]),
        ({"sweep.optimizer": {"SAM": {"gradient": {"name": "sam", "rho": 0.1}}}},
         ['--set sweep.optimizer={ SAM = { gradient = { name = "sam", rho = 0.1 } } }']),
        ({"sweep.train.epochs": [2]}, ["--set sweep.train.epochs=[2]"]),
    ],
)  # fmt: skip
def test_an_override_that_reaches_a_setting_is_a_change(recipe, overrides, changed):
    assert planning.plan(recipe, overrides=overrides).changed == changed


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"train.epochs": 2},
        {"*.cpus": 2, "train.memory": 4},
        {"oneshot.sparsities": [0.5]},
        {"sweep.optimizer": {"SAM": {"gradient": {"name": "sam", "rho": 0.05}}}},
    ],
)
def test_what_repeats_the_recipe_leaves_points_out_or_asks_for_a_machine_is_none(recipe, overrides):
    planned = planning.plan(recipe, overrides=overrides, seeds=[0, 1, 2])
    assert planned.changed == []
    assert {job.key for job in planned.jobs} <= {job.key for job in planning.plan(recipe, seeds=[0, 1, 2]).jobs}


@pytest.mark.parametrize("name", ["paper/table1-imp", "paper/table8-int8", "paper/fig13-transfer"])
def test_the_small_size_of_a_paper_recipe_is_a_change(name):
    assert planning.plan(read(name), smoke=True).changed == ["--smoke"]


SETS = ["--set imp.epochs=3"]
SMOKE = ["--smoke"]


def told(tmp_path, recipe="table8-int8", **about):
    """A store's run of the paper's own model on whole data: its rows and its header."""
    kept, points, inside = Store(tmp_path / "store"), {}, {}
    for row in paper_rows(recipe, model="bert-base-uncased", tasks=["rte", "mrpc"]):
        points[row["key"]] = {name: row[name] for name in ("stage", "seed", "arm", "key")}
        own = {name: value for name, value in row.items() if name not in (*points[row["key"]], "recipe", "kind")}
        inside.setdefault(row["key"], []).append(own)
    for key, rows in inside.items():
        kept.finish(key, {"kind": "Finetune", "rows": rows})
    kept.write_run(f"paper/{recipe}", {**paper_header(recipe), **about, "points": list(points.values())})
    document = kept.read_run(f"paper/{recipe}")
    return kept.rows(document), {name: value for name, value in document.items() if name != "points"}


@pytest.mark.parametrize("recipe", ["table8-int8", "fig13-transfer", "table1-imp", "tables3-4-sharpness"])
@pytest.mark.parametrize("changed", [SETS, SMOKE, [*SETS, *SMOKE]])
def test_rows_of_a_changed_run_are_never_the_papers(tmp_path, recipe, changed):
    rows, _ = told(tmp_path, recipe, changed=changed)
    assert all(row["changed"] == ", ".join(changed) for row in rows)
    named = f"stand-in (BERT-base, data whole, {', '.join(changed)})"
    assert all(named in said for said in section.claims(results(rows)))
    assert section.claims(results(rows))
    for table in section.tables(results(rows)):
        assert "stand-in" in table.kind.split()
        assert ", ".join(changed) in table.title
    for table in printed_tables.besides(results(rows)):
        assert {row[1] for row in table.rows} & {"ours", "ours − paper"} == set()
        assert "values beside" not in table.title or "Not a replication" in table.note


@pytest.mark.parametrize("about", [{}, {"changed": [], "seeds": {"run": [0, 1, 2], "recipe": [0, 1, 2]}}])
@pytest.mark.parametrize("recipe", ["table8-int8", "fig13-transfer"])
def test_rows_of_an_unchanged_run_are_the_papers(tmp_path, recipe, about):
    rows, header = told(tmp_path, recipe, **about)
    assert all("changed" not in row for row in rows)
    assert not any("stand-in" in said for said in section.claims(results(rows)))
    assert departure(header) == ""
    assert "departs" not in study.report([study.Run(rows, header)], "paper")


def test_other_seeds_are_told_and_are_as_good_a_sample(tmp_path):
    rows, header = told(tmp_path, changed=[], seeds={"run": [0, 1, 2], "recipe": [0, 1]})
    assert departure(header) == "This departs from the recipe: it was run on seeds 0, 1, 2 instead of 0, 1."
    assert not any("stand-in" in said for said in section.claims(results(rows)))
    assert departure({"seeds": {"run": [1, 0], "recipe": [0, 1]}}) == ""


def test_a_studys_page_says_which_of_its_runs_departs(tmp_path):
    rows, header = told(tmp_path, changed=[*SETS, "--set '<b>'=1"], seeds={"run": [0], "recipe": [0]})
    run = study.Run(rows, header)
    said = "This departs from the recipe: it was run with --set imp.epochs=3 and --set '<b>'=1."
    assert departure(header) == said
    page = study.report([run], "paper")
    assert "it was run with --set imp.epochs=3 and --set &#x27;&lt;b&gt;&#x27;=1.</p>" in page
    assert "<b>'=1" not in page
    assert {row[0]: row[2] for row in study.overview([run]).rows}["Table 8"] == "partly, changed"
    study.write_all([run], "paper", tmp_path / "paper")
    assert f"- paper/table8-int8: {said}" in (tmp_path / "paper" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ""),
        (["--set", "*.cpus=1"], ""),
        (["--set", "train.epochs=1"], "it was run with --set train.epochs=1."),
        (["--smoke"], "it was run with --smoke."),
        (["--smoke", "--seeds", "1", "--set", "train.steps=2"],
         "it was run with --set train.steps=2 and --smoke, on seeds 1 instead of 0."),
        (["--seeds", "0"], "it was run on seeds 0 instead of 0, 1."),
    ],
)  # fmt: skip
def test_the_report_of_a_run_says_what_was_asked(recipe, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trainflat", "run", "trial.toml", "--threads", "1", *options, "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"changed" in row for row in rows} == {"with" in said}
    folder = tmp_path / ".trainflat" / "reports" / "trial"
    for name in ("report.html", "table.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert re.findall(r"This departs from the recipe: (.*?\.)(?:</p>|\n)", text) == ([said] if said else [])
