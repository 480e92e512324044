"""A user's table: every format read alike, the kind of task found and said, and every fault one sentence with a way out."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainflat.hf import columns, formats, splits
from trainflat.hf.columns import find
from trainflat.hf.formats import open_file
from trainflat.hf.hubdata import HubData
from trainflat.hf.packed import Coded, Texts
from trainflat.hf.prepared import Prepared, identity, prepare
from trainflat.hf.table import Columns, Table, locate, read

pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
pq = pytest.importorskip("pyarrow.parquet")

REVIEW = Columns("review", "stars")
HARD = [
    'a "quoted" word',
    "two\nlines",
    "a, comma",
    "tab\there",
    "  blanks ",
    "ünïcode 猫",
    "semi; colon",
    '"',
    "x" * 100_000,
]


def write(path: Path, rows: list[dict]) -> Path:
    """The same rows in the format that the ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in {".jsonl", ".ndjson", ".json"}:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def reviews(size: int = 40, labels: tuple = ("bad", "good")) -> list[dict]:
    return [{"id": i, "review": f"review number {i}", "stars": labels[i % len(labels)]} for i in range(size)]


def table(path: Path, of: Columns = REVIEW) -> Table:
    return read(open_file(path), of)


def ready(path: Path, of: Columns = REVIEW, **given) -> Prepared:
    options = {"kind": None, "validation": None, "holdout": None, "seed": 0}
    return prepare(str(path), of, **(options | given))


def labelled(path: Path, values: list, **more) -> Table:
    """A JSON Lines table with these labels."""
    return table(
        write(path / "t.jsonl", [{"review": f"text {i}", "stars": value, **more} for i, value in enumerate(values)])
    )


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", formats.ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    rows = [{"review": text, "stars": "good" if i % 2 else "bad", "other": ""} for i, text in enumerate(HARD)]
    found = table(write(tmp_path / f"t{ending}", rows))
    assert list(found.texts[0]) == HARD
    assert [found.labels.values[code] for code in found.labels.codes] == [row["stars"] for row in rows]


