"""The front and the mistakes in a page: every point reachable without a script, everything escaped, only where rows know it."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from trainflat import reports
from trainflat.reports import example, folder
from trainflat.reports.drawing import COLOURS
from trainflat.reports.front import example_front, front_figure, front_page, mistakes
from trainflat.reports.front.offers import offers
from trainflat.reports.rows import results

TASK = "reviews"
HOSTILE = "<script>alert(\"x\")</script> & 'q' $x$ \\frac _a"


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects tags and ids."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.tags = [], [], set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html():
    return reports.report(example_front.rows(), example_front.header())


@pytest.fixture(scope="module")
def fronts():
    return front_figure.fronts(results(example_front.rows()), TASK, example_front.header()["chosen"])


def test_every_offer_is_a_radio_button_in_both_panels_and_the_chosen_one_is_entered_first(html):
    buttons = re.findall(r'<input type="radio" name="([^"]*)" aria-label="([^"]*)"( checked)?>', html)
    assert len(buttons) == 2 * len(example_front.offers()) == 44
    assert {name for name, _, _ in buttons} == {"p0-front-latency", "p0-front-bytes"}
    entered = [said for _, said, checked in buttons if checked]
    assert len(entered) == 2
    assert all(said.startswith("cofi 60 %, int8 per channel from SAM. accuracy: 91.") for said in entered)
    assert all("chosen" in said for said in entered)


def test_a_point_names_metric_latency_size_stage_and_command(html):
    tip = re.search(r'<span class="tip" tabindex="-1">.*?cofi 80 % from SAM.*?</code>', html, flags=re.DOTALL)[0]
    text = re.sub(r"<[^>]*>", " ", tip.rpartition('<span class="tip"')[2])
    for part in (
        "90.",
        "± 0.1 (n = 3)",
        "ms, 4.2 × faster",
        "37.0 MB, 2.4 × smaller",
        "stage cofi of made-up-smaller",
        "--offer",
    ):
        assert part in text, part


def test_the_page_with_a_front_has_no_script_no_second_id_and_loads_nothing(html):
    found = Reader(html)
    assert len(found.ids) == len(set(found.ids)) > 100
    assert not found.tags & {"script", "img", "link", "iframe", "object", "embed", "form"}
    assert "http" not in html.replace("http-equiv", "")
    assert not re.search(r" on\w+=", html)


def test_the_buttons_lie_on_the_points_of_the_drawing(fronts):
    for front in fronts:
        drawing, places = front_figure.panel(front, "a")
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing).groups())
        line = re.search(r'<path d="([^"]*)" clip-path[^>]*stroke-opacity: 0.55', drawing, flags=re.DOTALL)[1]
        corners = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
        best = [place for offer, place in zip(front.offers, places, strict=True) if offer in front.best]
        for x, y in best:
            assert min(abs(x * width - a) + abs(y * height - b) for a, b in corners) < 0.01


def test_the_step_line_says_what_is_to_be_had_at_each_cost(fronts):
    drawing, _ = front_figure.panel(fronts[0], "a")
    line = re.search(r'<path d="([^"]*)" clip-path[^>]*stroke-opacity: 0.55', drawing, flags=re.DOTALL)[1]
    corners = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners))  # no slopes
    assert corners == sorted(corners, key=lambda at: (at[0], -at[1]))  # to the right and up


def test_beaten_points_are_paler_unless_chosen():
    alone = {"task": TASK, "arm": "Adam", "variant": "narrow", "sparsity": 0.8}
    pale = [
        front_figure.panel(front_figure.fronts(results(example_front.rows(seeds=[0])), TASK, chosen)[1], "a")[0].count(
            f'style="fill: #d0690f; fill-opacity: {front_figure.PALE}'
        )
        for chosen in (None, alone)
    ]
    assert pale[0] > pale[1] > 0


def test_the_standalone_front_is_the_same_bytes_for_the_same_rows_and_has_both_panels(tmp_path):
    chosen = example_front.header()["chosen"]
    drawing = front_figure.svg(results(example_front.rows()), TASK, chosen)
    texts = [element.text for element in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("chosen") == 2
    assert {"latency, ms", "size, MB", "Adam", "SAM", "cofi", "one-shot", "in int8"} <= {text.strip() for text in texts}
    assert drawing == front_figure.svg(results(example_front.rows()), TASK, chosen)
    with pytest.raises(ValueError, match="there is no front in these rows"):
        front_figure.svg(results([row for row in example_front.rows() if "cost" not in row]), TASK)


def test_without_a_choice_nothing_is_called_chosen_and_without_shrunk_models_there_is_no_front():
    header = {key: value for key, value in example_front.header().items() if key != "chosen"}
    told = front_page.section(results(example_front.rows()), header, TASK, "x")
    assert "hosen" not in told
    assert told.count("<figure") == 2
    assert front_page.section(results(example.rows()), example.header(), "digits", "x") == ""
    assert "mark best" not in reports.report(example.rows(seeds=[0]), example.header())


def test_a_choice_among_models_that_were_not_shrunk_is_shown_too():
    chosen = {"task": "digits", "arm": "SAM", "variant": "int8 per_channel", "sparsity": 0.0}
    told = front_page.section(results(example.rows()), {"chosen": chosen}, "digits", "x")
    assert "<b>Chosen: int8 per channel from SAM.</b> Beside the best dense model" in told
    assert "trainflat run made-up" in re.sub(r"<[^>]*>", "", told)
    for arm, said in (("SAM", "cofi 60 % from SAM"), ("all", "cofi 60 %")):
        header = {"chosen": {**chosen, "arm": arm, "variant": "cofi", "sparsity": 0.6}}
        unknown = front_page.section(results(example.rows()), header, "digits", "x")
        assert f"Chosen: {said}, whose cost was not measured." in unknown


def test_adam_and_sam_are_set_against_each_other_at_each_size():
    told = next(t for t in reports.every(example_front.rows()) if t.title.startswith("SAM − Adam"))
    names = [
        "cofi 60 %",
        "cofi 80 %",
        "cofi 95 %",
        "cofi 60 %, int8 per channel",
        "narrow 80 %",
        "dense",
        "one-shot 50 %",
    ]
    assert set(names) <= {row[0] for row in told.rows}
    assert all(row[-1] in ("better", "worse", "cannot tell") for row in told.rows)


def test_hostile_labels_texts_and_commands_are_only_text():
    evil = {"labels": [HOSTILE, "b"], "counts": [[3, 1], [0, 0]]}
    text = {"text": HOSTILE, "label": HOSTILE, "large": HOSTILE, "small": None, "shift": 0.5}
    rows = [
        {**row, "arm": {"optimizer": HOSTILE}, "stage": HOSTILE, "command": HOSTILE, "task": HOSTILE}
        | ({"confusion": evil, "disagreements": [text]} if "confusion" in row else {})
        for row in example_front.rows(seeds=[0])
        if row["arm"]["optimizer"] == "SAM"
    ]
    html = reports.report(
        rows, {"name": "x", "chosen": {"task": HOSTILE, "arm": HOSTILE, "variant": "cofi", "sparsity": 0.6}}
    )
    assert "script" not in Reader(html).tags
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 60


def test_labels_that_matplotlib_would_read_otherwise_are_shown_as_they_are():
    rows = [{**row, "arm": {"optimizer": f"_$x^2$ {row['arm']['optimizer']}"}} for row in example_front.rows(seeds=[0])]
    drawing = front_figure.svg(results(rows), TASK)
    assert "_$x^2$ SAM" in drawing


def test_confusion_matrices_of_seeds_are_added_and_each_text_stands_once():
    of = [
        row
        for row in example_front.rows()
        if row.get("variant") == "cofi" and row["sparsity"] == 0.6 and "value" in row
    ]
    matrix = lambda a: {"labels": ["n", "p"], "counts": [[a, 1], [2, 3]]}
    texts = [{"text": f"text {i}", "shift": i / 20} for i in range(15)]
    given = [{**row, "confusion": matrix(row["seed"]), "disagreements": texts} for row in of]
    found = mistakes.mistakes(results(given), TASK)
    assert [one.name for one in found] == ["cofi 60 % from Adam", "cofi 60 % from SAM"]
    assert found[0].counts == ((0 + 1 + 2, 3), (6, 9))
    assert [text["text"] for text in found[0].texts] == [f"text {i}" for i in range(14, 4, -1)]
    with pytest.raises(ValueError, match="do not fit together: each needs the labels n, p"):
        mistakes.mistakes(results([{**given[0], "confusion": {"labels": ["n", "p"], "counts": [[1, 2]]}}]), TASK)


def test_mistakes_are_shown_only_where_rows_have_them_and_the_chosen_model_first(html):
    assert mistakes.html(results(example.rows()), "digits") == ""
    heads = re.findall(r'<details class="mistakes"( open)?><summary>Where (.*?) errs', html)
    assert len(heads) == 12
    assert heads[0] == (" open", "cofi 60 %, int8 per channel from SAM")
    assert all(is_open == "" for is_open, _ in heads[1:])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("a b" * 5, "a ba ba…"),
        ("x" * 30, "xxxxxxxxx…"),
        (" one\n\ttwo ", "one two"),
        ("1234567 9 11", "1234567 9…"),
    ],
)
def test_a_long_text_is_cut_at_a_word_with_an_ellipsis(text, shown):
    assert mistakes.cut(text, 10) == shown
    assert len(mistakes.cut("word " * 100_000)) <= mistakes.LONG


def test_a_folder_has_figures_and_tables_and_texts_are_in_its_json_only(tmp_path):
    rows = [row for row in example_front.rows(seeds=[0]) if row["variant"] in ("dense", "cofi", "narrow")]
    written = folder.write_all(rows, example_front.header(), tmp_path)
    assert {tmp_path / "curves" / "reviews-front.svg", tmp_path / "curves" / "reviews-front.png"} <= set(written)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What is kept at which latency" in html
    assert "cofi 95 % from SAM has" in html
    assert "cofi − narrow at 60 %" in (tmp_path / "table.md").read_text(encoding="utf-8")
    csv = (tmp_path / "rows.csv").read_text(encoding="utf-8")
    assert not re.search("charm|confusion|disagreements", csv)
    kept, header = folder.read_back(tmp_path)
    assert kept == results(rows).rows
    assert sum("disagreements" in row for row in kept) == 6
    assert header["chosen"] == example_front.header()["chosen"]


def test_there_is_a_shape_in_the_page_for_every_marker_and_a_marker_for_every_way():
    assert list(front_page.SHAPES) == list(front_figure.MARKERS)
    many = [
        {**row, "variant": row["variant"].replace("cofi", f"cofi{i}"), "key": f"{row['key']}{i}"}
        for i in range(9)
        for row in example_front.rows([0])
    ]
    assert len({offer.way for offer in offers(many)}) == 12
    assert front_page.section(results(many), {}, TASK, "x").count('type="radio"') == 2 * len(offers(many))
    assert len(COLOURS) == 6
