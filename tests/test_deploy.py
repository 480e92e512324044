"""A table in, the smallest good model out: searched once, chosen by the wish, kept whole or not at all."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import reviews
import tinybert
from typer.testing import CliRunner

from trainflat import compress_text, hf, int8
from trainflat.cli import app
from trainflat.cli.compress import parse_budget
from trainflat.deploy.card import interval
from trainflat.experiments import runner, trials
from trainflat.experiments.recipe import read
from trainflat.experiments.trials import Trials

pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")

FAST = {"epochs": 1.0, "lr": 3e-3, "sizes": (0.5,), "gradient": "sam", "batch_size": 16, "quiet": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A small BERT with its tokenizer."""
    return str(tinybert.checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Two hundred reviews that one word decides."""
    return reviews.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True, scope="module")
def _few_steps():
    """A table of real size has enough; these tests have other questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "GATE_STEPS", 30)
        yield


@pytest.fixture(scope="module")
def found(table, checkpoint, store):
    return compress_text(table, text="review", label="verdict", model=checkpoint, max_length=16, store=store, **FAST)


def test_every_way_is_an_offer_from_adam_and_from_sam(found):
    ways = {(offer.arm, offer.variant) for offer in found.offers}
    variants = {"dense", "pruned", "int8 per_channel", "cofi", "cofi, int8 per_channel"}
    assert ways == {(arm, variant) for arm in ("Adam", "SAM") for variant in variants}
    assert found.best in found.offers
    assert set(map(id, found.front)) <= set(map(id, found.offers))
    assert found.said.startswith(found.best.name)


def test_it_says_of_new_texts_what_its_kept_folder_says(found, tmp_path):
    texts = ["a film so great", "so dull a film", "a lovely film"]
    for offer in {o.variant: o for o in found.offers if o.arm == "SAM"}.values():
        folder = found.save(tmp_path / offer.name, offer)
        model, tokenizer = hf.load(str(folder))
        words = tokenizer(texts, padding=True, return_tensors="pt")
        told = [model.config.id2label[int(i)] for i in model(**words).logits.argmax(-1)]
        assert found.predict(texts, offer) == told, offer.name
        assert (folder / "model.safetensors").stat().st_size == pytest.approx(offer.bytes, rel=0.3)
    assert found.predict([]) == []


def test_the_kept_folder_says_what_it_is_and_how_it_was_made(found, tmp_path):
    folder = found.save(tmp_path / "small")
    card = (folder / "README.md").read_text()
    assert f"{100 * found.best.value.mean:.1f}" in card
    assert "Wilson" in card
    assert "reviews" in card
    assert read(str(folder / "recipe.toml")).document["seeds"] == [0]
    page = (folder / "report" / "report.html").read_text()
    assert "good" in page
    run = json.loads((folder / "report" / "run.json").read_text())
    assert run["chosen"]["variant"] == found.best.variant
    with pytest.raises(FileExistsError, match="is there and not empty"):
        found.save(folder)


def test_nothing_is_repeated_and_more_can_be_asked(found, table, checkpoint, store, monkeypatch):
    ran = []

    original = runner.run

    def listening(plan, kept, **options):
        return original(plan, kept, **{**options, "say": lambda event, job, about: ran.append((event, job.name))})

    monkeypatch.setattr(runner, "run", listening)
    more = {**FAST, "sizes": (0.5, 0.8)}
    wider = compress_text(table, text="review", label="verdict", model=checkpoint, max_length=16, store=store, **more)
    started = {name for event, name in ran if event == "started"}
    assert started == {name for name in started if "80" in name}
    assert started
    assert len(wider.offers) == len(found.offers) + 4


def test_a_wish_that_nothing_meets_is_answered_with_what_comes_nearest(table, checkpoint, store):
    wish = {"text": "review", "label": "verdict", "model": checkpoint, "max_length": 16, "store": store}
    none = compress_text(table, budget_mb=0.001, **wish, **FAST)
    assert none.best is None
    assert "the nearest" in none.said
    with pytest.raises(LookupError, match="the nearest"):
        none.predict(["a film"])
    with pytest.raises(LookupError, match="the nearest"):
        none.save("anywhere")


