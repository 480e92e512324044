"""Cost: every count against a closed form or a file, and the model as it was afterwards."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

from trainflat import train
from trainflat.compress import (
    Mask,
    Shape,
    carve,
    cost,
    dynamic_int8,
    load_int8,
    magnitude,
    plain_tensors,
    prune,
    save_int8,
    shape_of,
    shrink,
    structure,
)
from trainflat.compress.cost import PRODUCTS, _whole
from trainflat.compress.sizes import gates_of, shrunk


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel, with or without a mask."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, hidden, attention_mask=None):
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(hidden).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return self.output(mixed.transpose(1, 2).flatten(2))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4, bias=False))


def test_counts_of_an_mlp_are_the_closed_form(tmp_path):
    model = network()
    train.save_weights(tmp_path / "model", model)
    measured = cost(model, torch.randn(32, 8), runs=2)
    assert measured.parameters == measured.nonzeros == 8 * 16 + 16 + 16 * 4
    assert measured.multiply_adds == 32 * (8 * 16 + 16 * 4)
    assert measured.bytes == (tmp_path / "model").stat().st_size
    assert (measured.batch, measured.runs, measured.device) == (32, 2, "cpu")
    assert 0 < measured.latency_low_ms <= measured.latency_ms <= measured.latency_high_ms


@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_its_two_products(masked):
    batch, seq, hidden, heads = 3, 10, 16, 4
    inputs = {"hidden": torch.randn(batch, seq, hidden)}
    if masked:
        inputs["attention_mask"] = torch.ones(batch, 1, 1, seq, dtype=torch.bool)
    measured = cost(Attention(hidden, heads), inputs, runs=1)
    assert measured.multiply_adds == batch * (4 * seq * hidden * hidden + 2 * seq * seq * hidden)


def test_torchs_own_encoder_layer_counts_its_products_and_keeps_its_fast_path():
    batch, seq, hidden, inner = 4, 7, 16, 32
    layer = nn.TransformerEncoderLayer(hidden, nhead=2, dim_feedforward=inner, batch_first=True)
    model = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    measured = cost(model, torch.randn(batch, seq, hidden), runs=1)
    each = seq * (4 * hidden * hidden + 2 * hidden * inner) + 2 * seq * seq * hidden
    assert measured.multiply_adds == batch * 2 * each
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_a_recurrent_layer_counts_its_matrices_once_a_token(kind, gates, bidirectional):
    batch, seq, inp, hidden = 8, 6, 3, 5
    model, ways = kind(inp, hidden, num_layers=2, batch_first=True, bidirectional=bidirectional), 1 + bidirectional
    each = sum(ways * gates * hidden * (below + hidden) for below in (inp, ways * hidden))
    assert cost(model, torch.randn(batch, seq, inp), runs=1).multiply_adds == batch * seq * each


def test_cudnns_recurrent_layers_are_counted_as_well():
    weights = [(20, 3), (20, 5), (20,), (20,), (20, 5), (20, 5), (20,), (20,)]
    count = PRODUCTS[torch.ops.aten._cudnn_rnn]
    assert count((8, 6, 3), weights, 4, None, (2, 8, 5)) == 2 * 8 * 6 * (20 * 8 + 20 * 10)
    assert count((30, 3), weights, 4, None, (2, 8, 5)) == 2 * 30 * (
        20 * 8 + 20 * 10
    )  # packed: the tokens that there are


def test_a_product_with_a_vector_is_counted():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.randn(16))

        def forward(self, x):
            return torch.softmax(x @ self.query, dim=-1)

    assert cost(Pooled(), torch.randn(4, 7, 16), runs=1).multiply_adds == 4 * 7 * 16


def test_int8_counts_what_it_is():
    model, x = network(), torch.randn(32, 8)
    dense, small = cost(model, x, runs=1), cost(dynamic_int8(model), x, runs=1)
    assert small.multiply_adds == dense.multiply_adds
    assert small.parameters == dense.parameters
    assert 0 < small.nonzeros <= dense.nonzeros
    inputs = {"hidden": torch.randn(2, 5, 16)}
    assert cost(dynamic_int8(Attention(16, 2)), inputs, runs=1).multiply_adds == 2 * (4 * 5 * 256 + 2 * 25 * 16)


def test_int8_bytes_are_those_of_the_file(tmp_path):
    small = dynamic_int8(nn.Sequential(nn.Embedding(50, 64), nn.Linear(64, 64)))
    save_int8(tmp_path / "small", small)
    header = len(json.dumps(json.dumps({"int8": "per_channel", "engine": "onednn"})))
    assert 0 <= (tmp_path / "small").stat().st_size - cost(small, torch.zeros(1, 2).long(), runs=1).bytes <= header + 8


def test_a_masked_model_costs_what_the_dense_one_does():
    model, x = network(), torch.randn(4, 8)
    dense = cost(model, x, runs=1)
    mask = prune(magnitude(model), 0.5, within=Mask.dense(model, lambda name, p: p.ndim == 2))
    mask.apply_to(model)
    masked = cost(model, x, runs=1)
    assert dense.nonzeros - masked.nonzeros == (8 * 16 + 16 * 4) // 2
    same = ("parameters", "bytes", "multiply_adds")
    assert all(getattr(masked, name) == getattr(dense, name) for name in same)


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    untied = cost(model, torch.ones(2, 6), runs=1)
    model[1].weight = model[0].weight
    tied = cost(model, torch.ones(2, 6), runs=1)
    assert (untied.parameters, tied.parameters) == (72, 36)
    assert untied.bytes - tied.bytes >= 36 * 4
    assert tied.multiply_adds == untied.multiply_adds


def test_mode_threads_gradients_and_random_stream_are_as_before():
    model, threads = network(), torch.get_num_threads()
    model[2].eval()
    modes, stream = [module.training for module in model.modules()], torch.get_rng_state()
    measured = cost(model, torch.ones(4, 8), runs=2, threads=threads + 1)
    assert measured.threads == threads + 1
    assert torch.get_num_threads() == threads
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(stream, torch.get_rng_state())  # evaluation mode: dropout drew nothing
    assert all(p.grad is None for p in model.parameters())


def test_a_failing_forward_restores_everything():
    model, threads = network(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        cost(model, torch.ones(4, 9), threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_cost_is_plain_json():
    measured = cost(network(), torch.ones(4, 8), runs=1)
    assert json.loads(json.dumps(measured.as_dict())) == measured.as_dict()
    assert list(measured.as_dict())[:4] == ["parameters", "nonzeros", "bytes", "multiply_adds"]


def test_bad_arguments_are_sentences():
    with pytest.raises(ValueError, match="runs must be at least 1"):
        cost(network(), torch.ones(4, 8), runs=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        cost(network(), torch.ones(4, 8), threads=0)
    with pytest.raises(ValueError, match="inputs must be a tensor, or a dict"):
        cost(network(), {"hidden": None})


def test_bert_of_transformers_is_counted_through_its_own_attention():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    model = transformers.BertForSequenceClassification(config)
    batch, seq = 3, 7
    inputs = {
        "input_ids": torch.ones(batch, seq, dtype=torch.long),
        "attention_mask": torch.ones(batch, seq, dtype=torch.long),
    }
    layer = 4 * seq * 32 * 32 + 2 * seq * 32 * 64 + 2 * seq * seq * 32
    expected = batch * (2 * layer + 32 * 32 + 32 * 2)  # two layers, pooler, classifier
    for candidate in (model, dynamic_int8(model)):
        assert cost(candidate, inputs, runs=1).multiply_adds == expected


def test_tokens_and_padding_are_those_of_the_batch():
    model = nn.Module()
    model.forward = lambda input_ids, attention_mask=None: input_ids
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    padded = cost(model, {"input_ids": torch.ones(2, 4).long(), "attention_mask": mask}, runs=1)
    assert (padded.batch, padded.length, padded.padding) == (2, 4, 3 / 8)
    bare = cost(model, {"input_ids": torch.ones(2, 5).long()}, runs=1)
    assert (bare.length, bare.padding) == (5, 0.0)
    image = cost(network(), torch.ones(2, 8), runs=1)
    assert (image.length, image.padding) == (None, None)


ODD = {  # widths that no kernel likes, and layers without one or both of their parts
    "odd widths": Shape(hidden=11, heads=(1, 3, 2), neurons=(7, 1, 19)),
    "no attention and no FFN somewhere": Shape(hidden=12, heads=(0, 1, 0), neurons=(5, 0, 0)),
    "one of each": Shape(hidden=1, heads=(1, 1, 1), neurons=(1, 1, 1)),
}


def small_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=12, num_attention_heads=3, intermediate_size=20, num_hidden_layers=3
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config).eval()


TOKENS = {"input_ids": torch.arange(5, 19).reshape(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.long)}


@pytest.mark.parametrize("name", ODD)
def test_a_shrunk_berts_cost_is_counted_from_its_shape(name):
    model, shape = small_bert(), ODD[name]
    small = shrink(model, parts := structure(model), gates_of(parts, shape))
    measured, whole = cost(small, TOKENS, runs=1), cost(model, TOKENS, runs=1)
    seq, width, hidden = 7, 4, shape.hidden
    layers = sum(4 * seq * hidden * width * h + 2 * seq * seq * width * h for h in shape.heads)
    layers += sum(2 * seq * hidden * n for n in shape.neurons)
    assert measured.multiply_adds == 2 * (layers + hidden * 12 + 12 * 2)
    assert 1 - measured.parameters / whole.parameters == shrunk(model, parts, shape)["total"]
    assert measured.bytes < whole.bytes


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", ODD)
def test_a_shrunk_model_in_int8_costs_as_much_less_and_comes_back_bit_for_bit(name, granularity, tmp_path):
    model, shape = small_bert(), ODD[name]
    parts = structure(model)
    small = shrink(model, parts, gates_of(parts, shape))
    eight = dynamic_int8(small, granularity=granularity)
    with torch.no_grad():
        outputs = eight(**TOKENS).logits
        assert torch.allclose(outputs, small(**TOKENS).logits, atol=0.05)
    assert shape_of(eight) == shape
    less, same = cost(eight, TOKENS, runs=1), cost(small, TOKENS, runs=1)
    assert (less.multiply_adds, less.parameters) == (same.multiply_adds, same.parameters)
    save_int8(tmp_path / "small", eight)
    again = load_int8(tmp_path / "small", carve(small_bert(), parts, shape))
    with torch.no_grad():
        assert torch.equal(again(**TOKENS).logits, outputs)
    with pytest.raises(ValueError, match="is of another architecture"):
        load_int8(tmp_path / "small", small_bert())


def test_a_weight_that_wraps_others_counts_as_what_it_stands_for_and_stores_what_it_wraps():
    layer = nn.Linear(16, 8)
    inner = layer.weight.detach()
    layer.weight = nn.Parameter(
        TwoTensor(inner, inner.clone()), requires_grad=False
    )  # torch's own example of a wrapper
    assert {name: tuple(t.shape) for name, t in plain_tensors(layer).items()} == {
        "weight.a": (8, 16), "weight.b": (8, 16), "bias": (8,)
    }  # fmt: skip
    assert _whole(layer.weight).numel() == 128


def test_products_with_packed_4_bit_weights_are_counted_by_what_they_multiply():
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping=PRODUCTS) as counter:
        x = torch.empty(5, 256, dtype=torch.bfloat16)
        packed = torch.empty(
            64 // 8, 256 // 128, 32, 4, dtype=torch.int32
        )  # 64 rows of 256, as tile_packed_to_4d has them
        y = torch.ops.aten._weight_int4pack_mm(x, packed, 128, torch.empty(2, 64, 2, dtype=torch.bfloat16))
    assert y.shape == (5, 64)
    assert counter.get_total_flops() == 2 * 5 * 256 * 64


@pytest.mark.gpu
def test_latency_on_a_gpu_waits_for_it():
    model = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(8)]).cuda()
    measured = cost(model, torch.randn(4096, 2048), runs=5)
    assert measured.latency_ms > 1e-3 * measured.multiply_adds / 1e12  # no machine does 1e18 multiply-adds a second
    assert measured.device == torch.cuda.get_device_name()