def test_the_endings_are_those_the_errors_list():
    assert list(formats.ENDINGS) == [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, ending):
    path = write(tmp_path / f"t{ending}", [{"review": "a", "stars": "x"}, {"review": "b", "stars": "y"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(table(path).texts[0]) == ["a", "b"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_read_and_lines_are_counted_from_where_a_row_begins(tmp_path, newline):
    path = tmp_path / "t.csv"
    path.write_bytes(newline.join(["review,stars", '"two', 'lines",good', "", "one,bad", ""]).encode())
    found = table(path)
    assert list(found.texts[0]) == [f"two{newline}lines", "one"]
    assert found.places.tolist() == [2, 5]


def test_semicolons_separate_where_the_header_has_no_comma(tmp_path):
    (tmp_path / "t.csv").write_text('review;stars\n"a, b; c";1\nd;2\n')
    assert list(table(tmp_path / "t.csv").texts[0]) == ["a, b; c", "d"]


def test_an_upper_case_ending_is_the_same_ending(tmp_path):
    path = write(tmp_path / "t.csv", reviews())
    assert len(table(path.rename(tmp_path / "T.CSV"))) == 40


def test_a_key_that_some_json_objects_lack_is_a_missing_value(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"review": "a", "stars": 1}\n\n{"review": "b"}\n{"stars": 2, "review": "c"}\n')
    found = table(tmp_path / "t.jsonl")
    assert found.places.tolist() == [1, 4]
    assert found.remarks == ["1 row without 'stars' left out (line 3)"]


def test_parquet_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 7)
    found = table(write(tmp_path / "t.parquet", reviews(40)))
    assert list(found.texts[0]) == [row["review"] for row in reviews(40)]
    assert found.places.tolist() == list(range(1, 41))


@pytest.mark.parametrize("ending", formats.ENDINGS)
def test_a_file_cut_off_anywhere_is_a_sentence_or_fewer_rows(tmp_path, ending):
    whole = write(tmp_path / f"t{ending}", [{"review": text, "stars": "x"} for text in HARD[:-1]]).read_bytes()
    cut, said = tmp_path / f"cut{ending}", []
    for size in range(0, len(whole), max(1, len(whole) // 97)):
        cut.write_bytes(whole[:size])
        try:
            assert len(table(cut)) < len(HARD)
        except (ValueError, LookupError) as error:
            said.append(str(error))
    assert said
    assert all(str(cut) in sentence and len(sentence.splitlines()) == 1 for sentence in said)


# --- files that are not what they should be -------------------------------------------------------------------------


def test_no_such_file_names_the_near_miss(tmp_path):
    write(tmp_path / "reviews.csv", reviews())
    with pytest.raises(FileNotFoundError, match=r"there is no file .*review.csv; did you mean 'reviews.csv'\?"):
        ready(tmp_path / "review.csv")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere/reviews.csv$"):
        ready(tmp_path / "nowhere" / "reviews.csv")
    with pytest.raises(ValueError, match="is a folder; name a file in it: .csv, .tsv"):
        ready(tmp_path)


PARQUET = b"PAR1" + b"\0" * 20 + b"PAR1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", PARQUET, "is Parquet, not CSV as its ending says; rename it to t.parquet"),
        ("t.jsonl", PARQUET, "is Parquet, not JSON Lines as its ending says; rename it to t.parquet"),
        ("t.csv", b'{"review": "a", "stars": 1}\n', "is JSON Lines, not CSV as its ending says; rename it to t.jsonl"),
        ("t.csv", b"review\tstars\na\tb\n", "is separated by tabs, not as its ending says; rename it to t.tsv"),
        ("t.tsv", b"review,stars\na,b\n", "is separated by commas, not as its ending says; rename it to t.csv"),
        ("t.csv", b"PK\x03\x04rest", "is an Excel workbook or another zip archive, not CSV.*; save the sheet as CSV"),
        ("t.xlsx", b"PK\x03\x04rest", "is an Excel workbook or another zip archive; save the sheet as CSV"),
        ("t.csv", b"\x1f\x8b\x08", "is compressed by gzip, not CSV as its ending says; unpack it: gunzip"),
        ("t.csv.gz", b"\x1f\x8b\x08", "is compressed by gzip; unpack it: gunzip"),
        ("t.csv", "review,stars\n".encode("utf-16"), "is text in UTF-16, not CSV as its ending says; save it as UTF-8"),
        ("t.csv", b"a\0b\0c", "is binary, not CSV as its ending says"),
        ("t.csv", b"\n<!DOCTYPE html>", "is a web page, not CSV as its ending says; download the file itself"),
        ("t.jsonl", b'[{"review": "a"}]', "is one JSON array, not JSON Lines.*; write one object on each line"),
        ("t.jsonl", b"review,stars\na,b\n", "line 1 is not a JSON object"),
        ("t.jsonl", b'{"review": "a"}\n[1]\n', r"line 2 is '\[1\]', not a JSON object"),
        ("t.jsonl", b'{"review": "a"}\n{"review": \n', "line 2 is not a JSON object: Expecting value"),
        ("t.parquet", b"review,stars\na,b\n", "is not Parquet as its ending says"),
        ("t.parquet", PARQUET, "cannot be read as Parquet: "),
        ("t.txt", b"review,stars\na,b\n", "has the ending .txt; tables are read from .csv, .tsv, .jsonl"),
        ("table", b"review,stars\na,b\n", "has no ending; tables are read from .csv"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"\n\n\n", "has no line with anything on it"),
        ("t.csv", b"review,stars\n", "has review, stars for its columns and not one row"),
        ("t.csv", b"review,stars\na,b\nc\xe9,d\n", r"line 3 is not UTF-8 \(byte 0xe9\); .* iconv -f WINDOWS-1252"),
        ("t.jsonl", b'{"review": "\xe9", "stars": 1}\n', r"line 1 is not UTF-8 \(byte 0xe9\)"),
        ("t.csv", b"review,stars\na,b\nc, d,e\n", "line 3 has 3 fields and the header 2; a field with ',' in it must be in"),
        ("t.tsv", b"review\tstars\na\tb\nc\n", "line 3 has 1 fields and the header 2; a field with a tab in it must be in"),
        ("t.csv", b'review,stars\na,b\n"c,d\ne,f\n', "row that begins on line 3: a quote is opened and never closed"),
        ("t.csv", b'review,stars\n"a" b,c\n', "row that begins on line 2: .*a quote inside a field must be doubled"),
        ("t.csv", b"review,stars,review\na,b,c\n", "has two columns named 'review'; rename one"),
        ("t.jsonl", b'{"review": 5, "stars": 1}\n', r"line 1: column 'review' is '5' \(int\), not a text"),
        ("t.jsonl", b'{"review": "a", "stars": [1]}\n', r"line 1: column 'stars' is '\[1\]', not a label"),
        ("t.jsonl", b'{"review": "\\ud800", "stars": 1}\n', "line 1: column 'review' has half a character"),
        ("t.jsonl", b"[" * 50_000, "line 1 is not a JSON object"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_sound_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name)) + f"[ ,:].*{message}|{message}") as caught:
        ready(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / name) in str(caught.value)


def test_a_quote_that_never_closes_does_not_swallow_a_large_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("review,stars\na,b\n" + '"c,d\n' + "e,f\n" * (formats.FIELD // 4))
    with pytest.raises(
        ValueError, match="on line 3: a field is longer than 10,000,000 characters: is a quote opened and"
    ):
        table(path)


def test_a_column_that_is_named_by_a_number_is_one_that_does_not_exist(tmp_path):
    path = write(tmp_path / "t.parquet", [{"0": "a", "1": 1}])
    with pytest.raises(LookupError, match=r"has no column 0; did you mean '0'\?"):
        ready(path, Columns(0, 1))  # pyright: ignore[reportArgumentType]


def test_columns_that_do_not_exist_name_the_near_miss(tmp_path):
    path = write(tmp_path / "t.csv", reviews())
    with pytest.raises(
        LookupError, match=r"t.csv has no column 'reviw'; did you mean 'review'\? it has id, review, stars"
    ):
        ready(path, Columns("reviw", "stars"))
    with pytest.raises(LookupError, match=r"has no column 'Stars'; did you mean 'stars'\?"):
        ready(path, Columns("review", "Stars"))
    with pytest.raises(LookupError, match="has no column 'xyz'; it has id, review, stars"):
        ready(path, Columns("review", "stars", groups="xyz"))
    with pytest.raises(ValueError, match="column 'review' of .* cannot serve twice"):
        ready(path, Columns("review", "stars", text2="review"))
    wide = write(tmp_path / "w.csv", [{f"column{i}": "x" for i in range(30)}])
    with pytest.raises(LookupError, match="column11, …$"):
        ready(wide)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["review", "stars"])
def test_an_empty_column_is_one_sentence(tmp_path, ending, column):
    path = write(tmp_path / f"t{ending}", [row | {column: ""} for row in reviews(5)])
    with pytest.raises(ValueError, match=rf"column '{column}' of .* is empty in all 5 rows; name another one: id"):
        ready(path)


def test_rows_without_a_text_or_a_label_are_left_out_and_said(tmp_path):
    rows = reviews(60)
    rows[3]["review"], rows[7]["review"], rows[9]["stars"] = "", " \n ", None
    found = ready(write(tmp_path / "t.csv", rows))
    assert len(found.train) + len(found.held_out) == 57
    assert "2 rows without 'review' left out (from line 5)" in found.remarks
    assert any(re.fullmatch(r"1 row without 'stars' left out \(line \d+\)", remark) for remark in found.remarks)
    nothing = [{"review": "a", "stars": ""}, {"review": "", "stars": "b"}]
    with pytest.raises(ValueError, match="none of the 2 rows of .* has all of review, stars"):
        ready(write(tmp_path / "n.csv", nothing))


# --- what the labels are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["good", "bad", "good"], "classification", ("bad", "good")),
        ([" good", "bad ", "good\t"], "classification", ("bad", "good")),
        ([1, 2, 10, 1], "classification", ("1", "2", "10")),
        (["1", "2", "10", "1"], "classification", ("1", "2", "10")),
        (["1.0", 1, "01", 2.0, "2"], "classification", ("1", "2")),
        ([True, False, True], "classification", ("false", "true")),
        (["TRUE", "False", True], "classification", ("false", "true")),
        (["yes", "no", "true"], "classification", ("no", "true", "yes")),
        (["007", "120", "00123", "007"], "classification", ("7", "120", "123")),
        (["1.5", "2", "3"], "regression", ()),
        ([0.25, 1, 3], "regression", ()),
        (["-1e3", "+.5", "7."], "regression", ()),
        (list(range(20)), "classification", tuple(map(str, range(20)))),
        (list(range(21)), "regression", ()),
        (["1_000", "nan?", "inf"], "classification", ("1_000", "inf", "nan?")),
        ([-1, 1, -1], "classification", ("-1", "1")),
        ([2**60 + 1, 2**60, 2**60 + 1], "classification", (str(2**60), str(2**60 + 1))),
        (
            [f"{2**60 + 1}", f"+{2**60}", "-7.0", f"{-(2**60)}"],
            "classification",
            (str(-(2**60)), "-7", str(2**60), str(2**60 + 1)),
        ),
    ],
)
def test_the_kind_of_task_is_found_from_the_labels(tmp_path, values, kind, names):
    found = labelled(tmp_path, values)
    target = find(found)
    assert (target.kind, target.names) == (kind, names)
    expected = [names.index(columns._name(v.strip() if isinstance(v, str) else v)) for v in values] if names else values
    assert target.values(found).tolist() == pytest.approx([float(value) for value in expected])
    assert target.values(found).dtype == (np.int64 if names else np.float32)


def test_codes_keep_their_zeros(tmp_path):
    codes = labelled(tmp_path, ["007", "120", "010", "007"])
    target = find(codes)
    assert (target.kind, target.names) == ("classification", ("007", "010", "120"))
    assert target.values(codes).tolist() == [0, 2, 1, 0]
    many = labelled(tmp_path, [f"{i % 30:02d}" for i in range(90)])
    assert find(many).names == tuple(f"{i:02d}" for i in range(30))
    with pytest.raises(ValueError, match="label '7' is not one of 007, 010, 120, as in training"):
        target.values(labelled(tmp_path, ["120", "7"]))


def test_the_kind_can_be_said_where_what_is_found_would_be_wrong(tmp_path):
    many = labelled(tmp_path, [i % 77 for i in range(200)])
    assert find(many).kind == "regression"
    assert find(many).remarks == [
        "77 different whole numbers; if they stand for classes say kind='classification' (--kind classification)"
    ]
    assert find(many, "regression").remarks == find(labelled(tmp_path, [1.5, 2, 3])).remarks == []
    assert find(many, "classification").names == tuple(map(str, range(77)))
    stars = labelled(tmp_path, [1, 2, 3])
    assert find(stars, "regression").values(stars).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"line 2: label 'x' is not a number, as for a regression"):
        find(labelled(tmp_path, [1, "x", 3]), "regression")
    assert find(labelled(tmp_path, [1, "x", 3]), "classification").names == ("1", "3", "x")
    with pytest.raises(ValueError, match="kind 'class' is not one of classification, regression"):
        find(stars, "class")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["5"] * 9, "is '5' in all 9 rows; there is nothing to learn"),
        ([5, "5", 5.0], "is '5' in all 3 rows"),
        (
            [1, 2, "three", 4],
            "mixes numbers with texts: line 3 has 'three' where others have '1'; .*kind='classification'",
        ),
        (["a", "b", 3, "c"], "mixes numbers with texts: line 3 has '3' where others have 'a'"),
        ([0.5, 0.7, "n/a"], "mixes numbers with texts: line 3 has 'n/a'"),
        ([True, 1, False, 0, 1], "mixes numbers with texts: line 1 has 'True' where others have '1'"),
        ([True, "maybe", False], "mixes true and false with texts"),
        (["1,5", "2,5", "3,0"], "has numbers with a decimal comma, such as '1,5'; write a decimal point"),
        ([f"id{i}" for i in range(50)], "has 50 different texts in 50 rows, which are no labels; name another column"),
    ],
)
def test_labels_that_are_none_are_one_sentence(tmp_path, values, message):
    with pytest.raises(ValueError, match=f"column 'stars' of .*t.jsonl {message}"):
        find(labelled(tmp_path, values))


