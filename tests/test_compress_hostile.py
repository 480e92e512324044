"""Tables as they come, and wishes that cannot be: each works and says what was done, or is one sentence and leaves nothing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
from pathlib import Path

import pytest
import tinybert
from tinybert import BAD, GOOD

from trainflat import cli, hf
from trainflat.experiments import runner

pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
pq = pytest.importorskip("pyarrow.parquet")

QUICK = ["--probe", "0", "--try", "int8", "--epochs", "1", "--lr", "0.003", "--batch-size", "16", "--max-length", "16"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return tinybert.checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def compress(tiny, tmp_path, monkeypatch, capsys):
    """``trainflat compress`` in a folder of its own: exit code, standard output, standard error, and how many stages ran."""
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    original = runner.run_stage
    monkeypatch.setattr(runner, "run_stage", lambda job, *rest: (ran.append(job.name), original(job, *rest))[1])

    def call(
        *words: str, quick: bool = True, model: str | None = None, out: str = "small"
    ) -> tuple[int, str, str, int]:
        ran.clear()
        given = ["compress", *words, "--model", model or str(tiny), "--out", out, *(QUICK if quick else [])]
        monkeypatch.setattr(sys, "argv", ["trainflat", *given])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out_, err = capsys.readouterr()
        return code, out_, err, len(ran)

    return call


def reviews(size: int = 40, **more: str) -> list[dict]:
    """One word decides; every text is another one."""
    made = []
    for i in range(size):
        word = (GOOD if i % 2 else BAD)[i // 2 % 4]
        made.append({"id": f"{i}", "review": f"a film so {word} w{i}", "stars": ["bad", "good"][i % 2], **more})
    return made


def write(path: str, rows: list[dict], encoding: str = "utf-8") -> str:
    """The rows as CSV, or in the format that the ending says."""
    if path.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.endswith(".jsonl"):
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(path, "w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def one_sentence(told: tuple[int, str, str, int], *parts: str, tmp_path: Path, out: str = "small") -> None:
    """Exit code 2, one line that says all parts, nothing trained, nothing kept, nothing beside it."""
    code, stdout, err, ran = told
    assert code == 2, (stdout, err)
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert "Traceback" not in stdout + err
    for part in parts:
        assert part in err, err
    assert ran == 0
    assert not os.path.lexists(tmp_path / out) or out == "taken"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".small")]


def works(told: tuple[int, str, str, int], *parts: str, tmp_path: Path) -> str:
    """Exit code 0, a folder that loads, and on standard error all parts of what was found and done."""
    code, stdout, err, ran = told
    assert code == 0, err
    assert ran > 0
    for part in parts:
        assert part in " ".join(err.split()), err
    model, tokenizer = hf.load(str(tmp_path / "small"))
    assert model(**tokenizer(["a film"], return_tensors="pt")).logits.shape[0] == 1
    return stdout


COLUMNS = ["--text", "review", "--label", "stars"]


# --- tables that work -----------------------------------------------------------------------------------------------


def hostile_texts() -> list[dict]:
    """A byte-order mark is added by the encoding; the first column is the text's."""
    odd = ['a "quoted" film', "two\nlines", "a, comma", "semi; colon", "tab\there", "ünïcode 猫", "x" * 100_000, '"']
    rows = [{"review": row["review"], "stars": row["stars"]} for row in reviews(60)]
    for i, text in enumerate(odd):
        rows[i]["review"] = text
    return rows


def test_a_byte_order_mark_quotes_newlines_and_texts_of_100_000_characters_are_read(compress, tmp_path):
    write("odd reviews (1).csv", hostile_texts(), encoding="utf-8-sig")
    told = compress("odd reviews (1).csv", *COLUMNS)
    stdout = works(told, "train 54, validation 6", "classification into 2: bad, good", "own split", tmp_path=tmp_path)
    assert "odd reviews (1) train 54" in stdout
    assert len((tmp_path / "small" / "report" / "report.html").read_text()) < 2_000_000


