"""A task from a user's own table: a Task like others, scored as said, named in a recipe, with GLUE's rows where it has them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainflat import hf, train
from trainflat.experiments.resolve import Spec, check
from trainflat.experiments.work import TASKS, make_task
from trainflat.hf import data as glue_data
from trainflat.hf import finished, metrics, models, tokens
from trainflat.hf.prepared import prepare
from trainflat.hf.table import Columns
from trainflat.testing import check_task
from trainflat.types import Task

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "good",
    "bad",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A small BERT with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=160,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def sentences(size: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS[5:], draw.integers(3, 12))) for _ in range(size)]


def save(path: Path, **columns: list) -> str:
    """A CSV file with these columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


@pytest.fixture
def reviews(tmp_path) -> str:
    """80 reviews that are good or bad."""
    texts = sentences(80, 0)
    return save(tmp_path / "reviews.csv", review=texts, stars=["good" if i % 3 else "bad" for i in range(80)])


@pytest.fixture
def prices(tmp_path) -> str:
    """80 pairs with a number far from 0 and 1."""
    scores = [5000 + 1000 * float(x) for x in np.random.default_rng(1).normal(size=80)]
    return save(tmp_path / "prices.csv", one=sentences(80, 1), two=sentences(80, 2), price=scores)


def test_classification_is_a_task(reviews, checkpoint):
    task = hf.text(reviews, text="review", label="stars", model=checkpoint, batch_size=8)
    assert isinstance(task, Task)
    check_task(task)
    assert (task.name, task.kind, task.labels) == ("reviews", "classification", ("bad", "good"))
    assert (task.model_name, task.head, task.official) == (checkpoint, ("classifier.",), False)
    assert (len(task._train), len(task.held_out), task.steps_per_epoch) == (72, 8, 9)
    assert list(task.evaluate(task.model(seed=0))) == ["accuracy", "macro_f1", "f1"]
    assert task.model(seed=0).config.id2label == {0: "bad", 1: "good"}
    assert task.inputs(20)["input_ids"].shape[0] == 20


def test_regression_on_pairs_is_a_task(prices, checkpoint):
    task = hf.text(prices, text="one", text2="two", label="price", model=checkpoint)
    check_task(task)
    assert (task.kind, task.labels) == ("pair regression", ())
    assert list(task.evaluate(task.model(seed=0))) == ["pearson", "spearman", "rmse", "mae"]
    assert task.inputs(4)["token_type_ids"].any()


def test_a_kept_model_cuts_long_texts_where_it_was_trained_to(reviews, checkpoint, tmp_path):
    task = hf.text(reviews, text="review", label="stars", model=checkpoint, max_length=12)
    task.save(tmp_path / "kept", task.model(seed=0))
    model, tokenizer = hf.load(tmp_path / "kept")
    texts = ["the cat sat on the mat " * 50, "a dog"]
    cut = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert cut["input_ids"].tolist() == task.encode(texts)["input_ids"].tolist()
    assert finished.longest(model, tokenizer) == 12
    assert hf.text(reviews, text="review", label="stars", model=checkpoint, max_length=20).encode(texts)[
        "input_ids"
    ].shape == (2, 20)


def test_a_path_serves_for_a_folder_and_a_file(reviews, checkpoint):
    more = {"text": "review", "label": "stars", "max_length": 32}
    named, placed = (hf.text(kind(reviews), model=kind(checkpoint), **more) for kind in (str, Path))
    assert (placed.note, placed.model_name, placed.name) == (named.note, named.model_name, named.name)


def test_new_texts_are_encoded_from_whatever_holds_them(reviews, checkpoint):
    task = hf.text(reviews, text="review", label="stars", model=checkpoint)
    texts = ["the cat sat", "a dog"]
    whole = task.encode(texts)
    pd = pytest.importorskip("pandas")
    for some in (tuple(texts), (text for text in texts), np.array(texts), pd.Series(texts, index=[7, 9])):
        assert all(torch.equal(whole[name], tensor) for name, tensor in task.encode(some).items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("the cat", "got 'the cat'"),
        (["the cat", None], "got None"),
        (["the cat", float("nan")], "got nan"),
        ([1, 2], "got 1"),
        ([b"the cat"], "got b'the cat'"),
        ([("the cat", "a dog")], r"got \('the cat', 'a dog'\)"),
    ],
)
def test_what_is_no_text_is_not_encoded(reviews, checkpoint, given, said):
    task = hf.text(reviews, text="review", label="stars", model=checkpoint)
    with pytest.raises(TypeError, match=f"reviews reads texts and takes a list of them; {said}"):
        task.encode(given)


