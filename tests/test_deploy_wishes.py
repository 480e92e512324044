"""What a search is asked for: sparsity, one of its models by name, several seeds; and the command of each model makes it."""

from __future__ import annotations

import base64
import inspect
import json
import math
import os
import re
import shlex
import shutil
import sys
import tomllib
from html import unescape
from html.parser import HTMLParser
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest
import reviews
import tinybert
import torch

from trainflat import cli, compress_text, deploy, flat, hf
from trainflat.cli.compress import compress as command_line
from trainflat.cli.rules import parse_rules
from trainflat.deploy import command
from trainflat.deploy.errors import mistakes
from trainflat.deploy.guess import beware
from trainflat.experiments import runner, trials
from trainflat.experiments.flat_rules import called
from trainflat.experiments.resolve import Spec, build
from trainflat.experiments.trials import Trials
from trainflat.new_folder import check_place
from trainflat.reports.front.offers import Offer

pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")

TEXTS = ["a film so great w1", "so film a dull w2", "a a so lovely w3"]
QUICK = {"epochs": 2.0, "lr": 3e-3, "gradient": "sam", "batch_size": 16, "max_length": 16, "quiet": True}


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """A table of two hundred reviews that one word decides, a small BERT, and a store."""
    model = str(tinybert.checkpoint(tmp_path_factory.mktemp("tiny")))
    return SimpleNamespace(
        table=reviews.write(tmp_path_factory.mktemp("data")), model=model, store=tmp_path_factory.mktemp("store")
    )


@pytest.fixture(autouse=True, scope="module")
def _few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "GATE_STEPS", 30)
        yield


@pytest.fixture
def ran(monkeypatch):
    """The names of the stages that were computed, not found."""
    names, original = [], runner._compute
    monkeypatch.setattr(runner, "_compute", lambda job, *rest: (names.append(job.name), original(job, *rest))[1])
    return names


def search(at, **more):
    wish = {"text": "review", "label": "verdict", "model": at.model, "store": at.store, "sizes": (0.5,)}
    return compress_text(at.table, **{**wish, **QUICK, **more})


