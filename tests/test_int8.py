"""The router of 8-bit backends: right before fast, and never without saying why."""

from __future__ import annotations

import time
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from trainflat import int8
from trainflat.compress import dynamic_int8, weight_only
from trainflat.int8 import by_torch, by_torchao, router, timing
from trainflat.int8.processor import SATURATES, UNREAD, WITHOUT_VNNI, Processor, parse

MODEL = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
INPUTS = torch.linspace(-1, 1, 8 * 32).reshape(8, 32)


def backend(name, build, missing=lambda: None):
    made = ModuleType(name)
    made.__dict__.update(NAME=name, build=build, missing=missing)
    return made


class Slow(nn.Module):
    """The same answers, later."""

    def __init__(self, model, seconds):
        super().__init__()
        self.model, self.seconds = model, seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return self.model(x)


class Saturating(nn.Module):
    """What AVX2 computes without VNNI: unsigned times signed bytes, two products added in 16 bits, exactly as ``vpmaddubsw``."""

    def __init__(self, layer, most=127):
        super().__init__()
        weight = layer.weight.detach().numpy()
        self.scale = np.abs(weight).max() / most
        self.weight = np.rint(weight / self.scale).astype(np.int64)

    def forward(self, x):
        a = x.numpy()
        low, high = min(float(a.min()), 0.0), max(float(a.max()), 0.0)
        step = (high - low) / 255
        zero = round(-low / step)
        integers = np.rint(a / step).astype(np.int64) + zero
        products = integers[:, None, :] * self.weight[None]
        pairs = products[..., 0::2] + products[..., 1::2]
        total = np.clip(pairs, -32768, 32767).sum(-1) - zero * self.weight.sum(-1)
        return torch.from_numpy((total * step * self.scale).astype(np.float32))


def saturating(most):
    return backend(
        f"avx2 {most}",
        lambda model, inputs: Saturating(next(m for m in model.modules() if isinstance(m, nn.Linear)), most),
    )


@pytest.mark.parametrize("made", int8.BACKENDS, ids=lambda made: made.NAME)
def test_every_installed_backend_adds_up_right_here_and_stays_near(made):
    if (why := made.missing()) is not None:
        pytest.skip(why)
    assert router.sums_are_right(made)
    found = int8.choose(MODEL, INPUTS, seconds=0.02, backends=[made])
    assert found.tried[1].error < 0.05
    assert found.tried[1].why_not is None


@pytest.mark.filterwarnings("ignore")  # torchao's own, at its import
def test_weights_alone_through_torchao_are_those_of_our_grid():
    if (why := by_torchao.missing()) is not None:
        pytest.skip(why)
    ours, theirs = weight_only(MODEL, bits=8, group_size="row"), int8.torchao_weights(MODEL, bits=8)
    torch.testing.assert_close(
        theirs(INPUTS), ours(INPUTS), rtol=0, atol=2e-2
    )  # their step is max / 127.5, ours max / 127
    torch.testing.assert_close(theirs(INPUTS), MODEL(INPUTS), rtol=0, atol=2e-2)
    assert type(MODEL[0].weight) is nn.Parameter  # the model stayed as it was
    with pytest.raises(
        RuntimeError, match="torchao has no kernel for 4-bit weights of torch.float32 on cpu here: Only bfloat16"
    ):
        int8.torchao_weights(MODEL, bits=4, group_size=32)


def test_without_torchao_weights_alone_say_what_to_do(monkeypatch):
    monkeypatch.setattr(by_torchao, "missing", lambda: "not installed: pip install torchao")
    with pytest.raises(
        ImportError, match="weights in 4 bits through torchao: not installed: .*compress.weight_only needs no torchao"
    ):
        int8.torchao_weights(MODEL, bits=4)
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 3"):
        int8.torchao_weights(MODEL, bits=3)


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [8, 4])
def test_on_a_gpu_weights_alone_stay_near(bits):
    if (why := by_torchao.missing()) is not None:
        pytest.skip(why)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)).to("cuda", torch.bfloat16)
    x = torch.linspace(-1, 1, 8 * 256, device="cuda", dtype=torch.bfloat16).reshape(8, 256)
    small = int8.torchao_weights(model, bits=bits)
    assert (small(x) - model(x)).abs().max() < (0.02 if bits == 8 else 0.2) * model(x).abs().max()


def test_sums_that_saturate_are_found_and_seven_bits_are_safe():
    assert not router.sums_are_right(saturating(127))  # 255 * 127 * 2 > 32767
    assert router.sums_are_right(saturating(63))  # 255 * 63 * 2 < 32768