def test_a_path_serves_for_a_folder_and_a_frame_for_what_is_scored(found, table, checkpoint, store, tmp_path):
    pandas = pytest.importorskip("pandas")
    wish = {"text": "review", "label": "verdict", "max_length": 16, **FAST}
    again = compress_text(Path(table), model=Path(checkpoint), store=store, **wish)
    assert {offer.name: offer.value for offer in again.offers} == {offer.name: offer.value for offer in found.offers}
    scored = pandas.DataFrame({"review": ["a film so great", "so dull a film"], "verdict": ["good", "bad"]})
    file = tmp_path / "scored.parquet"
    scored.to_parquet(file)
    for validation in (scored, file):
        other = compress_text(table, model=checkpoint, validation=validation, ways=("int8",), store=store, **wish)
        assert list(other.task.held_out.texts[0]) == list(scored.review)


def test_what_is_no_data_frame_or_cannot_be_a_table_is_one_sentence(checkpoint, tmp_path):
    pandas = pytest.importorskip("pandas")
    import datasets
    import pyarrow

    columns = {"review": ["a film", "so great"], "verdict": ["bad", "good"]}
    wish = {"text": "review", "label": "verdict", "model": checkpoint, "store": tmp_path, **FAST}
    for table in (datasets.Dataset.from_dict(columns), pyarrow.table(columns), columns):
        said = (
            f"a pandas data frame or a path, got {type(table).__name__}; write it as a Parquet file and give its path"
        )
        with pytest.raises(ValueError, match=said):
            compress_text(table, **wish)
    mixed = pandas.DataFrame({**columns, "other": [1, "two"]})
    with pytest.raises(
        ValueError, match=r"cannot be written as Parquet \(.*column other.*\); give only the columns"
    ) as told:
        compress_text(mixed, **wish)
    assert len(str(told.value).splitlines()) == 1
    assert not list((tmp_path / "tables").iterdir())