def call(monkeypatch, *words):
    """The command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [*words])
    try:
        cli.main()
        return 0
    except SystemExit as ended:
        return ended.code


# --- sparsity -------------------------------------------------------------------------------------------------------


def test_the_most_sparse_within_the_drop_is_pruned_or_shrunk_and_says_that_it_is_no_faster(at):
    found = search(at, by="sparsity", max_drop=100.0)
    assert {offer.variant for offer in found.offers} >= {"dense", "pruned", "int8 per_channel", "cofi"}
    assert found.best.gone == max(offer.gone for offer in found.offers) > 0.3
    assert "the most sparse that loses at most 100 points (" in found.said
    assert " of its weights are zero or cut away)" in found.said
    assert [offer.gone for offer in found.front] == sorted((offer.gone for offer in found.front), reverse=True)


def test_a_pruned_model_costs_what_its_dense_model_costs_and_has_the_score_of_its_stage(at):
    found = search(at)
    dense = {offer.arm: offer for offer in found.offers if offer.variant == "dense"}
    pruned = [offer for offer in found.offers if offer.variant == "pruned"]
    assert len(pruned) == 6
    for offer in pruned:
        of = dense[offer.arm]
        assert (offer.latency, offer.bytes, offer.parameters) == (of.latency, of.bytes, of.parameters)
        assert 0 < offer.gone < offer.sparsity
        scores = found.task.evaluate(found.model(offer))
        assert scores["accuracy"] == offer.value.mean


def test_a_pruned_model_chosen_for_its_sparsity_is_kept_loaded_and_predicts(at, tmp_path, ran):
    found = search(at, by="sparsity", max_drop=100.0, ways=("pruned", "int8"))
    assert found.best.variant == "pruned"
    assert found.best.sparsity == pytest.approx(0.7, abs=0.01)
    folder = found.save(tmp_path / "small")
    assert set(ran) <= {"train", "cost", "pruned", "int8", "int8-cost", "gates-50", "shrunk-50"} | {
        "shrunk-50-cost", "shrunk-50-int8", "shrunk-50-int8-cost"
    }  # fmt: skip
    model, tokenizer = hf.load(str(folder))
    named = [name for name, p in found.task.model(0).named_parameters() if found.task.prunable(name, p)]
    weights = dict(model.named_parameters())
    zeros = sum(int((weights[name] == 0).sum()) for name in named) / sum(weights[name].numel() for name in named)
    assert zeros == pytest.approx(found.best.sparsity, abs=1e-3)
    logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[int(i)] for i in logits.argmax(-1)] == found.predict(TEXTS)
    card = (folder / "README.md").read_text()
    assert "of them zero, which are stored" in card
    page = (folder / "report" / "report.html").read_text()
    assert "What is kept with which share of the weights" in page
    assert json.loads((folder / "report" / "run.json").read_text())["chosen"]["by"] == "sparsity"


def test_the_probe_of_a_pruned_model_is_of_its_pruned_weights(at, monkeypatch):
    found = search(at)
    offer = next(offer for offer in found.offers if offer.variant == "pruned")
    monkeypatch.setattr("trainflat.int8.choose", lambda model, inputs, seconds: model)
    probed, pruned = found.fastest(offer).state_dict(), found.model(offer).state_dict()
    assert all(torch.equal(probed[name], pruned[name]) for name in pruned)


def test_sparsity_without_a_way_that_removes_weights_is_refused_before_anything_runs(at, ran):
    with pytest.raises(ValueError, match="needs a way that removes weights, pruned or shrunk; got int8"):
        search(at, by="sparsity", ways=("int8",))
    assert ran == []


@pytest.mark.slow
def test_models_on_every_grid_are_kept_loaded_and_predict_the_same(at, tmp_path):
    found = search(at, ways=("int8", "static", "int4", "qat"))
    grids = {offer.variant for offer in found.offers if offer.quantized}
    assert len(grids) == 6
    for offer in {o.variant: o for o in found.offers if o.arm == "SAM"}.values():
        model, tokenizer = hf.load(str(found.save(tmp_path / offer.name, offer)))
        with torch.no_grad():
            logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        assert found.predict(TEXTS, offer) == [model.config.id2label[int(i)] for i in logits.argmax(-1)], offer.name


# --- the command of each model --------------------------------------------------------------------------------------


def test_every_model_says_its_command_and_the_command_keeps_that_very_model(at, tmp_path, monkeypatch, ran):
    found = search(at)
    said = {offer.name: offer.made["command"] for offer in found.offers}
    assert len(set(said.values())) == len(found.offers) == 14
    monkeypatch.chdir(tmp_path)
    ran.clear()
    name = "cofi 50 %, int8 per channel from Adam"
    words = shlex.split(said[name])
    assert words[-4:] == ["--offer", name, "--out", "small"]
    assert call(monkeypatch, *words, "--store", str(at.store)) == 0
    ours = found.save(tmp_path / "ours", found.offer(name))
    kept = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "small", ours)]
    assert kept[0] == kept[1]
    assert f"- Made by: `{said[name]}`" in (ours / "README.md").read_text()
    assert ran == []  # the command was that of the same stages


def test_the_command_of_a_search_with_a_name_and_steps_of_its_own_is_one_that_serves(at, tmp_path, monkeypatch, ran):
    found = search(at, ways=("int8",), name="mine", steps_per_epoch=1000)
    assert found.name == "mine"
    words = shlex.split(found.offer("dense from Adam").made["command"])
    assert "steps_per_epoch=1000" in words
    assert not any("mine" in word for word in words)
    ran.clear()
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words, "--store", str(at.store), "--probe", "0") == 0
    assert ran == []


def test_a_search_is_planned_once(at, monkeypatch):
    module, plans = import_module("trainflat.experiments.plan"), []
    original = module.plan
    monkeypatch.setattr(module, "plan", lambda *given, **more: plans.append(original(*given, **more)) or plans[-1])
    search(at, ways=("int8",))
    assert len(plans) == 1


@pytest.mark.slow  # it trains everything a second time
def test_the_command_makes_the_same_model_from_nothing(at, tmp_path, monkeypatch):
    found = search(at, ways=("int8",), gradient={"name": "asam", "rho": 0.5}, epochs=1.0, holdout=0.2, seeds=(1,))
    offer = found.offer("int8 per channel from ASAM")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *shlex.split(offer.made["command"])) == 0
    ours = found.save(tmp_path / "ours", offer)
    assert (tmp_path / "small" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()


def test_the_page_has_the_command_of_every_model_for_those_who_hover_and_those_who_do_not(at, tmp_path):
    found = search(at)
    page = found.report(tmp_path / "report").read_text()
    table = (tmp_path / "report" / "table.md").read_text()
    for offer in found.offers:
        assert f"--offer '{offer.name}' --out small" in table, offer.name
        assert page.count(f"&#x27;{offer.name}&#x27; --out small") >= 3, (
            offer.name
        )  # twice said aloud, once in the table
    assert shlex.join(["trainflat", "compress", at.table, "--text", "review"]) in table


def test_a_model_that_was_asked_for_by_name_is_the_best_one(at):
    found = search(at, offer="dense from Adam")
    assert found.best.name == "dense from Adam"
    assert found.said.startswith("dense from Adam: ")
    assert ", as asked for." in found.said
    assert found._document["command"].endswith("--offer 'dense from Adam'")
    with pytest.raises(LookupError, match=r"there is no model 'dense from Adm'; did you mean 'dense from Adam'\?"):
        search(at, offer="dense from Adm")
    with pytest.raises(ValueError, match="leave max_drop and the budgets out"):
        search(at, offer="dense from Adam", max_drop=1.0)


class Strict(HTMLParser):
    """Checks that tags are balanced, and collects them."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_in_a_notebook_it_shows_what_was_chosen_the_front_and_its_picture(at):
    found = search(at)
    page = found._repr_html_()
    told = Strict(page)
    assert found.said in told.text
    assert told.tags.count("tr") == 1 + len(found.front)
    assert all(offer.name in told.text for offer in found.front)
    assert set(told.tags) == {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "b", "img"}
    picture = base64.b64decode(page.partition("data:image/png;base64,")[2].partition('"')[0])
    assert picture.startswith(b"\x89PNG")
    assert len(page) < 200_000
    drawn = found.plot()
    assert [axes.get_xlabel() for axes in drawn.axes] == ["latency, ms", "size, MB"]
    sparse = search(at, by="sparsity", max_drop=100.0).plot()
    assert [axes.get_xlabel() for axes in sparse.axes] == ["latency, ms", "size, MB", "weights left, %"]


