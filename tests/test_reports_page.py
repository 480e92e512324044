"""Curves and the page: well formed, self-contained, escaped, the same bytes for the same rows."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from trainflat import reports
from trainflat.reports import curves, example, files
from trainflat.reports.drawing import COLOURS, INK, MARKERS
from trainflat.reports.rows import results

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert(\"x\")</script> & 'q' $x$ \\frac _a"


PARTS = [
    "made-up",
    "Sharpness-aware",
    "trainflat run made-up --seeds 0-2",
    "2026-01-02",
    "2 min 31 s",
    "vit-small",
    "Made-up numbers",
    "torch 2.13.0",
    "0123456789ab",
    'href="rows.csv"',
    "prefers-color-scheme: dark",
    'name="viewport"',
    "cannot tell",
    "no correction for multiplicity",
    "neither smaller on disk nor faster",
]


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects ids and whatever would load something."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loads, self.tags, self.targets = [], [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def note(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "data", "poster", "action") or (name.endswith("href") and tag != "a"):
                self.loads.append(value)
            if name.endswith("href"):
                self.targets.append(value)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page():
    return reports.report(example.rows(), example.header(), beside=["rows.csv"])


def test_the_page_is_well_formed_and_no_id_stands_twice(page):
    found = read(page)
    assert len(found.ids) == len(set(found.ids)) > 20
    inside = {target[1:] for target in found.targets if target.startswith("#")}
    assert inside <= set(found.ids)


def test_the_page_loads_nothing(page):
    found = read(page)
    assert "script" not in found.tags
    assert not found.tags & {"img", "link", "iframe", "object", "embed", "base"}
    assert all(target.startswith("#") for target in found.loads)
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_the_page_has_all_that_a_reader_needs(page):
    for text in PARTS:
        assert text in page, text
    assert page.count('<div role="img" aria-label="accuracy of ') == 4
    assert page.count("<h1>") == 1
    assert page.count('<figure class="table') == 14


def test_the_same_rows_give_the_same_bytes(page, tmp_path):
    drawing = curves.svg(example.rows(), "digits", "pruned", name="p0-0")
    assert drawing in page
    only = [("digits", "pruned")]
    first, second = (
        reports.png(example.rows(), tmp_path / name, only=only).read_bytes() for name in ("a.png", "b.png")
    )
    assert first == second


def test_labels_are_escaped_everywhere():
    rows = [
        {
            **row,
            "task": HOSTILE,
            "metric": HOSTILE,
            "model": HOSTILE,
            "note": HOSTILE,
            "arm": {"optimizer": HOSTILE + row["arm"]["optimizer"]},
        }
        for row in example.rows(seeds=[0, 1])
        if row["task"] == "digits"
    ]
    header = {
        "name": HOSTILE,
        "claim": HOSTILE,
        "command": HOSTILE,
        "created": HOSTILE,
        "environment": {HOSTILE: HOSTILE},
    }
    page = reports.report(rows, header, beside=[HOSTILE])
    assert "script" not in read(page).tags
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20


def test_a_header_that_knows_nothing_is_enough_and_one_row_too():
    row = {"task": "t", "variant": "dense", "seed": 0, "arm": {}, "value": 0.5, "metric": "accuracy"}
    page = reports.report([row], {})
    assert "Dense: all 50.0." in page
    assert "<svg" not in page
    read(page)


def test_a_claims_lines_become_paragraphs():
    page = reports.report(example.rows(seeds=[0])[:1], {"claim": "One two\nthree.\n\nMore.\nCost: 2 min\n- item"})
    asked = reports.report(example.rows(seeds=[0])[:1], {"claim": "Is it?\nWe tried\nit."})
    assert '<p class="claim">Is it?</p><p>We tried it.</p>' in asked
    for paragraph in ['<p class="claim">One two three.</p>', "<p>More.</p>", "<p>Cost: 2 min</p>", "<p>- item</p>"]:
        assert paragraph in page


def test_no_rows_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="there are no rows to report"):
        reports.write_all([], example.header(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = files.write(tmp_path / "report.html", "old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == "old"


def test_write_all_leaves_page_tables_rows_and_curves(tmp_path):
    rows = [row for row in example.rows(seeds=[0]) if row["task"] == "digits"]
    written = reports.write_all(rows, example.header(), tmp_path)
    pictures = [f"curves/digits-{variant}.{kind}" for variant in ("pruned", "imp") for kind in ("svg", "png")]
    names = ["report.html", "table.md", "rows.csv", "rows.json", "run.json", *pictures]
    assert [path.relative_to(tmp_path).as_posix() for path in written] == names
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == rows
    assert "- digits: At 60 % one-shot sparsity SAM keeps" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_standalone_curve_is_xml_with_every_arm_in_its_own_colour():
    root = ET.fromstring(curves.svg(example.rows(), "digits", "imp"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Adam", "SAM", "accuracy, points"} <= set(texts)
    drawing = ET.tostring(root, encoding="unicode")
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawing)) == set(COLOURS[:2])
    assert INK not in drawing


def test_a_curve_goes_through_the_means():
    rows = [
        {
            "task": "t",
            "variant": "pruned",
            "seed": seed,
            "arm": {"optimizer": "Adam"},
            "sparsity": s,
            "value": v + seed / 10,
            "metric": "m",
        }
        for s, v in ((0.0, 0.5), (0.5, 0.7), (0.9, 0.3))
        for seed in (0, 1)
    ]
    drawing = curves.svg(rows, "t", "pruned")
    line = re.search(r'<path d="([^"]*)" clip-path[^>]*stroke: #d0690f; stroke-width: 1.7', drawing, flags=re.DOTALL)
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[ML] ([\d. ]+)", line[1])]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(5 / 9, abs=1e-4)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(-1, abs=1e-4)  # up by 20 points, down by as many


def test_the_picture_in_words_has_the_ends_of_every_curve():
    words = curves.describe(results(example.rows()), "digits", "pruned")
    assert re.fullmatch(
        r"accuracy of digits against sparsity, one-shot: Adam has \d\d\.\d at 10 % and .* at 90 %; SAM has .*\.", words
    )


def test_labels_that_matplotlib_would_read_otherwise_are_shown_as_they_are():
    rows = [{**row, "arm": {"optimizer": f"_$x^2$ 学习 {row['arm']['optimizer']}"}} for row in example.rows(seeds=[0])]
    drawing = curves.svg(rows, "digits", "pruned")
    assert "_$x^2$ 学习 SAM" in drawing


def test_the_page_and_the_file_are_of_one_drawing(tmp_path, monkeypatch):
    drawn, plain = [], curves.plain
    monkeypatch.setattr(curves, "plain", lambda figure: (drawn.append(figure), plain(figure))[1])
    reports.write_all(example.rows(), example.header(), tmp_path)
    assert len(drawn) == len(curves.panels(results(example.rows()))) == len(list((tmp_path / "curves").glob("*-*.svg")))


def test_nothing_to_draw_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no curve in these rows"):
        reports.png([row for row in example.rows() if row["variant"] == "dense"], tmp_path / "a.png")


def test_eight_arms_are_eight_different_lines():
    looks = {(COLOURS[i % 6], curves.DASHES[i // 6 % 3]) for i in range(8)}
    assert len(looks) == 8
    rows = [
        {**row, "arm": {"optimizer": f"{row['arm']['optimizer']} {i}"}}
        for i in range(4)
        for row in example.rows(seeds=[0])
    ]
    drawing = curves.svg(rows, "digits", "pruned")
    assert drawing.count("stroke-dasharray: 6.29") == 4  # arms 7 and 8, each in the panel and in its legend


def test_the_number_of_colours_is_the_number_of_markers():
    assert len(COLOURS) == len(MARKERS) == len(set(MARKERS))


def test_a_folder_of_results_makes_its_report_again(tmp_path):
    from typer.testing import CliRunner

    from trainflat.cli import app

    reports.write_all(example.rows(), example.header(), tmp_path / "first")
    before = {path.name: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert len(before) > 5
    for path in (tmp_path / "first").rglob("*"):
        if path.is_file() and path.name not in ("rows.json", "run.json"):
            path.unlink()
    answer = CliRunner().invoke(app, ["report", str(tmp_path / "first")])
    assert answer.exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("name", "content"), [("run.json", None), ("rows.json", "["), ("rows.json", "{}")])
def test_a_damaged_folder_of_results_is_told(tmp_path, name, content):
    reports.write_all(example.rows(), example.header(), tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"rows\.json"):
        reports.read_back(tmp_path)


def test_a_value_that_is_no_number_is_still_one_when_a_folder_is_read_back(tmp_path):
    rows = [{**row, "value": math.nan} if row["seed"] == 0 and "value" in row else row for row in example.rows()]
    reports.write_all(rows, example.header(), tmp_path)
    told = (tmp_path / "table.md").read_text()
    assert "nan" in told
    back, header = reports.read_back(tmp_path)
    assert [row for row in back if "value" not in row] == [row for row in rows if "value" not in row]
    assert (
        reports.texts_of(back, header)["table.md"] == told
    )  # the seed is not dropped: n stays, and the mean is no number