@pytest.mark.parametrize("given", ["the cat", ["the cat"], [("the cat", None)], [("a", "dog", "sat")]])
def test_what_is_no_pair_is_not_encoded_where_the_task_is_about_pairs(prices, checkpoint, given):
    task = hf.text(prices, text="one", text2="two", label="price", model=checkpoint)
    assert task.encode([("the cat", "a dog")])["token_type_ids"].any()
    with pytest.raises(TypeError, match="prices reads pairs of texts and takes a list of them; got"):
        task.encode(given)


@pytest.mark.parametrize("text2", [None, "two"])
def test_the_lines_of_the_card_run_and_give_pairs_where_the_model_reads_them(
    prices, checkpoint, tmp_path, capsys, text2
):
    task = hf.text(prices, text="one", text2=text2, label="price", model=checkpoint)
    task.save(tmp_path / "kept", task.model(seed=0))
    card = (tmp_path / "kept" / "README.md").read_text()
    exec(card.split("```")[1].removeprefix("python").replace("path/to/this/folder", str(tmp_path / "kept")), {})
    texts = ["a text", "another one"]
    given = list(zip(texts, ["its pair", "the other's pair"], strict=True)) if text2 else texts
    told = task.predicted(task.model(seed=0).eval()(**task.encode(given)).logits.detach().numpy())
    assert json.loads(capsys.readouterr().out) == pytest.approx(told, rel=1e-7)


def test_the_note_says_what_was_found_split_and_left_out(tmp_path, checkpoint):
    texts = [*sentences(60, 0), "", "the cat", "The  CAT"]
    labels = [["no", "yes"][i % 2] for i in range(63)]
    task = hf.text(save(tmp_path / "mine.csv", t=texts, y=labels), text="t", label="y", model=checkpoint, holdout=0.25)
    assert task.note == (
        f"mine train {len(task._train)}, validation {len(task.held_out)}; {Path(checkpoint).name}; "
        "classification into 2: no, yes; 1 row without 't' left out (line 62); 1 text with more than one label; "
        "own split, stratified, seed 0, rows with the same text on one side"
    )
    assert task.remarks == task.note.split("; ")[3:]


def test_scores_are_learnt_in_standard_deviations_and_predicted_in_their_unit(prices, tmp_path, checkpoint):
    columns = {"text": "one", "label": "price", "model": checkpoint}
    task = hf.text(prices, **columns)
    mean, deviation = task.unit
    assert mean == pytest.approx(task._train.labels.mean(), rel=1e-6)
    assert deviation == pytest.approx(task._train.labels.std(), rel=1e-4)
    model = task.model(seed=0).eval()
    inputs, labels = next(iter(task.batches(seed=0)))
    outputs = train.logits(model, inputs)
    z = (labels.double().numpy() - mean) / deviation
    expected = np.mean((outputs.detach().numpy()[:, 0] - z) ** 2)
    assert task.objective(model, (inputs, labels)).item() == pytest.approx(expected, rel=1e-5)
    assert task.predicted(outputs.detach().numpy()) == pytest.approx(outputs[:, 0].detach().numpy() * deviation + mean)
    with open(prices) as file:
        rows = list(csv.DictReader(file))
    cents = save(tmp_path / "cents.csv", one=[r["one"] for r in rows], price=[100 * float(r["price"]) for r in rows])
    other = hf.text(cents, **columns)  # another unit: the same loss and correlations, errors a hundred times as large
    assert other.objective(model, next(iter(other.batches(seed=0)))).item() == pytest.approx(expected, rel=1e-4)
    found, scaled = task.evaluate(model), other.evaluate(model)
    assert [scaled[key] for key in found] == pytest.approx(
        [found[key] * (100 if key in {"rmse", "mae"} else 1) for key in found], rel=1e-3
    )


def test_predicted_labels_are_names(reviews, checkpoint):
    task = hf.text(reviews, text="review", label="stars", model=checkpoint)
    assert task.predicted(np.array([[1.0, 0.0], [0.0, 1.0]])) == ["bad", "good"]
    assert task.unit == (0.0, 1.0)