def test_a_data_frame_and_a_regression_in_the_tables_unit(table, checkpoint, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(table)
    more = {**FAST, "epochs": 10.0, "ways": ("int8",), "max_length": 16, "store": tmp_path}
    wish = {"max_drop": 100.0, "by": "bytes"}
    found = compress_text(frame, text="review", label="stars", model=checkpoint, kind="regression", **wish, **more)
    assert found.metric == "pearson"
    low, high = found.predict(["a film so dull w1", "so film a great w2"])
    assert 0 < low < 2.75 < high < 6
    assert "int8" in found.best.variant
    (alone,) = found.predict(["so dull a film"])
    model, tokenizer = hf.load(str(found.save(tmp_path / "small")))
    logits = model(**tokenizer(["so dull a film"], return_tensors="pt")).logits[:, 0].detach()
    assert float(logits * model.config.score_deviation + model.config.score_mean) == pytest.approx(alone, rel=1e-5)
    assert "score_deviation" in (tmp_path / "small" / "README.md").read_text()
    shown = json.loads((found.report(tmp_path / "report").parent / "rows.json").read_text())
    (texts,) = [row["disagreements"] for row in shown if "disagreements" in row]
    assert len(texts) == 10
    assert texts[0]["shift"] >= texts[-1]["shift"] > 0


COMMAND = [
    "--text",
    "review",
    "--epochs",
    "1",
    "--lr",
    "0.003",
    "--sizes",
    "0.5",
    "--rule",
    "sam",
    "--batch-size",
    "16",
    "--max-length",
    "16",
]


def test_the_command_keeps_a_model_and_says_why(table, checkpoint, store, tmp_path):
    options = ["--label", "verdict", "--model", checkpoint, "--store", str(store), "--out", str(tmp_path / "small")]
    done = CliRunner().invoke(app, ["compress", table, *COMMAND, *options, "--probe", "0.05", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["model"] == str(tmp_path / "small")
    assert hf.load(told["model"])[0].config.id2label == {0: "bad", 1: "good"}
    assert told["front"]
    assert told["at"] == "cpu, 1 thread, batch of 1 x 7 tokens"
    shown = CliRunner().invoke(app, ["compress", table, *COMMAND, *options[:-2], "--probe", "0"]).stdout
    assert f"ms: {told['at']}" in " ".join(shown.split())
    fastest = "|".join(re.escape(backend.NAME) for backend in int8.BACKENDS)
    assert re.match(rf"float32 stays: no int8 |({fastest}) is the fastest int8 that is right here: ", told["int8"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label", "verdicts"], "did you mean 'verdict'"),
        (["--label", "verdict", "--probe", "-1"], "--probe takes seconds"),
        (["--label", "verdict", "--probe", "inf"], "--probe takes seconds, a finite number of 0 or more; got inf"),
        (["--label", "verdict", "--budget", "20"], "--budget is a latency such as 20ms"),
        (["--label", "verdict", "--target", "speed"], "--target is latency, size or sparsity"),
        (["--label", "verdict", "--try", "shrink"], "what can be tried is pruned, int8, shrunk"),
        (["--label", "verdict", "--sizes", "95"], "in (0, 1); got 95.0"),
        (["--label", "verdict", "--sizes", "half"], "--sizes takes numbers"),
        (["--label", "verdict", "--rule", "sgm"], "there is no 'sgm'"),
        (["--label", "verdict", "--text", "stars", "--text", "verdict"], "two for pairs; got 3"),
        (["--label", "verdict", "--budget", "1kB"], "nothing was kept: No model is within"),
    ],
)
def test_a_wrong_wish_is_one_sentence_and_leaves_no_folder(options, said, table, checkpoint, store, tmp_path):
    where = ["--model", checkpoint, "--store", str(store), "--out", str(tmp_path / "small"), "--probe", "0"]
    done = CliRunner().invoke(app, ["compress", table, *COMMAND, *where, *options])
    assert isinstance(done.exception, (ValueError, LookupError))
    assert said in str(done.exception)
    assert not (tmp_path / "small").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".small")]


@pytest.mark.parametrize(("text", "budget"), [("20ms", ("budget_ms", 20.0)), ("1.5GB", ("budget_mb", 1500.0))])
def test_a_budget_is_read_with_its_unit(text, budget):
    assert parse_budget(text) == budget


def test_wilsons_interval_is_that_of_the_score_test():
    """Its ends are the shares whose z score at the observed one is the quantile."""
    low, high = interval(0.9, 70)
    for p in (low, high):
        assert abs(0.9 - p) / (p * (1 - p) / 70) ** 0.5 == pytest.approx(1.959964, rel=1e-6)


def test_the_recipe_of_a_search_is_toml_that_says_its_claim():
    task = {"name": "text", "data": 'odd "name" ü.csv', "text": "a b", "label": "c"}
    text = Trials(name="mine", task=task, claim="Two\nlines.", gradient={"name": "sam", "rho": 0.01}).recipe()
    document = tomllib.loads(text)
    assert document["defaults"]["task"] == task
    assert document["sweep"]["optimizer"]["SAM"] == {"train.gradient": {"name": "sam", "rho": 0.01}}
    assert text.startswith("# Two\n# lines.\n")


def test_rules_that_differ_in_their_radius_alone_have_it_in_their_names():
    rules = (
        {"name": "sam", "rho": 0.05},
        {"name": "sam", "rho": 0.1},
        {"name": "asam", "rho": 0.5},
        "mylab.flat:noisy",
    )
    made = Trials(name="mine", task={"name": "digits"}, claim="", gradient=rules)
    assert [label for label, _ in made.rules()] == ["SAM 0.05", "SAM 0.1", "ASAM", "mylab.flat:noisy"]
    arms = tomllib.loads(made.recipe())["sweep"]["optimizer"]
    assert [arm["train.gradient"] for arm in arms.values()] == ["plain", *rules]
    with pytest.raises(ValueError, match="the rule SAM 0.1 is there twice"):
        Trials(name="mine", task={}, claim="", gradient=[{"name": "sam", "rho": 0.1}] * 2)


def test_seeds_and_sizes_are_any_sequence_of_numbers():
    usual = {"name": "mine", "task": {"name": "digits"}, "claim": ""}
    made = Trials(**usual, seeds=range(3), sizes=np.array([0.5, 0.75]))
    assert made == Trials(**usual, seeds=(0, 1, 2), sizes=(0.5, 0.75))
    assert made.recipe() == Trials(**usual, seeds=[0, 1, 2], sizes=[0.5, 0.75]).recipe()