def test_labels_with_one_example_and_those_that_differ_in_case_are_said(tmp_path):
    target = find(labelled(tmp_path, ["good", "Good", "bad", "good", "bad", "Good", "odd"]))
    assert target.remarks == [
        "1 label with one example (odd)",
        "labels that differ only in case are kept apart (Good, good)",
    ]


def test_label_names_that_a_file_declares_keep_their_order(tmp_path):
    import datasets

    datasets.utils.logging.disable_progress_bar()
    rows = datasets.Dataset.from_dict({"review": ["a", "b", "c"], "stars": [1, 0, 1]})
    rows.cast_column("stars", datasets.ClassLabel(names=["zero", "else", "unused"])).to_parquet(tmp_path / "t.parquet")
    target = find(table(tmp_path / "t.parquet"))
    assert target.names == ("zero", "else")
    assert target.values(table(tmp_path / "t.parquet")).tolist() == [1, 0, 1]


def test_labels_that_are_bytes_are_one_sentence(tmp_path):
    """As a column of a Parquet file is that does not say that it holds text."""
    rows = pa.table({"review": ["a", "b", "c"], "stars": [b"bad", b"good", b"bad"]})
    pq.write_table(rows, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"row 1: column 'stars' is \"b'bad'\", not a label: a text, a number, true"):
        table(tmp_path / "t.parquet")