def test_a_table_is_learnt(tmp_path, checkpoint):
    """Texts with 'good' in them are good: far above the 0.5 of guessing after 60 steps."""
    texts = [f"{a} {'good' if i % 2 else 'bad'}" for i, a in enumerate(s.replace("good", "a").replace("bad", "a") for s in
             sentences(200, 5))]  # fmt: skip
    path = save(tmp_path / "t.csv", t=texts, y=[i % 2 == 1 for i in range(200)])
    task = hf.text(path, text="t", label="y", model=checkpoint, holdout=0.3)
    assert task.labels == ("false", "true")
    model = task.model(seed=0)
    train.fit(model, task.objective, task.batches(seed=0), torch.optim.Adam(model.parameters(), lr=5e-3), steps=60)
    assert task.evaluate(model)["accuracy"] > 0.9


def test_the_factory_knows_steps_and_fingerprint_without_the_model(reviews, checkpoint):
    given = {"text": "review", "label": "stars", "model": checkpoint, "batch_size": 7, "holdout": 0.2}
    assert hf.text.steps_per_epoch(reviews, **given) == hf.text(reviews, **given).steps_per_epoch == 10
    before = hf.text.fingerprint(reviews, **given)
    assert hf.text.fingerprint(reviews, **given | {"seed": 3}) == before  # arguments are hashed anyway
    with open(reviews, "a") as file:
        file.write("the cat,good\r\n")
    assert hf.text.fingerprint(reviews, **given) != before
    given.pop("holdout")
    assert hf.text.fingerprint(reviews, validation=reviews, **given) != hf.text.fingerprint(reviews, **given)


def test_a_fault_in_the_columns_is_found_while_planning(reviews, checkpoint):
    with pytest.raises(LookupError, match="has no column 'revew'; did you mean 'review'"):
        hf.text.fingerprint(reviews, text="revew", label="stars", model=checkpoint)
    with pytest.raises(FileNotFoundError, match="no file dev.csv"):
        hf.text.fingerprint(reviews, text="review", label="stars", model=checkpoint, validation="dev.csv")
    with pytest.raises(FileNotFoundError, match="checkpoint 'no/such'"):
        hf.text.fingerprint(reviews, text="review", label="stars", model="no/such")


def test_a_recipe_names_it(reviews, checkpoint):
    wanted = {"name": "text", "data": reviews, "text": "review", "label": "stars", "model": checkpoint, "holdout": 0.2}
    spec = Spec.parse(wanted, "task")
    assert check(spec, TASKS)["max_length"] == 128
    task = make_task(spec)
    assert len(task.held_out) == 16
    assert make_task(spec) is task
    with pytest.raises(ValueError, match="text takes no 'lable'; did you mean 'label'"):
        check(Spec.parse({"name": "text", "lable": "x"}, "task"), TASKS)


def test_long_texts_are_cut_and_a_length_that_does_not_fit_is_refused(tmp_path, checkpoint):
    path = save(
        tmp_path / "t.csv", t=[f"{s} {'cat ' * 30_000}" for s in sentences(30, 0)], y=[i % 2 for i in range(30)]
    )
    task = hf.text(path, text="t", label="y", model=checkpoint, max_length=16)
    assert task.inputs(3)["input_ids"].shape[1] == 16
    with pytest.raises(ValueError, match="max_length 200 must be from 3 to 160"):
        hf.text(path, text="t", label="y", model=checkpoint, max_length=200)


def test_texts_tokenised_in_pieces_are_those_tokenised_at_once(checkpoint, monkeypatch):
    columns = [sentences(25, 0), sentences(25, 1)]
    tokenizer = models.tokenizer(checkpoint)
    keys, found = [], []
    for chunk in (10_000, 7):
        monkeypatch.setattr(tokens, "CHUNK", chunk)
        keys.append(tokens._key(tokenizer, columns, 12, "x"))
        found.append(tokens.encode(tokenizer, columns, max_length=12, identity=f"chunk {chunk}"))
    assert keys[0] == keys[1]
    for field in ("ids", "offsets", "types"):
        assert np.array_equal(getattr(found[0], field), getattr(found[1], field))


# --- metrics --------------------------------------------------------------------------------------------------------


def test_classification_is_scored_by_the_formulas():
    draw = np.random.default_rng(0)
    for classes in (2, 4):
        logits, labels = draw.normal(size=(60, classes)), draw.integers(0, classes, 60)
        said = logits.argmax(1)
        tp = np.array([((said == c) & (labels == c)).sum() for c in range(classes)])
        f1 = 2 * tp / (np.bincount(said, minlength=classes) + np.bincount(labels, minlength=classes))
        found = metrics.classification(logits, labels)
        expected = {"accuracy": np.mean(said == labels), "macro_f1": f1.mean()} | (
            {"f1": f1[1]} if classes == 2 else {}
        )
        assert list(found) == list(expected)
        assert found == pytest.approx(expected)


