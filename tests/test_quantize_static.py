"""Static int8: what the calibration finds, what the kernel computes, that weights are dynamic int8's, and the way to disk."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainflat import tasks, testing, train
from trainflat.compress import cost, dynamic_int8, grid, load_quantized, plain_tensors, save_quantized, static_int8
from trainflat.compress.integers import quantized
from trainflat.compress.ranges import Range, ranges
from trainflat.compress.static_linear import StaticLinear
from trainflat.testing.problem import problem


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 3, bias=False))


def batches(n: int = 3, rows: int = 20) -> list[tuple[torch.Tensor, None]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(rows, 16, generator=draw), None) for _ in range(n)]


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_weights_are_those_of_dynamic_int8(granularity):
    static = quantized(static_int8(network(), batches(), granularity=granularity))
    dynamic = quantized(dynamic_int8(network(), granularity=granularity))
    assert static.keys() == dynamic.keys() == {"0", "4"}
    for name, layer in static.items():
        assert isinstance(layer, StaticLinear)
        assert torch.equal(layer.weight().int_repr(), dynamic[name].weight().int_repr())
        assert torch.equal(layer.weight().dequantize(), dynamic[name].weight().dequantize())


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_the_kernel_computes_the_formula(granularity):
    """y = s (q - z) W' + b with q = round(x / s) + z in 8 bits, in float64; inputs up to three times the calibrated range."""
    layer = nn.Linear(16, 5)
    small = static_int8(layer, batches(), granularity=granularity)
    s, z = small.input_scale, small.input_zero_point
    draw = torch.Generator().manual_seed(2)
    for shape in [(7, 16), (1, 16), (2, 3, 16), (16, 7)]:
        x = 3 * torch.randn(shape, generator=draw)
        x = x.t() if shape == (16, 7) else x  # not contiguous
        q = (torch.round(x / torch.tensor(s)) + z).clamp(0, 255).double()
        assert q.min() == 0 or len(x) == 1
        expected = s * (q - z) @ small.weight().dequantize().double().t() + layer.bias.detach().double()
        torch.testing.assert_close(small(x).double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_where_the_batch_is_the_calibration_static_and_dynamic_agree():
    """Dynamic int8 takes its range from the batch; static has it fixed: the same up to the rounding of the scale."""
    layer, x = nn.Linear(16, 5), batches(1)[0][0]
    static, dynamic = static_int8(layer, [(x, None)])(x), dynamic_int8(layer)(x)
    exact = layer(x).detach()
    assert (static - dynamic).norm() < 0.5 * (dynamic - exact).norm()


def test_one_examples_answer_does_not_depend_on_the_others():
    small, dynamic = static_int8(network(), batches()), dynamic_int8(network())
    x = batches(1)[0][0].clone()
    alone = small(x[:1])
    assert torch.equal(small(x)[:1], alone)
    x[1] *= 50
    assert torch.equal(small(x)[:1], alone)
    assert not torch.equal(dynamic(x)[:1], dynamic(x[:1])), "or this test shows nothing"


@given(low=st.floats(-1e3, 1e3), high=st.floats(-1e3, 1e3))
def test_a_grid_holds_its_range_and_zero_in_seven_bits(low, high):
    low, high = sorted((low, high))
    scale, zero = Range(low, high).grid
    assert 0 <= zero <= 127
    for x in (low, high, 0.0):
        q = min(max(round(x / scale) + zero, 0), 255)
        assert q <= 128
        assert (
            abs((q - zero) * scale - x) <= scale * 1.0001
        )  # half a step for x, half for the zero point's own rounding
    assert round(0.0 / scale) + zero - zero == 0


def test_ranges_are_the_smallest_and_largest_that_the_batches_show():
    model = network().eval()
    seen = torch.cat([x for x, _ in batches()])
    inner = model[:4](seen).detach()
    found = ranges(model, {"0": model[0], "4": model[4]}, batches(), 3, 1.0)
    assert (found["0"].low, found["0"].high) == (float(seen.min()), float(seen.max()))
    assert found["4"].low == pytest.approx(float(inner.min()), rel=1e-5)
    first = ranges(model, {"0": model[0]}, batches(), 1, 1.0)["0"]
    assert (first.low, first.high) == (float(batches()[0][0].min()), float(batches()[0][0].max()))


@pytest.mark.parametrize("coverage", [0.95, 0.99, 1.0])
def test_every_batch_has_its_share_inside_the_range(coverage):
    model = network()
    found = ranges(model, {"0": model[0]}, batches(), 3, coverage)["0"]
    shares = [float(((x >= found.low) & (x <= found.high)).float().mean()) for x, _ in batches()]
    assert min(shares) >= coverage
    alone = [ranges(model, {"0": model[0]}, [batch], 1, coverage)["0"] for batch in batches()]
    assert found.low == min(one.low for one in alone)
    assert found.high == max(one.high for one in alone)
    for (x, _), one in zip(batches(), alone, strict=True):
        outside = int(((x < one.low) | (x > one.high)).sum())
        assert outside == 2 * int((1 - coverage) / 2 * x.numel() + 1e-9)


def test_an_outlier_costs_less_where_it_may_be_clipped():
    layer = nn.Linear(16, 5)
    (x, _) = batches(1, rows=1000)[0]
    loud = x.clone()
    loud[0, 0] = 500.0
    exact = layer(x).detach()
    errors = [(static_int8(layer, [(loud, None)], coverage=c)(x) - exact).norm() for c in (1.0, 0.999)]
    assert errors[1] < 0.1 * errors[0]


def test_it_reads_no_more_batches_than_it_calibrates_on_and_draws_no_random_number():
    endless = iter(repeat(batches()[0]))
    model = network().train()
    state = torch.get_rng_state()
    small = static_int8(model, endless, calibrate=2)
    assert torch.equal(torch.get_rng_state(), state), "dropout was on while calibrating"
    assert model.training
    assert model[1].training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not small.training


def test_a_layer_that_no_batch_reaches_stays_dynamic():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(16, 2), nn.Linear(16, 2)

        def forward(self, x):
            return self.used(x)

    layers = quantized(static_int8(Two(), batches()))
    assert isinstance(layers["used"], StaticLinear)
    assert not isinstance(layers["spare"], StaticLinear)


def test_a_model_may_give_what_it_likes():
    class Pair(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x), x

    torch.manual_seed(0)
    layer, x = nn.Linear(6, 3), torch.randn(32, 6)
    small = static_int8(Pair(layer), [(x, None)])
    assert torch.equal(small(x)[0], static_int8(layer, [(x, None)])(x))


def test_the_laws_of_a_quantizer():
    _, batch = problem()
    testing.check_quantizer(partial(static_int8, batches=[batch]))
    testing.check_quantizer(partial(static_int8, batches=[batch], granularity="per_tensor", coverage=0.99))


def test_a_transformer_is_calibrated_on_its_tasks_own_batches():
    task = tasks.digits()
    model = task.model(seed=0).eval()
    small = static_int8(model, task.batches(seed=0), calibrate=2)
    assert all(isinstance(layer, StaticLinear) for layer in quantized(small).values())
    inputs = task.inputs(8)
    with torch.no_grad():
        exact, rounded = train.logits(model, inputs), train.logits(small, inputs)
    assert (rounded - exact).norm() < 0.1 * exact.norm()
    dense, found = cost(model, inputs, runs=1), cost(small, inputs, runs=1)
    assert (found.parameters, found.multiply_adds) == (dense.parameters, dense.multiply_adds)
    assert found.bytes < dense.bytes


def test_saved_and_loaded_is_equal_bit_for_bit(tmp_path):
    small, path = static_int8(network(), batches()), tmp_path / "small.safetensors"
    save_quantized(path, small)
    again = load_quantized(path, network())
    x = batches(1)[0][0]
    assert torch.equal(again(x), small(x))
    assert grid(again) == grid(small) == {"name": "static_int8", "granularity": "per_channel"}
    mine, theirs = plain_tensors(again), plain_tensors(small)
    assert mine.keys() == theirs.keys() >= {"0.input.scale", "4.input.zero_point"}
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    single = static_int8(nn.Linear(16, 2), batches())
    save_quantized(path, single)
    assert torch.equal(load_quantized(path, nn.Linear(16, 2))(x), single(x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give it batches, such as task"),
        ({"batches": []}, "no batches to calibrate on"),
        ({"batches": batches(), "calibrate": 0}, "calibrate counts batches and must be at least 1, got 0"),
        ({"batches": batches(), "coverage": 99.99}, r"coverage is the share .* in \(0\.9, 1\], got 99\.99"),
        ({"batches": batches(), "granularity": "per_row"}, "granularity must be 'per_channel' or 'per_tensor'"),
        ({"batches": [(torch.full((2, 16), torch.inf), None)]}, "goes into '0' is not finite"),
    ],
)
def test_what_cannot_be_calibrated_is_told_in_a_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        static_int8(network(), **options)


def test_batches_without_labels_are_told():
    with pytest.raises(
        TypeError, match=r"a batch is a pair \(inputs, labels\), .* this is a Tensor of shape \(4, 16\)"
    ):
        static_int8(network(), [torch.ones(4, 16)])


def test_a_model_in_half_precision_is_refused():
    with pytest.raises(ValueError, match=r"static int8 starts from float32: use \.float\(\) first"):
        static_int8(network().bfloat16(), batches())


def test_kernels_of_another_kind_are_refused(monkeypatch):
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine="qnnpack"))
    with pytest.raises(LookupError, match="engines x86 and fbgemm, and this is qnnpack; use dynamic_int8"):
        static_int8(network(), batches())