def test_a_decimal_and_a_date_are_labels_like_others(tmp_path):
    import datetime
    import decimal

    numbers = [decimal.Decimal("1.50"), decimal.Decimal("2.25"), decimal.Decimal("3.00")]
    pq.write_table(pa.table({"review": ["a", "b", "c"], "stars": numbers}), tmp_path / "n.parquet")
    assert find(table(tmp_path / "n.parquet")).kind == "regression"
    days = [datetime.date(2020, 1, day) for day in (1, 2, 1)]
    pq.write_table(pa.table({"review": ["a", "b", "c"], "stars": days}), tmp_path / "d.parquet")
    assert find(table(tmp_path / "d.parquet")).names == ("2020-01-01", "2020-01-02")


# --- the split ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.07])
def test_every_class_is_held_out_in_its_proportion_to_one_row(share):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [400, 100, 30, 7, 2, 1]))
    out = splits.stratified(labels, share, seed=0)
    counts, held = np.bincount(labels), np.bincount(labels[out], minlength=6)
    assert out.sum() == round(share * (len(labels) - 1))  # the class with one row takes no part
    assert (np.abs(held - share * counts) < 1).all()
    assert (counts - held >= 1).all()
    assert held[5] == 0


def test_scores_are_held_out_from_every_quantile():
    scores = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    out = splits.stratified(scores, 0.1, seed=0)
    for low, high in zip(np.arange(10) / 10, np.arange(1, 11) / 10):
        inside = (scores >= np.quantile(scores, low)) & (scores <= np.quantile(scores, high))
        assert 9 <= out[inside].sum() <= 11


