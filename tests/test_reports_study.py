"""One page of a whole study: what it says has been run, and that it needs nothing but itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from trainflat import reports
from trainflat.experiments.store import Store
from trainflat.reports.paper import study
from trainflat.reports.paper.example_paper import TASKS, paper_header, paper_rows

RECIPES = ("table8-int8", "fig13-transfer", "table1-imp", "table6-tickets", "tables3-4-sharpness")
VOID = {"meta", "path", "use", "br", "img", "link", "input", "hr"}


def run(recipe, *, header=(), **options):
    return study.Run(paper_rows(recipe, **options), {**paper_header(recipe), **dict(header)})


@pytest.fixture(scope="module")
def runs():
    return [run(recipe, tasks=("rte", "mrpc") if recipe != "table6-tickets" else TASKS) for recipe in RECIPES]


@pytest.fixture(scope="module")
def page(runs):
    return study.report(runs, "paper")


def state(runs):
    return {row[0]: row[2:] for row in study.overview(runs).rows}


def test_every_table_and_figure_has_a_line_whether_run_or_not(runs):
    lines = state(runs)
    tables = [f"Table {i}" for i in range(1, 9)]
    assert sorted(name for name in lines if name.startswith("Table")) == tables
    assert len(lines) == 8 + 1 + 7
    assert lines["Table 2"] == ("not run", "0 of 16", "–", "–", "–", "paper/table2-cofi")
    assert lines["Table 5"] == ("partly", "16 of 72", "0, 1, 2", "MiniLM (stand-in)", "whole", "paper/table1-imp")
    assert lines["Figures 4 and 13"][1] == "16 of 256"
    assert lines["Figure 16"][0] == "no recipe"


def test_a_run_is_called_partly_run_or_smoke_as_it_is():
    whole = ["rte", "mrpc", "stsb", "cola"]
    assert state([run("table6-tickets", tasks=whole)])["Table 6"][0] == "partly"
    begun = run("table6-tickets", header={"stages": {"done": 3, "of": 24}})
    assert state([begun])["Table 6"][0] == "partly: 3 of 24 stages"
    assert state([run("table6-tickets", header={"smoke": True})])["Table 6"][0] == "smoke only"
    others = [{**row, "task": "digits"} for row in paper_rows("table6-tickets")]
    assert state([study.Run(others, paper_header("table6-tickets"))])["Table 6"][0] == "run on other tasks"
    assert state([study.Run([], {**paper_header("table6-tickets"), "stages": {"done": 0, "of": 9}})])["Table 6"][
        :2
    ] == (
        "partly: 0 of 9 stages",
        "0 of 24",
    )


def test_all_numbers_of_the_papers_model_are_a_run():
    rows = [
        {"task": cell.task, "variant": "ticket", "sparsity": cell.sparsity, "seed": 0, "arm": dict(cell.labels), "key": str(at),
         "model": "bert-base-uncased", "official": True, "metrics": {"accuracy": 0.5}}
        for at, cell in next(t for t in study.reference().tables if t.key == "table6").cells.items()
    ]  # fmt: skip
    line = state([study.Run(rows, {"name": "paper/table6-tickets"})])["Table 6"]
    assert line == (
        "run",
        "24 of 24",
        "0",
        "bert-base-uncased".replace("bert-base-uncased", "BERT-base"),
        "whole",
        "paper/table6-tickets",
    )


def test_a_smoke_run_says_nothing_about_the_paper():
    smoke = run("table8-int8", header={"smoke": True})
    assert study.said(smoke, [smoke]) == []
    assert study.summary([smoke]) == []
    assert "A smoke run" in study.report([smoke], "paper")


def test_a_table_that_two_runs_share_is_told_once():
    rows = paper_rows("table1-imp", tasks=["rte"], seeds=[0])
    both = [study.Run(rows, {"name": f"paper/{name}"}) for name in ("table1-imp", "fig2-curves")]
    assert study.report(both, "paper").count("Table 5, values beside") == 2 * 1  # the caption and its label
    assert study.said(both[1], both) == []


def test_what_we_see_is_one_table_for_ours_and_one_for_stand_ins(runs):
    [stand_in] = study.summary(runs)
    assert stand_in.kind == "dense stand-in"
    assert {row[-1] for row in stand_in.rows} <= {
        "seen here",
        "opposite here",
        "cannot tell",
        "none in the paper",
        "–",
    }
    own = run("table8-int8", model="bert-base-uncased")
    ours, other = study.summary([own, run("fig13-transfer")])
    assert (ours.kind, other.kind) == ("dense", "dense stand-in")
    assert [row[0] for row in stand_in.rows][:2] == ["Table 1", "Table 1"]  # in the paper's order


class Parsed(HTMLParser):
    """Tags that are opened and not closed, ids, and everything that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loads, self.links, self.wrong = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [about["id"]] if "id" in about else []
        self.links += [about["href"]] if tag == "a" else []
        self.loads += [value for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.loads += [value for name, value in attrs if name == "href" and tag != "a" and not value.startswith("#")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_the_page_is_well_formed_and_loads_nothing(page):
    parsed = Parsed()
    parsed.feed(page)
    assert parsed.wrong == parsed.open == parsed.loads == []
    assert len(parsed.ids) == len(set(parsed.ids)) > 100
    assert {link.removeprefix("#") for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "default-src 'none'" in page


def test_the_page_has_every_runs_comparison_figures_and_findings(page):
    for recipe in RECIPES:
        assert f"<h2>paper/{recipe}</h2>" in page
    assert page.count('class="panels maps"') == 4
    assert page.count("<summary>All findings of this run</summary>") == 4  # sharpness alone has no metric to compare
    assert "epsilon = 0" in page


def test_a_hostile_header_is_only_text():
    hostile = "<script>alert(1)</script>"
    made = study.Run(
        paper_rows("table8-int8"), {"name": f"paper/table8-int8{hostile}", "claim": hostile, "command": hostile}
    )
    assert "<script" not in study.report([made], hostile)


def test_the_same_runs_give_the_same_bytes():
    assert study.report([run("fig13-transfer", tasks=["rte"])], "p") == study.report(
        [run("fig13-transfer", tasks=["rte"])], "p"
    )


def test_nothing_run_is_a_sentence():
    with pytest.raises(
        ValueError, match="nothing of paper has been run yet; see what there is with: trainflat plan paper"
    ):
        study.report([], "paper")


def test_what_was_written_is_read_back_and_written_again(tmp_path):
    runs = [run("table8-int8"), run("table6-tickets", tasks=["rte"])]
    written = study.write_all(runs, "paper", tmp_path / "paper")
    assert written[0] == tmp_path / "paper" / "report.html"
    assert all(path.exists() for path in written)
    first = written[0].read_bytes()
    again = study.write_all(study.read_back(tmp_path / "paper"), "paper", tmp_path / "again")
    assert again[0].read_bytes() == first
    assert 'href="table8-int8/report.html"' in first.decode()
    assert "**What of the paper has been run" in (tmp_path / "paper" / "table.md").read_text(encoding="utf-8")
    assert study.read_back(tmp_path / "paper" / "table8-int8") == []


def test_the_report_of_one_run_stands_beside_the_paper_too(tmp_path):
    rows, header = paper_rows("fig13-transfer", tasks=["rte", "cola"], seeds=[0]), paper_header("fig13-transfer")
    written = reports.write_all(rows, header, tmp_path)
    assert tmp_path / "maps.png" in written
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Beside the paper</h2>" in page
    assert page.count('class="panels maps"') == 4
    assert "tested means" in (tmp_path / "table.md").read_text(encoding="utf-8")
    plain = reports.report([{**row, "recipe": "mine"} for row in paper_rows("table8-int8")], {"name": "mine"})
    assert "Beside the paper" not in plain


@pytest.fixture
def store(tmp_path):
    """A store with two runs of the paper, one of them unfinished."""
    kept = Store(tmp_path / "store")
    for recipe in ("table8-int8", "table6-tickets"):
        points = []
        for row in paper_rows(recipe, tasks=["rte"], seeds=[0, 1]):
            about = {name: row[name] for name in ("stage", "seed", "arm", "key")}
            points.append(about)
            inside = {name: value for name, value in row.items() if name not in (*about, "recipe", "kind")}
            kept.finish(row["key"], {"kind": row["kind"], "rows": [inside]})
        if recipe == "table6-tickets":
            points.append({**points[-1], "key": "finetune-not-yet"})
        kept.write_run(f"paper/{recipe}", {**paper_header(recipe), "points": points})
    return kept


def trainflat(*words):
    done = subprocess.run(
        [sys.executable, "-m", "trainflat", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_name_with_a_slash_is_a_run_like_any_other(store):
    assert store.runs() == ["paper/table6-tickets", "paper/table8-int8"]
    assert store.read_run("paper/table8-int8")["name"] == "paper/table8-int8"
    assert store.stages(store.read_run("paper/table6-tickets")) == {"done": 12, "of": 13}


def test_the_command_writes_one_page_of_a_group(store):
    told = json.loads(trainflat("report", "paper", "--store", store.root, "--json"))
    lines = {line["paper"]: line for line in told["overview"]}
    assert lines["Table 6"]["state"] == "partly: 12 of 13 stages"
    assert lines["Table 8"]["numbers"] == "4 of 36"
    folder = store.root / "reports" / "paper"
    assert told["report"] == str(folder / "report.html")
    assert {path.name for path in folder.iterdir()} == {"report.html", "table.md", "table6-tickets", "table8-int8"}
    page = (folder / "report.html").read_bytes()
    assert "Report:" in trainflat("report", folder)
    assert (folder / "report.html").read_bytes() == page