def test_a_model_that_cannot_be_written_leaves_no_folder_and_nothing_beside_it(at, tmp_path, monkeypatch):
    found = search(at)
    monkeypatch.setattr(found, "report", lambda folder, offer: (folder.mkdir(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        found.save(tmp_path / "small")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        found.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_cannot_be_replaced_is_filled(at, tmp_path, monkeypatch):
    found = search(at, ways=("int8",))
    for name in ("disk", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.chdir(tmp_path / "here")
    for place in (tmp_path / "link", Path(".")):
        assert hf.load(str(found.save(place)))[0].config.id2label == {0: "bad", 1: "good"}
        assert (place / "report" / "run.json").is_file()
        assert not list(place.glob(".*"))
    assert (tmp_path / "link").is_symlink()


def test_of_a_folder_that_is_filled_halfway_nothing_is_left(at, tmp_path, monkeypatch):
    found, rename, moved = search(at, ways=("int8",)), Path.rename, []

    def full(path, target):
        if Path(target).parent == tmp_path / "mount":
            moved.append(path.name)
            if len(moved) == 3:
                raise OSError(28, "No space left on device")
        return rename(path, target)

    (tmp_path / "mount").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            found.save(tmp_path / "mount")
    assert len(moved) == 3
    assert list((tmp_path / "mount").iterdir()) == []
    assert hf.load(str(found.save(tmp_path / "mount")))  # and so it can be tried again


def test_an_empty_folder_in_which_nothing_may_be_written_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="cannot be filled, since nothing may be written in"):
        check_place(tmp_path)


def test_two_searches_in_a_store_keep_their_own_recipes(at, tmp_path):
    first = search(at, ways=("int8",))
    second = search(at, ways=("int8",), epochs=1.0)
    (at.store / "other").mkdir(exist_ok=True)
    elsewhere = at.store / "other" / "reviews.csv"
    elsewhere.write_bytes(Path(at.table).read_bytes())
    third = compress_text(
        str(elsewhere), text="review", label="verdict", model=at.model, store=at.store, ways=("int8",), **QUICK
    )
    for found, epochs in ((first, 2.0), (second, 1.0)):
        kept = tomllib.loads((found.save(tmp_path / f"{epochs}") / "recipe.toml").read_text())
        assert kept["defaults"]["epochs"] == epochs
    assert first.name == second.name == "compress-reviews"
    assert re.fullmatch(r"compress-reviews-[0-9a-f]{6}", third.name)


def test_a_table_that_has_changed_since_is_read_and_trained_on_anew_in_the_same_process(at, tmp_path):
    table = Path(shutil.copy(at.table, tmp_path / "changing.csv"))
    of_table = SimpleNamespace(table=str(table), model=at.model, store=tmp_path / "store")
    before = search(of_table, ways=("pruned",))
    table.write_text(table.read_text().replace(",good,", ",yes,").replace(",bad,", ",no,"))
    after = search(of_table, ways=("pruned",))
    assert (before.task.labels, after.task.labels) == (("bad", "good"), ("no", "yes"))
    assert {*before.predict(TEXTS, before.offers[0])} <= {"bad", "good"}  # the first one stays what it was
    assert {*after.predict(TEXTS)} <= {"no", "yes"}
    assert not {row["key"] for row in before._rows} & {row["key"] for row in after._rows}


def test_a_search_that_is_refused_leaves_the_recipe_of_the_one_before(at):
    search(at, ways=("int8",))
    path = at.store / "recipes" / "compress-reviews.toml"
    before = path.read_text()
    with pytest.raises(LookupError, match="samm"):
        search(at, ways=("int8",), gradient="samm")
    assert path.read_text() == before
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient": {"name": "sam", "rho": float("nan")}}, "rho of sam must be finite, got nan"),
        (
            {"gradient": {"name": "cram", "sparsity": [0.1, math.inf]}},
            r"sparsity of cram must be finite, got \[0.1, inf\]",
        ),
        ({"gradient": None}, "gradient is the name of a flat rule, such as sam, or a list of such; got None"),
        ({"gradient": 1}, "gradient is the name of a flat rule, such as sam, or a list of such; got 1"),
        ({"gradient": ()}, "gradient names no rule; name a flat rule, such as sam, or leave it out"),
        (
            {"ways": ("qat", "torchao8")},
            "qat trains for the grids of int8, static, int4, and not for those of torchao8;",
        ),
        ({"sizes": (0.99991, 0.5, 0.99994)}, "the sizes 0.99991 and 0.99994 are both called 99.99 %"),
        ({"sizes": 0.5}, r"sizes lists numbers such as \[0.5, 0.9\]; got 0.5"),
        ({"seeds": "012"}, r"seeds lists numbers such as \[0, 1, 2\]; got '012'"),
        ({"lr": "x"}, "lr must be a number above 0, got 'x'"),
        ({"task": {"name": "digits"}}, "text takes no 'task'"),
        ({"gradient": "plain"}, "plain is Adam without a flat rule, which is always tried"),
        ({"ways": "int8"}, r"ways lists what is tried, such as \['int8', 'shrunk'\]; got the text 'int8'"),
        ({"ways": ()}, "there is nothing to try"),
        ({"gradient": {"rho": 0.1}}, "gradient must be a name or a table with a name"),
        ({"ways": ("shrunk",), "sizes": ()}, "and of shrunk some sizes"),
        ({"holdout": "abc"}, "holdout is the share of the rows that is scored, .* got 'abc'"),
        ({"seed": "abc"}, "seed draws the split and is a whole number, got 'abc'"),
        ({"max_drop": float("inf")}, "max_drop .* must be finite, got inf"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(at, ran, options, said):
    with pytest.raises(ValueError, match=said):
        search(at, **options)
    assert ran == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rho", "nan"], "--rho takes a number of 0 or more, such as 0.05, or \"auto\"; got 'nan'"),
        (["--rho", "-1"], "--rho takes a number of 0 or more"),
        (["--rule", "{rho=0.1}"], "--rule takes a name, or a TOML table with a name such as"),
        (["--rule", "{name='sam'"], "--rule takes a name, or a TOML table with a name such as"),
        (["--rule", "{name='sam', rho=0.2}", "--rho", "0.1"], "both name a radius; leave one of them out"),
        (["--set", "claim=3"], "--set claim: it has an option of its own or none"),
    ],
)
def test_a_wrong_rule_is_one_sentence_about_the_option(at, monkeypatch, capsys, words, said):
    asked = ["trainflat", "compress", at.table, "--text", "review", "--label", "verdict", "--store", str(at.store)]
    assert call(monkeypatch, *asked, *words) == 2
    assert said in capsys.readouterr().err


def test_labels_in_brackets_are_printed_as_they_are(at, tmp_path, monkeypatch, capsys):
    table = tmp_path / "marked.csv"
    table.write_text(Path(at.table).read_text().replace(",good,", ",[/red],").replace(",bad,", ",[bold],"))
    columns = ["--text", "review", "--label", "verdict", "--max-length", "16"]
    words = [*columns, "--model", at.model, "--try", "int8", "--epochs", "1", "--probe", "0"]
    code = call(monkeypatch, "trainflat", "compress", str(table), *words, "--store", str(tmp_path / "store"))
    assert code == 0, capsys.readouterr().err
    assert "[/red], [bold]" in " ".join(capsys.readouterr().out.split())


def test_a_name_serves_for_an_offer_and_one_text_is_not_taken_for_many(at, tmp_path):
    found = search(at, ways=("int8",))
    kept = found.save(tmp_path / "dense", "dense from SAM")
    assert "- Model: dense from SAM" in (kept / "README.md").read_text()
    chosen = json.loads((kept / "report" / "run.json").read_text())["chosen"]
    assert (chosen["arm"], chosen["variant"]) == ("SAM", "dense")
    offer = found.offer("dense from SAM")
    assert found.predict(TEXTS, "dense from SAM") == found.predict(TEXTS, offer)
    named, own = (dict(found.model(which).named_parameters()) for which in ("dense from SAM", offer))
    assert all(torch.equal(own[name], p) for name, p in named.items())
    page = found.report(tmp_path / "report", "dense from SAM")
    assert json.loads((page.parent / "run.json").read_text())["chosen"] == chosen
    with pytest.raises(LookupError, match="there is no model 'dense from SGD'; did you mean"):
        found.predict(TEXTS, "dense from SGD")
    shown = json.loads((kept / "report" / "rows.json").read_text())
    (of,) = [(row["arm"], row["variant"]) for row in shown if "disagreements" in row]
    assert of == ({"optimizer": "SAM"}, "dense")
    assert re.search(
        r"- Latency: .* ms, median \(cpu, 1 thread, batch of 1 x \d+ tokens; ", (kept / "README.md").read_text()
    )
    with pytest.raises(TypeError, match="predict takes a list of texts, got the text 'lovely'; put it into brackets"):
        found.predict("lovely")
    series = pytest.importorskip("pandas").Series(TEXTS, index=range(7, 7 + len(TEXTS)))
    assert found.predict(series) == found.predict(text for text in TEXTS) == found.predict(TEXTS)
    for table in (series.to_frame(), {"review": TEXTS}):
        with pytest.raises(
            TypeError, match=f"predict takes a list of texts, got a {type(table).__name__}; give its column"
        ):
            found.predict(table)


def test_of_a_regression_the_errors_are_told_in_the_labels_unit(at, tmp_path):
    found = search(at, label="stars", ways=("int8",), epochs=6.0)
    rmse = found.task.evaluate(found.model())["rmse"]
    assert f"Its numbers are off by {rmse:.3g} (rmse, in the labels' unit)" in found.said
    table = (found.report(tmp_path).parent / "table.md").read_text()
    dense = found.offer("dense from Adam")
    error = found.task.evaluate(found.model(dense))["rmse"]
    assert "rmse and mae in the labels' unit" in table
    assert f"{error:.3g}" in next(
        line for line in table.partition("All metrics")[2].splitlines() if line.startswith("| Adam |")
    )
    worst = mistakes(found.task, found.model(), found.model(dense))["disagreements"]
    for text in worst:
        assert text["shift"] == pytest.approx(abs(float(text["small"]) - float(text["large"])), abs=0.02)


def test_numbers_of_a_regression_are_shown_with_all_digits_that_tell_them_apart():
    task = SimpleNamespace(
        labels=(),
        held_out=SimpleNamespace(texts=[["a", "b"]], labels=np.array([2019.0, 2023.0])),
        encode=lambda texts: torch.zeros(len(texts), 1),
        predicted=lambda logits: logits[:, 0],
    )
    models = [torch.nn.Linear(1, 1) for _ in range(2)]
    for model, bias in zip(models, (2020.25, 2021.5), strict=True):
        model.bias.data.fill_(bias)
    shown = mistakes(task, *models)["disagreements"]
    assert [[text[name] for name in ("label", "small", "large")] for text in shown] == [
        ["2019", "2020.25", "2021.5"],
        ["2023", "2020.25", "2021.5"],
    ]


def test_where_nothing_was_learned_it_says_so(at, tmp_path):
    small = {"ways": ("int8",), "epochs": 0.1, "lr": 1e-6}
    nothing = search(at, **small)
    assert "Beware: no dense model does better than always saying 'bad' (50.0), so nothing was learned" in nothing.said
    assert "- To be known: Beware: no dense model" in (nothing.save(tmp_path / "small") / "README.md").read_text()
    page = unescape((tmp_path / "small" / "report" / "report.html").read_text())
    assert "Beware: no dense model does better than always saying 'bad' (50.0), so nothing was learned" in page
    assert "rows with the same text on one side. Model: " in page
    learned = search(at, epochs=6.0, ways=("int8",))
    assert max(offer.value.mean for offer in learned.offers) > 0.8
    assert "no dense model" not in learned.said


@pytest.mark.parametrize(("rows", "said"), [(99, True), (100, False)])
def test_of_few_rows_to_score_on_it_says_what_one_is_worth(rows, said):
    """And of a table of a hundred, where one row is a point, nothing."""
    offer = Offer("reviews", "all", "dense", 0.0, {0: 0.9}, 1.0, 1.0, 1.0, 1.0)
    task = SimpleNamespace(labels=("bad", "good"), held_out=SimpleNamespace(labels=np.arange(rows) % 2))
    few = "Beware: every model was scored on the same 99 rows only, of which one is 1.0 points, so chance has a say"
    assert beware(task, [offer]).startswith(few) is said
    assert (beware(task, [offer]) == "") is not said
    numbers = SimpleNamespace(labels=(), held_out=task.held_out)
    assert ("the same 99 rows only, so chance" in beware(numbers, [offer])) is said


@pytest.mark.parametrize(
    ("lengths", "timed", "said"),
    [
        ([16] * 10 + [7] * 90, 7, "10 % of the texts that were scored fill all 16 tokens"),
        ([7] * 91 + [16] * 9, 7, None),
        (
            [4] + [9] * 99,
            4,
            "that of the first text, of 4 tokens, and the middle one has 9. Measure at that (--set length=9)",
        ),
        ([9] + [4] * 99, 9, "of the first text, of 9 tokens, and the middle one has 4."),
        ([4] + [8] * 99, 4, None),
        ([4] + [9] * 99, 16, None),  # a length that was asked for
    ],
)
def test_of_texts_that_are_cut_or_a_latency_of_an_unusual_one_it_says_so(lengths, timed, said):
    labels = np.arange(100) % 2
    task = SimpleNamespace(labels=("bad", "good"), held_out=SimpleNamespace(labels=labels), max_length=16)
    task.lengths = np.array(lengths)
    told = beware(task, [Offer("reviews", "all", "dense", 0.0, {0: 0.9}, 1.0, 1.0, 1.0, 1.0)], (1, timed, 1, "cpu"))
    assert (said in told and told.count("Beware: ") == 1) if said else told == ""


@pytest.mark.parametrize(("mean", "said"), [(0.0, True), (-0.2, True), (0.1, False)])
def test_numbers_that_do_not_go_along_with_the_labels_are_nothing_learned(mean, said):
    offer = Offer("stars", "all", "dense", 0.0, {0: mean}, 1.0, 1.0, 1.0, 1.0)
    task = SimpleNamespace(labels=(), held_out=SimpleNamespace(labels=np.array([1.0, 2.0])))
    assert ("no dense model's numbers go along with the labels" in beware(task, [offer])) is said


def test_a_task_without_texts_has_its_front_its_sentence_and_its_report(tmp_path):
    made = Trials(name="mine", task={"name": "digits"}, claim="", ways=("pruned",), gradient="sam", epochs=0.1, lr=3e-3)
    found = deploy.search(made, tmp_path / "store", max_drop=100.0)
    assert found.said.startswith(found.best.name)
    assert found.best in found.front
    assert found.task.evaluate(found.model())["accuracy"] == found.best.value.mean
    assert "What is kept" in found.report(tmp_path / "report").read_text()
    assert found.said in Strict(found._repr_html_()).text
    for wish in (lambda: found.save(tmp_path / "small"), lambda: found.predict(["0"])):
        with pytest.raises(ValueError, match="needs a task made of a table of texts, and digits is none"):
            wish()
    assert not (tmp_path / "small").exists()


def test_nothing_that_fits_is_shown_in_a_notebook_and_a_report_as_well(at, tmp_path):
    none = search(at, budget_mb=0.001)
    assert none.best is None
    assert none.said in Strict(none._repr_html_()).text
    assert none.said in unescape(none.report(tmp_path).read_text())


def test_beside_adam_a_search_trains_with_sam_and_with_the_default_rule_for_pretrained_models():
    """Two steps of the rule in the recipe and of `flat.default` are the same."""
    plain, sam, usual = tomllib.loads(Trials(name="mine", task={"name": "digits"}, claim="").recipe())["sweep"][
        "optimizer"
    ].values()
    assert (plain["train.gradient"], sam["train.gradient"]) == ("plain", "sam")
    weights = []
    for rule in (
        build(Spec.parse(usual["train.gradient"], "gradient"), ["trainflat.flat"]),
        flat.default(pretrained=True),
    ):
        w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

        def closure(w=w):
            w.grad, loss = None, (w**4).sum()
            loss.backward()
            return loss.detach()

        for _ in range(2):
            rule(closure, {"w": w}, 0.0)
            w.data -= 0.01 * w.grad
        weights.append(w.detach())
    assert torch.equal(*weights)


def test_the_defaults_of_the_command_are_those_of_the_search():
    given = inspect.signature(command_line).parameters
    usual = {name: f.default for name, f in Trials.__dataclass_fields__.items()}
    of_text = {name: p.default for name, p in inspect.signature(hf.text).parameters.items()}
    for name in ("epochs", "lr", "precision", "threads", "ways", "serve"):
        assert given[name].default == usual[name]
    for name in ("batch_size", "max_length", "kind", "validation", "groups"):
        assert given[name].default == of_text[name]
    assert given["rule"].default is None
    told = get_type_hints(command_line, include_extras=True)["rule"].__metadata__[0].help
    assert "without: sam, and stale_sam with rho 0.01." in told
    assert usual["gradient"] == ("sam", {"name": "stale_sam", "rho": 0.01})
    assert parse_rules(None, None) == usual["gradient"]
    assert parse_rules(None, "0.1") == ({"name": "sam", "rho": 0.1}, {"name": "stale_sam", "rho": 0.1})
    assert parse_rules(["sam"], "auto") == {"name": "sam", "rho": "auto"}
    assert [float(size) for size in given["sizes"].default.split(",")] == list(usual["sizes"])
    assert tuple(map(int, given["seeds"].default.split(","))) == usual["seeds"]
    assert set(command.OPTIONS) <= {*usual, *of_text}


@pytest.mark.parametrize(
    "gradient",
    [
        "sam",
        {"name": "sam", "rho": 0.1},
        {"name": "sam", "rho": "auto"},
        ("sam", "stale_sam"),
        ("sam", {"name": "stale_sam", "rho": 0.1}),
        ["asam", {"name": "cram", "every": 5}],
        {"name": "cram", "sparsity": (0.2, 0.4), "dense": "head", "sparse_grad": True},
    ],
)
def test_the_command_names_the_very_rules_of_its_search(gradient):
    """As a table it is what a recipe has, lists and all, and so are the names of the models that the command can be asked for."""
    task = {"name": "text", "data": "reviews.csv", "text": "review", "label": "stars", "model": "minilm"}
    words = command.searching(task, {"gradient": gradient})
    rules = [word for option, word in pairwise(words) if option == "--rule"]
    rho = next((word for option, word in pairwise(words) if option == "--rho"), None)
    again = parse_rules(rules, rho)
    assert called(again) == called(gradient)


# --- several seeds, another option, a regression --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "metric"), [pytest.param("verdict", "accuracy", marks=pytest.mark.slow), ("stars", "pearson")]
)
def test_several_seeds_are_chosen_kept_and_predict_the_same_and_nothing_is_repeated(at, tmp_path, ran, label, metric):
    ways = ("pruned", "int8")
    wish = {
        "label": label,
        "ways": ways,
        "seeds": range(2),
        "max_drop": 200.0,
        "by": "bytes",
        "store": tmp_path / "store",
    }
    found = search(at, **wish)
    assert len(ran) == 2 * 2 * 5  # arms, seeds; train, its cost, pruned, int8, its cost
    assert found.metric == metric
    assert all(offer.value.n == 2 for offer in found.offers)
    assert "--seeds 0,1 " in found.best.made["command"]
    assert "95 % CI" in found.said
    assert found.best.variant == "int8 per_channel"

    model, tokenizer = hf.load(str(found.save(tmp_path / "small")))
    own, values = found.task.evaluate(model), found.best.values
    assert values[0] == pytest.approx(own[metric], abs=1e-6)
    assert label == "verdict" or values[0] != found.best.value.mean  # the accuracies of both seeds are one
    assert f"means over 2 seeds; the model itself is of seed 0, with {100 * own[metric]:.1f}." in found.said
    card = (tmp_path / "small" / "README.md").read_text()
    assert f"- Metric: {metric} {100 * own[metric]:.1f}," in card
    mean = 100 * found.best.value.mean
    assert f"on 20 held-out examples; it is the model of seed 0, and the mean over 2 seeds is {mean:.1f}\n" in card
    if label == "stars":
        rows = [row for row in found._rows if row.get("value") in values.values() and "pearson" in row["metrics"]]
        errors = [row["metrics"]["rmse"] for row in rows]
        assert len(errors) == 2
        assert f"off by {np.mean(errors):.3g} (rmse, in the labels' unit)" in found.said
        assert f", rmse {own['rmse']:.3g} in the labels' unit, on 20" in card
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    if label == "stars":
        config = model.config
        told = (logits[:, 0].double() * config.score_deviation + config.score_mean).tolist()
        assert found.predict(TEXTS) == pytest.approx(told, rel=1e-5)
    else:
        assert found.predict(TEXTS) == [model.config.id2label[int(i)] for i in logits.argmax(-1)]

    ran.clear()
    search(at, **wish)
    assert ran == []
    table = (tmp_path / "small" / "report" / "table.md").read_text().partition("SAM − Adam; in points, paired")[2]
    for name in ("dense", "one-shot 50 %", "int8 per channel"):
        assert re.search(rf"\| {name} \|[^\n]*\| \[[^\n]*\] \| 2 \|", table), table[
            :900
        ]  # both arms, their difference, its interval
    search(at, **{**wish, "seeds": (0, 1, 2)})
    assert len(ran) == 2 * 5  # the third seed alone