def test_the_seed_decides_the_split_and_every_row_is_held_out_by_some_seed():
    labels = np.repeat([0, 1], 50)
    drawn = [splits.stratified(labels, 0.2, seed) for seed in range(60)]
    assert (drawn[0] == splits.stratified(labels, 0.2, 0)).all()
    assert (drawn[0] != drawn[1]).any()
    share = np.mean(drawn, axis=0)
    assert ((share > 0) & (share < 0.5)).all()  # expected 0.2, s.d. 0.05


def test_rows_belong_together_by_text_by_group_and_by_way_of_others():
    draw = np.random.default_rng(0)
    keys, groups = draw.integers(0, 60, 80).astype(np.uint64), draw.integers(0, 60, 80)
    found = splits.units(keys, groups)
    expected = np.arange(80)  # brute force: the smallest row that can be reached
    for _ in range(80):
        for of in (keys, groups):
            for value in np.unique(of):
                expected[of == value] = expected[of == value].min()
    same = lambda numbers: numbers[:, None] == numbers[None, :]
    assert (same(found) == same(expected)).all()
    assert 2 < len(np.unique(found)) < len(np.unique(keys))
    assert (same(splits.units(keys)) == same(keys)).all()


@pytest.mark.parametrize("kind", ["classes", "scores"])
@pytest.mark.parametrize("many", [False, True])
def test_groups_are_on_one_side_and_the_share_is_near(kind, many, monkeypatch):
    if many:
        monkeypatch.setattr(splits, "MANY", 10)
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 60, 1000)
    labels = draw.integers(0, 3, 1000) if kind == "classes" else draw.normal(size=1000).astype(np.float32)
    out = splits.hold_out(labels, splits.units(np.arange(1000), groups), 0.2, seed=0, whole_groups=True)
    assert not set(groups[out]) & set(groups[~out])
    assert 0.15 < out.mean() < 0.25
    again = splits.hold_out(labels, splits.units(np.arange(1000), groups), 0.2, seed=0, whole_groups=True)
    assert (out == again).all()


