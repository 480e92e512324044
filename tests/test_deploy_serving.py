"""Where the small model will run: on a GPU in bfloat16, or through torchao's kernels; measured there, and kept as floats."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import reviews
import tinybert
import torch
from torch import nn

from trainflat import compress, compress_text, hf
from trainflat.experiments import runner, trials
from trainflat.experiments.resolve import Spec
from trainflat.experiments.stages import quantize
from trainflat.experiments.stages.measure import Measure
from trainflat.experiments.stages.quantize import Quantize
from trainflat.experiments.trials import Trials
from trainflat.int8 import by_torchao, fused

pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")

TEXTS = ["a film so great w1", "so film a dull w2", "a a so lovely w3"]


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    model = str(tinybert.checkpoint(tmp_path_factory.mktemp("tiny")))
    return SimpleNamespace(table=reviews.write(folder), model=model, store=tmp_path_factory.mktemp("store"))


@pytest.fixture
def ran(monkeypatch):
    """The names of the stages that were computed, not found."""
    names, original = [], runner._compute
    monkeypatch.setattr(runner, "_compute", lambda job, *rest: (names.append(job.name), original(job, *rest))[1])
    return names


@pytest.fixture
def in_bfloat16(monkeypatch):
    """A processor in the place of the GPU: all but the device is as there."""
    monkeypatch.setattr(quantize, "PLACES", {"cuda": ("cpu", torch.bfloat16)})
    monkeypatch.setattr("trainflat.deploy.kernels.PLACES", quantize.PLACES)


@pytest.fixture
def packs(monkeypatch):
    """A stand-in for torchao: the same numbers in a wrapper that no file can hold."""

    def torchao_weights(model, *, bits=8, group_size=128):
        small = compress.weight_only(model, bits=bits, group_size=group_size)
        small.trainflat_packed = object()
        return small

    monkeypatch.setattr(fused, "torchao_weights", torchao_weights)


def search(at, **more):
    wish = {"text": "review", "label": "verdict", "model": at.model, "store": at.store, "sizes": (0.5,)}
    quick = {"epochs": 6.0, "lr": 3e-3, "gradient": "sam", "batch_size": 16, "max_length": 16, "quiet": True}
    return compress_text(at.table, **{**wish, **quick, **more})


def test_on_a_gpu_every_model_is_measured_in_bfloat16_and_its_command_says_so(at, in_bfloat16):
    plain = {o.name: o for o in search(at, ways=("int4",)).offers}
    there = {o.name: o for o in search(at, ways=("int4",), serve="cuda").offers}
    assert (
        set(plain)
        == set(there)
        == {f"{way} from {arm}" for way in ("dense", "weight only 4") for arm in ("Adam", "SAM")}
    )
    for name in ("dense from Adam", "dense from SAM"):
        spared = plain[name].bytes - there[name].bytes
        assert spared == pytest.approx(
            2 * plain[name].parameters, rel=0.02
        )  # the file's header differs by some letters
        assert (there[name].parameters, there[name].value) == (plain[name].parameters, plain[name].value)
    assert all("--serve cuda" in offer.made["command"] for offer in there.values())
    assert not any("--serve" in offer.made["command"] for offer in plain.values())


def test_without_a_gpu_it_is_refused_before_anything_is_trained(at, ran):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="serve = 'cuda' needs a GPU, and this machine has none"):
        search(at, serve="cuda")
    with pytest.raises(RuntimeError, match=r"served on a GPU \(on = 'cuda'\), and this machine has none"):
        quantize.served(nn.Linear(2, 2), "cuda")
    assert ran == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"serve": "tpu"}, "a model is served on cpu or cuda, got 'tpu'"),
        (
            {"serve": "cuda", "ways": ("int8", "shrunk", "qat")},
            "int8, qat has kernels for processors only; on a GPU try some of pruned, shrunk, int4, torchao8, torchao4",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Trials(name="mine", task={"name": "digits"}, claim="Smaller.", **options)


def test_the_usual_ways_are_those_that_have_kernels_there():
    for serve in ("cpu", "cuda"):
        assert Trials(name="mine", task={}, claim="", serve=serve).tried == trials.USUAL[serve]
    assert not set(trials.USUAL["cuda"]) & set(trials.FOR_PROCESSORS)


@pytest.mark.parametrize(
    "make", [lambda **more: Measure(model="m", **more), lambda **more: Quantize(model="m", **more)]
)
def test_a_place_that_is_none_and_a_quantizer_without_kernels_there_are_refused(make):
    with pytest.raises(ValueError, match="on is where the model is served: cuda, or left out for the CPU; got 'mps'"):
        make(on="mps")
    with pytest.raises(ValueError, match="dynamic_int8 has kernels for processors only"):
        make(on="cuda", quantizer=Spec("dynamic_int8"))
    assert make(on="cuda", quantizer=Spec("weight_only", {"bits": 4})).on == "cuda"


def test_examples_that_are_not_tokens_are_not_measured_in_bfloat16():
    digits = SimpleNamespace(task=Spec("digits"))
    with pytest.raises(ValueError, match="on = 'cuda', but the examples of .*digits.* are not made of tokens"):
        Measure(model="m", on="cuda").check_parents({"model": digits})


def test_without_torchao_its_ways_are_refused_before_anything_is_trained(at, ran, monkeypatch):
    monkeypatch.setattr(by_torchao, "missing", lambda: "not installed: pip install torchao")
    with pytest.raises(ImportError, match="weights in 4 bits through torchao: not installed"):
        search(at, ways=("torchao4",))
    assert ran == []


def test_a_packed_model_is_an_offer_and_its_folder_has_the_floats_and_says_how_to_pack_them(at, packs, tmp_path):
    found = search(at, ways=("torchao8",), offer="torchao weights 8 from Adam")
    dense = found.offer("dense from Adam")
    assert found.best.bytes < dense.bytes
    assert found.best.value.mean > 0.8
    model, tokenizer = hf.load(str(found.save(tmp_path / "small")))
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert [model.config.id2label[int(i)] for i in logits.argmax(-1)] == found.predict(TEXTS)
    ours = found.model(dense).state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    card = (tmp_path / "small" / "README.md").read_text()
    assert "- To serve: `trainflat.int8.torchao_weights(model, bits=8)`" in card
    assert "this folder has them as floats" in card
    assert "MB once packed" in card
    found.save(tmp_path / "dense", dense)
    assert "To serve" not in (tmp_path / "dense" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")  # torchao's own, at its import
def test_torchaos_own_weights_are_counted_and_timed(at):
    if (why := by_torchao.missing()) is not None:
        pytest.skip(why)
    found = search(at, ways=("torchao8",))
    dense, packed = found.offer("dense from Adam"), found.offer("torchao weights 8 from Adam")
    assert packed.bytes < dense.bytes
    assert (packed.parameters, packed.multiply_adds) == (dense.parameters, dense.multiply_adds)
    assert found.predict(TEXTS, packed) == found.predict(TEXTS, dense)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_on_a_gpu_all_ways_are_measured_there(at):
    ways = (
        ("pruned", "shrunk", "int4") if by_torchao.missing() else ("pruned", "shrunk", "int4", "torchao8", "torchao4")
    )
    found = search(at, ways=ways, serve="cuda")
    assert {offer.device for offer in found.offers} == {torch.cuda.get_device_name()}
    assert len({offer.variant for offer in found.offers if offer.quantized}) == 2 * len(ways[2:])