def test_rows_without_a_label_are_left_out_and_labels_with_blanks_are_the_same_label(compress, tmp_path):
    rows = reviews(44)
    for i, label in ((3, ""), (7, "  "), (9, " good "), (11, "good\t")):
        rows[i]["stars"] = label
    told = compress(write("t.csv", rows), *COLUMNS)
    works(told, "2 rows without 'stars' left out (from line 5)", "classification into 2: bad, good", tmp_path=tmp_path)


def test_a_class_with_one_example_is_trained_on_and_said(compress, tmp_path):
    rows = reviews(40)
    rows[5]["stars"] = "odd"
    told = compress(write("t.csv", rows), *COLUMNS)
    works(told, "1 label with one example (odd)", "not in validation: odd", tmp_path=tmp_path)
    assert hf.load(str(tmp_path / "small"))[0].config.id2label == {0: "bad", 1: "good", 2: "odd"}


def test_duplicates_across_a_given_split_are_not_trained_on_and_counted(compress, tmp_path):
    write("t.csv", reviews(40))
    write("v.csv", [*reviews(48)[36:], {**reviews(1)[0], "review": reviews(1)[0]["review"].upper()}])
    told = compress("t.csv", *COLUMNS, "--validation", "v.csv")
    works(told, "train 35, validation 13", "5 training rows left out whose texts are in", tmp_path=tmp_path)


def test_duplicates_in_one_table_stay_on_one_side_and_contradictions_are_counted(compress, tmp_path):
    rows = [*reviews(40), *reviews(40)[:20], {**reviews(1)[0], "stars": "good"}]
    told = compress(write("t.csv", rows), *COLUMNS)
    works(told, "rows with the same text on one side", "1 text with more than one label", tmp_path=tmp_path)


def test_numbers_that_are_absent_are_left_out_of_a_regression(compress, tmp_path):
    rows = [{"review": row["review"], "stars": 1.5 + i % 7} for i, row in enumerate(reviews(50))]
    rows[4]["stars"] = float("nan")
    rows[8]["stars"] = None
    told = compress(write("t.parquet", rows), *COLUMNS, "--max-drop", "200")
    works(told, "regression", "2 rows without 'stars' left out (from row 5)", tmp_path=tmp_path)


def test_a_folder_that_does_not_exist_yet_is_made_for_the_model_and_an_empty_one_serves(compress, tmp_path):
    write("t.csv", reviews(40))
    code, _, err, ran = compress("t.csv", *COLUMNS, out="new/er/small")
    assert (code, ran > 0) == (0, True), err
    (tmp_path / "small").mkdir()
    works(compress("t.csv", *COLUMNS), tmp_path=tmp_path)


# --- tables that cannot be ------------------------------------------------------------------------------------------