def test_duplicates_are_never_on_both_sides(tmp_path):
    rows = [row for i, row in enumerate(reviews(200)) for _ in range(1 + (i % 5 == 0))]
    rows += [row | {"review": row["review"].upper().replace(" ", "  ")} for row in rows[:50]]
    found = ready(write(tmp_path / "t.csv", rows), holdout=0.3)
    plain = lambda side: {" ".join(text.split()).casefold() for text in side.texts[0]}
    assert not plain(found.train) & plain(found.held_out)
    assert len(found.train) + len(found.held_out) == len(rows)
    assert len(plain(found.held_out)) == 60  # 0.3 of 200 texts


def test_a_pair_is_a_duplicate_only_if_both_texts_are(tmp_path):
    rows = [{"a": f"q{i // 2}", "b": f"r{i % 2}", "stars": i % 2} for i in range(40)]
    found = table(write(tmp_path / "t.csv", rows), Columns("a", "stars", text2="b"))
    assert len(np.unique(found.keys)) == 40
    shifted = table(write(tmp_path / "u.csv", [{"a": "x y", "b": "z", "stars": 0}, {"a": "x", "b": "y z", "stars": 1}]),
                    Columns("a", "stars", text2="b"))  # fmt: skip
    assert len(np.unique(shifted.keys)) == 2


def test_groups_that_are_asked_for_are_kept_and_a_missing_group_stands_alone(tmp_path):
    rows = [row | {"who": f"w{i // 4}" if i % 10 else ""} for i, row in enumerate(reviews(100))]
    found = ready(write(tmp_path / "t.csv", rows), Columns("review", "stars", groups="who"), holdout=0.25)
    who = {row["review"]: row["who"] for row in rows}
    sides = [{who[text] for text in side.texts[0]} - {""} for side in (found.train, found.held_out)]
    assert not sides[0] & sides[1]
    assert "rows with the same text or 'who' on one side" in found.remarks[-1]
    one = [row | {"who": "same"} for row in reviews(50)]
    with pytest.raises(ValueError, match=r"all 50 rows belong together \(one group, or one text\)"):
        ready(write(tmp_path / "one.csv", one), Columns("review", "stars", groups="who"))


def test_texts_with_more_than_one_label_are_counted(tmp_path):
    rows = [*reviews(40), {"id": 0, "review": "Review number 0", "stars": "good"}]
    assert "1 text with more than one label" in ready(write(tmp_path / "t.csv", rows)).remarks