def test_the_fastest_of_the_right_ones_is_chosen():
    slow = backend("slow", lambda model, inputs: Slow(dynamic_int8(model), 0.03))
    wrong = backend("wrong", lambda model, inputs: nn.Sequential(dynamic_int8(model), Nan()))
    large = Slow(MODEL, 0.01)
    found = int8.choose(
        large,
        INPUTS,
        seconds=0.1,
        backends=[slow, wrong, backend("quick", lambda model, inputs: dynamic_int8(getattr(model, "model", model)))],
    )
    assert found.name == "quick"
    assert [one.name for one in found.tried] == ["float32", "slow", "wrong", "quick"]
    assert "quick is the fastest int8 that is right here" in found.said
    assert "; wrong out: its outputs are nan away" in found.said
    assert found.said.count("\n") == 0
    torch.testing.assert_close(found.model(INPUTS), dynamic_int8(MODEL)(INPUTS))


def test_a_backend_that_is_gone_fails_or_is_wrong_is_passed_over_and_named():
    def fails(model, inputs):
        raise RuntimeError("kernel\nfell over")

    class Off(nn.Module):
        def forward(self, x):
            return 3 * MODEL(x) if x.shape[1] == 32 else torch.full((4, 128), 128.0)

    gone = backend("gone", fails, lambda: "gone is not installed: pip install gone")
    wrong = backend("off", lambda model, inputs: Off())
    found = int8.choose(
        Slow(MODEL, 0.01), INPUTS, seconds=0.02, backends=[gone, backend("broken", fails), wrong, by_torch]
    )
    why = {one.name: one.why_not for one in found.tried}
    assert why["gone"] == "gone is not installed: pip install gone"
    assert why["broken"] == "it failed: kernel fell over"
    assert why["off"] == "its outputs are 2 away from float32's, more than 0.5"
    for said in ("gone out", "broken out", "off out"):
        assert said in found.said


def test_float32_stays_where_nothing_is_faster():
    found = int8.choose(
        MODEL, INPUTS, seconds=0.05, backends=[backend("slow", lambda model, inputs: Slow(dynamic_int8(model), 0.01))]
    )
    assert found.name == "float32"
    assert found.model is MODEL
    assert "float32 stays" in found.said


def test_the_model_is_probed_in_evaluation_mode_and_each_module_keeps_its_own():
    model = nn.Sequential(nn.Linear(32, 3).eval(), nn.Dropout(0.9))
    found = int8.choose(model, INPUTS, seconds=0.02, backends=[by_torch])
    assert found.tried[1].error < 0.05
    assert [module.training for module in model.modules()] == [True, False, True]


def test_outputs_that_are_not_numbers_are_wrong():
    bad = backend("nan", lambda model, inputs: nn.Sequential(dynamic_int8(model), Nan()))
    assert int8.choose(MODEL, INPUTS, seconds=0.02, backends=[bad]).name == "float32"


class Nan(nn.Module):
    def forward(self, x):
        return x if x.shape[1] == 128 else x * float("nan")


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name : x\nflags : sse2 avx2 avx_vnni\n", Processor("x86", vnni=True)),
        ("flags\t\t: fpu avx2 avx512f\nflags : avx512_vnni", Processor("x86", vnni=False)),
        ("Features : fp asimd asimddp i8mm", Processor("arm", vnni=True)),
        ("Features : fp asimd", Processor("arm", vnni=False)),
    ],
)
def test_the_processor_is_read_from_its_own_words(cpuinfo, expected):
    assert parse(cpuinfo) == expected


def test_the_warnings_are_about_vnni_and_about_saturation_where_each_holds(monkeypatch):
    assert parse("flags : avx2").warnings == (WITHOUT_VNNI, SATURATES)
    assert parse("Features : asimd").warnings == (WITHOUT_VNNI,)
    assert parse("flags : avx2 avx512_vnni").warnings == ()
    assert parse("").warnings == (UNREAD,)  # and nothing is said of what it has not
    monkeypatch.setattr(router, "processor", lambda: parse("flags : avx2"))
    found = int8.choose(MODEL, INPUTS, seconds=0.02, backends=[by_torch])
    assert found.said.endswith(f"; beware: {WITHOUT_VNNI}; {SATURATES}")
    assert found.warnings == (WITHOUT_VNNI, SATURATES)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"tolerance": float("nan")}, {"seconds": float("inf")}])
def test_a_probe_without_time_or_tolerance_is_refused(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        int8.choose(MODEL, INPUTS, **wrong)


def test_a_race_without_an_end_is_refused():
    with pytest.raises(ValueError, match="seconds must be a finite number of 0 or more, got inf"):
        timing.race({"this": MODEL}, INPUTS, seconds=float("inf"))