def broken(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def lines_broken_at_row_7() -> bytes:
    lines = [json.dumps(row) for row in reviews(20)]
    lines[6] = lines[6][:20]
    return "\n".join(lines).encode()


FAULTS = {
    "an empty column": (lambda: write("t.csv", reviews(20, review="")), ["column 'review'", "is empty in all 20 rows", "id"]),
    "an empty label": (lambda: write("t.csv", reviews(20, stars=" ")), ["column 'stars'", "is empty in all 20 rows"]),
    "one class": (lambda: write("t.csv", reviews(20, stars="good")), ["'stars'", "'good' in all 20 rows", "nothing to learn"]),
    "three rows": (lambda: write("t.csv", reviews(3)), ["t.csv: 3 rows are too few", "give more rows", "validation file"]),
    "mixed labels": (
        lambda: write("t.csv", [{**row, "stars": [row["stars"], "3"][i == 9]} for i, row in enumerate(reviews(30))]),
        ["column 'stars'", "line 11 has '3' where others have 'bad'", "--kind classification"],
    ),
    "an infinite score": (
        lambda: write("t.csv", [{**row, "stars": [f"{i}.5", "inf"][i == 4]} for i, row in enumerate(reviews(30))]),
        ["column 'stars'", "line 6 has 'inf'", "correct it"],
    ),
    "a NaN score": (
        lambda: write("t.csv", [{**row, "stars": [f"{i}.5", "nan"][i == 4]} for i, row in enumerate(reviews(30))]),
        ["column 'stars'", "line 6 has 'nan'", "correct it"],
    ),
    "an infinite score in Parquet": (
        lambda: write("t.parquet", [{**row, "stars": float("inf") if i == 4 else i + 0.5} for i, row in enumerate(reviews(30))]),
        ["column 'stars'", "row 5 has 'inf'", "correct it"],
    ),
    "texts as labels": (
        lambda: write("t.csv", [{**row, "stars": row["review"] + "!"} for row in reviews(50)]),
        ["has 50 different texts in 50 rows", "name another column", "--kind classification"],
    ),
    "Parquet named .csv": (
        lambda: write("p.parquet", reviews(20)) and str(Path("p.parquet").rename("t.csv")),
        ["t.csv is Parquet, not CSV", "rename it to t.parquet"],
    ),
    "CSV named .parquet": (
        lambda: str(Path(write("p.csv", reviews(20))).rename("t.parquet")), ["t.parquet is not Parquet", "rename it"]
    ),
    "JSON lines broken at row 7": (
        lambda: broken("t.jsonl", lines_broken_at_row_7()), ["t.jsonl line 7 is not a JSON object"]
    ),
    "gzip": (lambda: broken("t.csv.gz", gzip.compress(b"review,stars\na,b\n")), ["compressed by gzip", "gunzip"]),
    "gzip named .csv": (lambda: broken("t.csv", gzip.compress(b"review,stars\na,b\n")), ["compressed by gzip", "gunzip"]),
    "an empty file": (lambda: broken("t.csv", b""), ["t.csv is empty"]),
    "a header alone": (lambda: broken("t.csv", b"review,stars\n"), ["not one row"]),
    "a row too short": (lambda: broken("t.csv", b"review,stars\na,b\nc\n"), ["line 3 has 1 fields and the header 2"]),
    "a quote that never closes": (lambda: broken("t.csv", b'review,stars\na,b\n"c,d\n'), ["begins on line 3", "never closed"]),
    "another encoding": (lambda: broken("t.csv", b"review,stars\na,b\nc\xe9,d\n"), ["line 3 is not UTF-8", "iconv"]),
    "a folder": (lambda: str(Path("data").mkdir() or "data"), ["is a folder; name a file in it"]),
    "no such file": (lambda: write("t.csv", reviews(20)) and "tt.csv", ["there is no file", "did you mean 't.csv'"]),
    "nowhere": (lambda: "owner/nowhere", ["there is no file owner/nowhere", "HF_HUB_OFFLINE"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_cannot_be_is_one_sentence_before_anything_is_trained(compress, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    make, parts = FAULTS[fault]
    one_sentence(compress(make(), *COLUMNS), *parts, tmp_path=tmp_path)


# --- wishes that cannot be ------------------------------------------------------------------------------------------

WISHES = {
    "no such text": (["--text", "reviw", "--label", "stars"], ["no column 'reviw'; did you mean 'review'?", "id, review"]),
    "no such label": (["--text", "review", "--label", "stras"], ["no column 'stras'; did you mean 'stars'?"]),
    "no such group": ([*COLUMNS, "--groups", "who"], ["no column 'who'; it has id, review, stars"]),
    "label is text": (["--text", "stars", "--label", "stars"], ["column 'stars'", "cannot serve twice"]),
    "text twice": (["--text", "review", "--text", "review", "--label", "stars"], ["column 'review'", "cannot serve twice"]),
    "text thrice": ([*COLUMNS, "--text", "a", "--text", "b"], ["two for pairs; got 3: review, a, b"]),
    "no text": (["--label", "stars"], ["--text"]),
    "no label": (["--text", "review"], ["--label"]),
    "an empty column name": (["--text", "", "--label", "stars"], ["no column ''"]),
    "kind": ([*COLUMNS, "--kind", "ranking"], ["kind 'ranking' is not one of classification, regression"]),
    "texts as scores": ([*COLUMNS, "--kind", "regression"], ["line 2: label 'bad' is not a number"]),
    "no such validation": ([*COLUMNS, "--validation", "v.csv"], ["there is no file v.csv"]),
    "validation and groups": ([*COLUMNS, "--validation", "t.csv", "--groups", "id"], ["groups is for a split of our own"]),
    "validation is the table": ([*COLUMNS, "--validation", "t.csv"], ["give a validation file with other texts"]),
    "a budget without a unit": ([*COLUMNS, "--budget", "20"], ["--budget is a latency such as 20ms", "'20'"]),
    "a budget of nothing": ([*COLUMNS, "--budget", "0ms"], ["above 0; got '0ms'"]),
    "a negative budget": ([*COLUMNS, "--budget", "-3MB"], ["--budget is a latency", "'-3MB'"]),
    "a budget that is none": ([*COLUMNS, "--budget", "cheap"], ["--budget is a latency", "'cheap'"]),
    "a negative drop": ([*COLUMNS, "--max-drop", "-1"], ["must be 0 or more, got -1.0"]),
    "a drop that is no number": ([*COLUMNS, "--max-drop", "nan"], ["must be 0 or more, got nan"]),
    "a drop in words": ([*COLUMNS, "--max-drop", "little"], ["'--max-drop'", "number"]),
    "target": ([*COLUMNS, "--target", "speed"], ["--target is latency, size or sparsity, got 'speed'"]),
    "sparsity without a way": ([*COLUMNS, "--target", "sparsity", "--try", "int8"], ["pruned or shrunk", "int8"]),
    "seeds": ([*COLUMNS, "--seeds", "many"], ["--seeds takes a range such as 0-4", "'many'"]),
    "no seeds": ([*COLUMNS, "--seeds", ""], ["--seeds takes a range"]),
    "a seed twice": ([*COLUMNS, "--seeds", "0,0"], ["different whole numbers", "[0, 0]"]),
    "seeds backwards": ([*COLUMNS, "--seeds", "3-1"], ["--seeds takes a range", "3-1"]),
    "a size above 1": ([*COLUMNS, "--sizes", "1.5"], ["in (0, 1); got 1.5"]),
    "a size of nothing": ([*COLUMNS, "--sizes", "0"], ["in (0, 1); got 0.0"]),
    "a size that is none": ([*COLUMNS, "--sizes", "nan"], ["in (0, 1); got nan"]),
    "sizes in words": ([*COLUMNS, "--sizes", "half"], ["--sizes takes numbers such as 0.5,0.9", "'half'"]),
    "try": ([*COLUMNS, "--try", "magic"], ["what can be tried is", "got magic"]),
    "rule": ([*COLUMNS, "--rule", "sma"], ["there is no 'sma'", "in trainflat.flat; did you mean"]),
    "rho": ([*COLUMNS, "--rho", "-1"], ["rho", "-1"]),
    "a rule twice": ([*COLUMNS, "--rule", "sam", "--rule", "sam"], ["the rule SAM is there twice"]),
    "a rho for two rules": (
        [*COLUMNS, "--rule", "sam", "--rule", "asam", "--rho", "0.1"],
        ["--rho 0.1 is the radius of which rule"],
    ),
    "rho in words": ([*COLUMNS, "--rho", "wide"], ["--rho takes a number", "\"auto\"", "'wide'"]),
    "a rho to be found by a rule that finds its own": (
        [*COLUMNS, "--rule", "smoothness_adaptive", "--rho", "auto"],
        ["rho must be a number"],
    ),
    "precision": ([*COLUMNS, "--precision", "fp8"], ["precision", "fp8"]),
    "epochs": ([*COLUMNS, "--epochs", "0"], ["epochs", "0"]),
    "epochs that are none": ([*COLUMNS, "--epochs", "nan"], ["epochs", "nan"]),
    "learning rate": ([*COLUMNS, "--lr", "-1"], ["lr must be a number above 0, got -1.0"]),
    "batch": ([*COLUMNS, "--batch-size", "0"], ["batch size 0 is below 1"]),
    "length": ([*COLUMNS, "--max-length", "1000"], ["max_length 1000 must be from 3 to 32"]),
    "threads": ([*COLUMNS, "--threads", "0"], ["threads must be at least 1"]),
    "device": ([*COLUMNS, "--device", "tpu9"], ["the device 'tpu9' is not to be had here"]),
    "an unknown option": ([*COLUMNS, "--sise", "3"], ["--sise"]),
    "an unknown keyword": ([*COLUMNS, "--set", "holdot=0.2"], ["'holdot'", "did you mean 'holdout'"]),
    "a keyword with an option": ([*COLUMNS, "--set", "epochs=2"], ["--set epochs: it has an option of its own"]),
    "holdout": ([*COLUMNS, "--set", "holdout=0.9"], ["holdout must be above 0 and at most 0.5"]),
    "an offer and a wish": ([*COLUMNS, "--offer", "dense from SAM", "--max-drop", "1"], ["leave --max-drop and --budget out"]),
}  # fmt: skip


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_that_cannot_be_is_one_sentence_before_anything_is_trained(compress, tmp_path, wish):
    options, parts = WISHES[wish]
    write("t.csv", reviews(20))
    hides = {"--try", "--epochs", "--lr", "--batch-size", "--max-length"} & set(options)
    rest = [w for i in range(0, len(QUICK), 2) if QUICK[i] not in hides for w in QUICK[i : i + 2]]
    one_sentence(compress("t.csv", *options, *rest, quick=False), *parts, tmp_path=tmp_path)


def test_a_validation_table_of_other_columns_or_labels_is_one_sentence(compress, tmp_path):
    write("t.csv", reviews(20))
    write("v.csv", [{"text": "a", "stars": "good"}])
    told = compress("t.csv", *COLUMNS, "--validation", "v.csv")
    one_sentence(told, "v.csv has no column 'review'; it has text, stars", tmp_path=tmp_path)
    write("w.csv", [{"review": "new", "stars": "good"}, {"review": "newer", "stars": "fair"}])
    told = compress("t.csv", *COLUMNS, "--validation", "w.csv")
    one_sentence(told, "w.csv line 3: label 'fair' is not one of bad, good", tmp_path=tmp_path)


# --- folders and models that cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("taken", "taken is there and not empty; name another folder"),
        ("t.csv", "t.csv is there and is no folder"),
        ("t.csv/small", "t.csv/small cannot be made, since"),
        ("t.csv/deep/er/small", "t.csv is a file; name another folder"),
    ],
)
def test_a_place_where_nothing_can_be_kept_is_one_sentence_before_anything_is_read(compress, tmp_path, out, said):
    write("t.csv", reviews(40))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, _, err, ran = compress("t.csv", *COLUMNS, out=out)
    assert (code, err.count("\n"), ran) == (2, 1, 0)
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_in_the_folder_that_has_to_be_empty_is_one_sentence(compress, tmp_path, monkeypatch):
    write("t.csv", reviews(40))
    told = compress("t.csv", *COLUMNS, "--store", "small/.trainflat")
    one_sentence(told, "the store small/.trainflat is in small, which has to be empty", tmp_path=tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    told = compress("../t.csv", *COLUMNS, out=".")
    one_sentence(told, "the store .trainflat is in ., which has to be empty", tmp_path=tmp_path)
    assert not any(tmp_path.glob("empty/*"))


def test_a_store_that_is_a_file_is_one_sentence(compress, tmp_path):
    write("t.csv", reviews(40))
    one_sentence(compress("t.csv", *COLUMNS, "--store", "t.csv"), "the store t.csv is no folder", tmp_path=tmp_path)


def spoilt(tiny: Path, name: str) -> str:
    """A copy of the model with something wrong with it."""
    folder = Path(name)
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return name


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (None, ["nowhere"]),
        (lambda folder: [file.unlink() for file in folder.glob("*.json")], ["has no config.json"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["has no model.safetensors"]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), ["the checkpoint in", "cannot be read"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json cannot be read"]),
        (
            lambda folder: [file.unlink() for file in folder.iterdir() if "token" in file.name or "vocab" in file.name],
            ["tokenizer"],
        ),
    ],
    ids=["absent", "no config", "no weights", "damaged weights", "damaged config", "no tokenizer"],
)
def test_a_model_that_is_none_is_one_sentence_before_anything_is_trained(compress, tiny, tmp_path, spoil, said):
    write("t.csv", reviews(40))
    model = "nowhere" if spoil is None else spoilt(tiny, "spoilt")
    if spoil:
        spoil(tmp_path / model)
    one_sentence(compress("t.csv", *COLUMNS, model=f"./{model}"), *said, tmp_path=tmp_path)


def test_a_budget_that_nothing_meets_keeps_no_model_and_names_the_nearest(compress, tmp_path):
    write("t.csv", reviews(40))
    code, out, err, ran = compress("t.csv", *COLUMNS, "--budget", "1kB")
    assert (code, ran > 0) == (2, True)
    assert (
        err.strip().splitlines()[-1].startswith("error: nothing was kept: No model is within 0.001 MB; the nearest, ")
    )
    assert "Report: " in out
    assert not (tmp_path / "small").exists()


def test_an_offer_that_there_is_not_is_a_sentence_that_lists_those_there_are(compress, tmp_path):
    write("t.csv", reviews(40))
    code, _, err, _ = compress("t.csv", *COLUMNS, "--offer", "dense from SMA")
    assert code == 2
    assert "there is no model 'dense from SMA'; did you mean 'dense from SAM'? (known: dense from Adam, " in err
    assert not (tmp_path / "small").exists()


# --- real data ------------------------------------------------------------------------------------------------------

SIZES = {"train": 300, "validation": 100}
REAL = {
    "sst2": (("sentence",), "classification into 2: 0, 1"),
    "cola": (("sentence",), "classification into 2: 0, 1"),
    "mrpc": (("sentence1", "sentence2"), "pair classification into 2: 0, 1"),
    "stsb": (("sentence1", "sentence2"), "pair regression"),
}


FULLY = [pytest.param(name, marks=pytest.mark.slow) if name in ("sst2", "cola") else name for name in REAL]


@pytest.mark.parametrize("name", FULLY)
def test_real_tables_are_the_rows_of_glue_and_go_all_the_way(compress, shared, tiny, monkeypatch, tmp_path, name):
    texts, found = REAL[name]
    for split, size in SIZES.items():
        rows = pq.read_table(shared / "data" / "glue" / name / f"{split}.parquet").slice(0, size).to_pylist()
        write(f"{split}.csv", [{column: row[column] for column in (*texts, "label")} for row in rows])
    columns = [word for column in texts for word in ("--text", column)] + ["--label", "label"]
    told = compress("train.csv", *columns, "--validation", "validation.csv", "--max-drop", "200")
    works(told, "train train ", "validation 100; ", found, tmp_path=tmp_path)

    monkeypatch.setenv("TRAINFLAT_DATA", str(shared / "data"))
    official = hf.glue(name, model=str(tiny), max_length=16)
    named = {"text": texts[0], "text2": texts[1] if len(texts) > 1 else None, "label": "label", "model": str(tiny)}
    task = hf.text("train.csv", **named, max_length=16, validation="validation.csv")
    scored = set(zip(*(map(plain, column) for column in task.held_out.texts), strict=True))
    for theirs, ours, size in (
        (official._train, task._train, SIZES["train"]),
        (official._held_out["validation"], task.held_out, SIZES["validation"]),
    ):
        rows = list(zip(*(column[:size] for column in theirs.texts), theirs.labels[:size], strict=True))
        if ours is task._train:  # what is scored is not trained on
            rows = [row for row in rows if tuple(map(plain, row[:-1])) not in scored]
        assert list(zip(*ours.texts, ours.labels, strict=True)) == rows
        assert len(rows) > 0.9 * size


def plain(text: str) -> str:
    """A text up to case and blanks."""
    return " ".join(text.split()).casefold()