def test_three_rows_are_too_few_and_the_sentence_says_what_would_serve(tmp_path):
    path = write(tmp_path / "t.csv", reviews(3))
    with pytest.raises(
        ValueError, match=r"t.csv: 3 rows are too few .*0 to validate on.*more rows, .* or a validation"
    ):
        ready(path)
    with pytest.raises(ValueError, match="column 'stars' .* is 'good' in all 3 rows"):
        ready(write(tmp_path / "one.csv", reviews(3, labels=("good",))))


def test_a_class_with_one_example_is_trained_on_and_said(tmp_path):
    rows = reviews(60)
    rows[5]["stars"] = "odd"
    found = ready(write(tmp_path / "t.csv", rows), holdout=0.5)
    odd = found.target.names.index("odd")
    assert (found.train.labels == odd).sum() == 1
    assert "1 label with one example (odd)" in found.remarks
    assert "not in validation: odd" in found.remarks


def test_texts_of_100_000_characters_are_rows_like_others(tmp_path):
    rows = [row | {"review": row["review"] + " long" * 20_000} for row in reviews(30)]
    for ending in (".csv", ".jsonl", ".parquet"):
        found = ready(write(tmp_path / f"t{ending}", rows), holdout=0.2)
        assert sorted([*found.train.texts[0], *found.held_out.texts[0]]) == sorted(row["review"] for row in rows)


@pytest.mark.parametrize("share", [0, -0.1, 0.51, 1])
def test_a_share_outside_its_range_is_refused(tmp_path, share):
    with pytest.raises(ValueError, match="holdout must be above 0 and at most 0.5"):
        ready(write(tmp_path / "t.csv", reviews()), holdout=share)


# --- a validation file ----------------------------------------------------------------------------------------------


def test_a_validation_file_is_scored_whole_and_its_texts_are_not_trained_on(tmp_path):
    train = write(tmp_path / "train.csv", reviews(40))
    scored = [*reviews(50)[35:], {"id": 9, "review": " REVIEW number 3", "stars": "bad"}]
    found = ready(train, validation=str(write(tmp_path / "dev.jsonl", scored)))
    assert list(found.held_out.texts[0]) == [row["review"] for row in scored]
    left = [row["review"] for row in reviews(35) if row["id"] != 3]
    assert list(found.train.texts[0]) == left
    assert found.remarks[0].startswith("6 training rows left out whose texts are in ")
    with pytest.raises(ValueError, match="0 rows whose texts are not in .*, and not two different labels"):
        ready(train, validation=str(train))


def test_a_validation_file_with_other_labels_or_columns_is_one_sentence(tmp_path):
    train = write(tmp_path / "train.csv", reviews(40))
    odd = write(tmp_path / "odd.csv", [{"review": "a", "stars": "good"}, {"review": "b", "stars": "fair"}])
    with pytest.raises(ValueError, match="odd.csv line 3: label 'fair' is not one of bad, good, as in training"):
        ready(train, validation=str(odd))
    one = write(tmp_path / "one.csv", [{"review": "a", "stars": "good"}, {"review": "b", "stars": "good"}])
    with pytest.raises(ValueError, match=r"one.csv has the same label in all 2 rows, .*; give a validation file with"):
        ready(train, validation=str(one))
    with pytest.raises(LookupError, match="w.csv has no column 'review'; it has text"):
        ready(train, validation=str(write(tmp_path / "w.csv", [{"text": "a", "stars": "good"}])))
    with pytest.raises(FileNotFoundError, match="there is no file validation"):
        ready(train, validation="validation")
    with pytest.raises(ValueError, match="holdout is for a split of our own, and validation=.* leave one out"):
        ready(train, validation=str(odd), holdout=0.1)
    with pytest.raises(ValueError, match="groups is for a split of our own"):
        ready(train, Columns("review", "stars", groups="id"), validation=str(odd))


# --- the hub --------------------------------------------------------------------------------------------------------