def test_regression_is_scored_by_the_formulas():
    draw = np.random.default_rng(0)
    said, scores = draw.normal(size=50), draw.normal(size=50).astype(np.float32)
    found = metrics.regression(said, scores)
    rank = lambda values: np.argsort(np.argsort(values))
    assert found == pytest.approx(
        {
            "pearson": np.corrcoef(said, scores)[0, 1],
            "spearman": np.corrcoef(rank(said), rank(scores))[0, 1],
            "rmse": np.sqrt(np.mean((said - scores) ** 2)),
            "mae": np.mean(np.abs(said - scores)),
        }
    )
    assert metrics.regression(np.ones(3), np.arange(3.0))["pearson"] == 0.0
    with pytest.raises(ValueError, match="not finite for 1 of 2 examples; it has diverged"):
        metrics.regression(np.array([np.nan, 1.0]), np.ones(2))
    with pytest.raises(ValueError, match="not finite for 1 of 2 examples"):
        metrics.classification(np.array([[0.0, np.inf], [1.0, 0.0]]), np.array([0, 1]))


# --- the real files -------------------------------------------------------------------------------------------------

REAL = {  # rows of training whose texts are in validation too, up to case and blanks; counted apart from this code
    "sst2": ("classification", 0),
    "cola": ("classification", 16),
    "mrpc": ("pair classification", 0),
    "stsb": ("pair regression", 6),
}


@pytest.mark.parametrize("subset", REAL)
def test_a_real_table_in_csv_has_the_rows_of_glue(subset, shared, tmp_path):
    kind, repeated = REAL[subset]
    published, rows = glue_data.official(subset), glue_data.read(subset, str(shared / "data"))
    files = {}
    for split, found in rows.items():
        labels = (
            [published.labels[i] for i in found.labels] if published.labels else [repr(float(y)) for y in found.labels]
        )
        files[split] = save(tmp_path / f"{split}.csv", **dict(zip(published.columns, found.texts)), label=labels)
    columns = Columns(published.columns[0], "label", text2=dict(enumerate(published.columns)).get(1))
    found = prepare(files["train"], columns, None, files["validation"], None, 0)
    assert found.target.kind == kind
    assert set(found.target.names) == set(published.labels)
    name = lambda labels, names: [names[i] for i in labels] if names else labels.tolist()
    triples = lambda texts, labels, names: list(zip(*texts, name(labels, names)))
    expected = {split: triples(of.texts, of.labels, published.labels) for split, of in rows.items()}
    seen = {" | ".join(" ".join(text.split()).casefold() for text in row[:-1]) for row in expected["validation"]}
    kept = [
        row for row in expected["train"] if " | ".join(" ".join(x.split()).casefold() for x in row[:-1]) not in seen
    ]
    assert triples(found.held_out.texts, found.held_out.labels, found.target.names) == expected["validation"]
    assert triples(found.train.texts, found.train.labels, found.target.names) == kept
    assert len(expected["train"]) - len(kept) == repeated
    assert len(expected["train"]) == published.sizes["train"]


def test_the_tokens_of_a_csv_are_those_of_glue(shared, tmp_path, checkpoint):
    rows = glue_data.read("mrpc", str(shared / "data"))
    files = {
        split: save(tmp_path / f"{split}.csv", a=of.texts[0], b=of.texts[1], y=of.labels) for split, of in rows.items()
    }
    task = hf.text(files["train"], text="a", text2="b", label="y", model=checkpoint, validation=files["validation"])
    glue = hf.glue("mrpc", model=checkpoint, data=str(shared / "data"))
    assert task.steps_per_epoch == glue.steps_per_epoch
    for mine, theirs in zip(task.held_out_batches(), glue.held_out_batches(), strict=True):
        assert torch.equal(mine[1], theirs[1])
        assert all(torch.equal(mine[0][key], theirs[0][key]) for key in theirs[0])
    model = glue.model(seed=0)
    assert train.snapshot(task.model(seed=0)).keys() == train.snapshot(model).keys()
    assert task.evaluate(model).items() >= glue.evaluate(model).items()
