"""Results by content: whole or not at all, and nothing foreign is taken for ours."""

from __future__ import annotations

import json

import pytest

from trainflat.experiments.store import Store, write_json

KEY = "finetune-0123456789ab"
DOCUMENT = {"kind": "Finetune", "rows": [{"value": 0.5}], "seconds": 1.0}


def test_a_stage_is_done_once_its_document_is_there(tmp_path):
    store = Store(tmp_path)
    assert store.done(KEY) is None
    store.folder(KEY)
    assert store.done(KEY) is None
    store.finish(KEY, DOCUMENT)
    assert store.done(KEY)["rows"] == [{"value": 0.5}]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 99, "key": "x", "rows": []}', "\x00\x01"]
)
def test_a_corrupt_or_foreign_document_is_a_sentence(tmp_path, text):
    (Store(tmp_path).folder(KEY) / "done.json").write_text(text)
    with pytest.raises(ValueError, match="damaged or not ours; delete the folder"):
        Store(tmp_path).done(KEY)


def test_a_document_copied_from_another_stage_is_refused(tmp_path):
    store = Store(tmp_path)
    store.finish(KEY, DOCUMENT)
    other = "finetune-ba9876543210"
    (store.folder(other) / "done.json").write_bytes((store.folder(KEY) / "done.json").read_bytes())
    with pytest.raises(ValueError, match="not ours"):
        store.done(other)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_rows_carry_their_arm_and_come_from_finished_stages_only(tmp_path):
    store = Store(tmp_path)
    store.finish(KEY, DOCUMENT)
    point = {"arm": {"optimizer": "SAM"}, "stage": "train", "seed": 0}
    store.write_run("r", {"name": "r", "points": [{**point, "key": KEY}, {**point, "key": "finetune-missing"}]})
    rows = store.rows(store.read_run("r"))
    assert rows == [{"recipe": "r", "kind": "Finetune", **point, "key": KEY, "value": 0.5}]


def test_an_unknown_or_damaged_run_is_a_sentence(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(LookupError, match="run it first"):
        store.read_run("r")
    store.write_run("r", {"points": None})
    with pytest.raises(ValueError, match="damaged"):
        store.read_run("r")


def test_a_key_is_found_by_its_beginning(tmp_path):
    store = Store(tmp_path)
    for key in (KEY, "finetune-0199"):
        write_json(store.folder(key) / "stage.json", {"seed": 3})
    assert store.find("finetune-012")["seed"] == 3
    assert store.find("imp-") is None
    with pytest.raises(LookupError, match="2 stages begin"):
        store.find("finetune-01")