def test_what_has_a_known_ending_or_exists_is_a_file_and_else_may_be_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews").write_text("")
    assert locate("reviews") == Path("reviews")
    assert locate("owner/reviews") == HubData("owner/reviews")
    assert locate("owner/reviews.csv") == Path("owner/reviews.csv")
    assert locate("../what ever") == Path("../what ever")
    with pytest.raises(
        FileNotFoundError, match=r"no file owner/reviews in .*, and HF_HUB_OFFLINE forbids asking the hub"
    ):
        prepare("owner/reviews", REVIEW, None, None, None, 0)


def test_a_data_set_on_the_hub_is_read_by_split_at_one_revision(monkeypatch):
    import datasets

    from trainflat.hf import hubdata

    make = lambda rows: datasets.Dataset.from_list(rows).cast_column("stars", datasets.ClassLabel(names=["no", "yes"]))
    sides = {"train": [{"review": f"t{i}", "stars": i % 2} for i in range(30)],
             "test": [{"review": f"v{i}", "stars": i % 2} for i in range(7)]}  # fmt: skip
    asked = []

    def load(name, config, *, revision):
        asked.append((name, config, revision))
        return datasets.DatasetDict({split: make(rows) for split, rows in sides.items()})

    hubdata._load.cache_clear()
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hubdata, "check_hub", lambda *given, **more: None)
    monkeypatch.setattr(hubdata, "_newest", lambda name: "abc123")
    options = {"kind": None, "holdout": None, "seed": 0}
    found = prepare("me/set:small", REVIEW, validation="test", **options)
    assert asked == [("me/set", "small", "abc123")]
    assert (len(found.train), len(found.held_out), found.target.names) == (30, 7, ("no", "yes"))
    assert len(prepare("me/set:small", REVIEW, validation=None, **options).held_out) == 3
    with pytest.raises(LookupError, match="me/set:small on the hub has no split 'dev'; it has train, test"):
        prepare("me/set:small", REVIEW, validation="dev", **options)
    sides["validation"] = sides.pop("test")[:5]
    hubdata._load.cache_clear()
    assert len(prepare("me/set:small", REVIEW, validation=None, **options).held_out) == 5
    assert identity("me/set:small", REVIEW, None) == "hub:me/set:small@abc123"
    hubdata._load.cache_clear()


# --- in little memory -----------------------------------------------------------------------------------------------


def test_a_selection_of_texts_is_a_sequence_that_copies_nothing():
    texts = Texts()
    for word in ("a", "", "ü", "dd"):
        texts.append(word)
    some = texts.take(np.array([3, 2, 2])).take(np.array([1, 0]))
    assert (list(some), some[0:1], some[-1], len(some)) == (["ü", "dd"], ["ü"], "dd", 2)
    assert some._bytes is texts._bytes
    with pytest.raises(IndexError):
        texts[4]


def test_values_are_told_apart_by_type():
    column = Coded()
    for value in (1, True, 1.0, "1", 1):
        column.append(value)
    assert column.codes.tolist() == [0, 1, 2, 3, 0]
    assert column.counts.tolist() == [2, 1, 1, 1]


MEASURE = """
import resource, sys
from trainflat.hf.prepared import prepare
from trainflat.hf.table import Columns
import trainflat.hf.text, scipy.sparse.csgraph
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
found = prepare(sys.argv[1], Columns("review", "stars"), None, None, None, 0)
print(len(found.train), len(found.held_out), len(found.train.texts[0]._bytes), (peak() - before) * 1024)
"""


@pytest.mark.slow
def test_a_million_rows_take_little_more_memory_than_their_texts(tmp_path):
    """Measured: 236 MB of CSV, of which 175 MB are texts, at a peak of 272 MB (350 MB allowed: a growing buffer) in 11 s."""
    draw = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(5000)])
    with (tmp_path / "big.csv").open("w") as file:
        file.write("id,review,junk,stars\n")
        for i in range(1_000_000):
            file.write(f"{i},{' '.join(words[draw.integers(0, 5000, 20)])},{'x' * 50},{i % 5}\n")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "big.csv")],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    train, held, size, peak = map(int, done.stdout.split())
    assert (train, held) == (900_000, 100_000)
    assert peak < 2 * size
