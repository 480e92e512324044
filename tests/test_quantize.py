"""Dynamic int8: the formula, what stays as it was, what a pruned weight becomes, and the way to disk and back."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.nn.utils import remove_spectral_norm, spectral_norm
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from trainflat import compress, train
from trainflat.compress import Mask, dynamic_int8, load_int8, magnitude, prune, save_int8
from trainflat.compress.integers import engine, plain_tensors, quantized

GRANULARITIES = ["per_channel", "per_tensor"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(11, 16), nn.Linear(16, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 3, bias=False)
    )


def tokens() -> torch.Tensor:
    return torch.randint(11, (5, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_integers_are_the_formula(granularity):
    """q = round(w / s), s = max|w| / 127.5: within half a step of w / s; the largest lies in the middle of two."""
    model = network()
    layers = quantized(dynamic_int8(model, granularity=granularity))
    assert list(layers) == ["1", "4"]
    for name, layer in layers.items():
        weight, integers = model.get_submodule(name).weight.detach(), layer.weight().int_repr().int()
        largest = weight.abs().amax(1, keepdim=True) if granularity == "per_channel" else weight.abs().amax()
        assert ((integers - weight / (largest / 127.5)).abs() <= 0.5 + 1e-4).all()  # float32 at 128: 1e-5 each way
        assert integers.abs().max() >= 127


def test_per_channel_is_closer_than_per_tensor():
    model = network()
    with torch.no_grad():
        model[1].weight[0] *= 100  # one loud row spoils the grid of all others
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    error = {g: (dynamic_int8(model, granularity=g)[1](x) - model[1](x))[:, 1:].norm() for g in GRANULARITIES}
    assert error["per_channel"] < 0.3 * error["per_tensor"]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_model_itself_is_left_untouched(granularity):
    model = network()
    before, modes = train.snapshot(model), [module.training for module in model.modules()]
    kinds = [type(module) for module in model.modules()]
    small = dynamic_int8(model, granularity=granularity)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert not small.training
    assert kinds == [type(module) for module in model.modules()]
    assert not any(hasattr(module, "qconfig") for module in model.modules())
    with torch.no_grad():
        small[0].weight.zero_()  # the copy shares no storage
    assert torch.equal(before["0.weight"], model[0].weight)


def test_a_single_linear_layer_is_replaced_too():
    assert list(quantized(dynamic_int8(nn.Linear(4, 2)))) == [""]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_pruned_weights_stay_zero_in_integers(granularity):
    model = network()
    mask = prune(magnitude(model), 0.6, within=Mask.dense(model, lambda name, p: name in ("1.weight", "4.weight")))
    with mask.on(model):
        inside = dynamic_int8(model, granularity=granularity)
    outside = dynamic_int8(model, granularity=granularity)
    for small in (inside, outside):
        for name, layer in quantized(small).items():
            dead = ~mask[f"{name}.weight"]
            assert dead.any()
            assert (layer.weight().int_repr()[dead] == 0).all()
            assert (layer.weight().dequantize()[dead] == 0).all()


def test_a_matrix_that_is_all_zero_gives_its_bias():
    layer = nn.Linear(4, 2)
    nn.init.zeros_(layer.weight)
    for granularity in GRANULARITIES:
        assert torch.equal(dynamic_int8(layer, granularity=granularity)(torch.randn(3, 4)), layer.bias.expand(3, 2))


def test_outputs_stay_close_to_float():
    model, x = network().eval(), tokens()
    with torch.no_grad():
        for granularity in GRANULARITIES:
            relative = (dynamic_int8(model, granularity=granularity)(x) - model(x)).norm() / model(x).norm()
            assert relative < 0.05  # 7-bit activations: a step is 1/127 of the range, two layers


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_saved_and_loaded_is_equal_bit_for_bit(granularity, tmp_path):
    small, x = dynamic_int8(network(), granularity=granularity), tokens()
    path = tmp_path / "small.safetensors"
    save_int8(path, small)
    fresh = network()
    for p in fresh.parameters():
        nn.init.normal_(p)
    again = load_int8(path, fresh)
    assert torch.equal(again(x), small(x))
    mine, theirs = plain_tensors(again), plain_tensors(small)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    _, header = train.state.read(path)
    assert header == {"int8": granularity, "engine": engine()}


def test_every_integer_survives_the_way_through_its_scale(tmp_path):
    layer = nn.Linear(256, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(-128, 128).float() * torch.tensor([[0.0137], [3.1]]))
    small = dynamic_int8(layer)
    save_int8(tmp_path / "all", small)
    again = load_int8(tmp_path / "all", nn.Linear(256, 2, bias=False))
    assert torch.equal(again.weight().int_repr(), small.weight().int_repr())
    assert len(small.weight().int_repr()[0].unique()) > 250


def test_tied_weights_are_written_once():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    model[2].weight = model[0].weight
    assert sorted(plain_tensors(model)) == ["0.weight", "1.bias", "1.weight"]


def test_plain_tensors_of_a_dense_model_are_its_state_dict():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    tensors = plain_tensors(model)
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


def test_no_warning_comes_out_and_other_warnings_stay():
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import torch; from torch import nn; from trainflat import compress; import copy, pathlib, tempfile\n"
        "small = compress.dynamic_int8(nn.Linear(4, 2)); copy.deepcopy(small)(torch.ones(1, 4)); repr(small)\n"
        "path = pathlib.Path(tempfile.mkdtemp()) / 'a'\n"
        "compress.save_int8(path, small); compress.load_int8(path, nn.Linear(4, 2)); path.unlink()\n"
        "try: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2)))\n"
        "except DeprecationWarning: print('theirs still warns')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "theirs still warns", done.stderr


def test_granularity_must_be_one_of_two():
    with pytest.raises(ValueError, match="granularity must be 'per_channel' or 'per_tensor', got 'per_row'"):
        dynamic_int8(network(), granularity="per_row")


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match=r"nothing to quantize: Embedding has no nn\.Linear"):
        dynamic_int8(nn.Embedding(3, 2))


def test_a_model_elsewhere_than_the_cpu_is_refused():
    with pytest.raises(ValueError, match=r"CPU only and the weight of '0' is on meta; use \.cpu\(\) first"):
        dynamic_int8(nn.Sequential(nn.Linear(3, 2, device="meta")))


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_refused():
    with pytest.raises(ValueError, match="CPU only"):
        dynamic_int8(nn.Linear(3, 2, device="cuda"))


def test_half_precision_and_divergence_are_refused():
    with pytest.raises(ValueError, match=r"bfloat16; .*\.float\(\) first"):
        dynamic_int8(nn.Linear(3, 2).bfloat16())
    broken = nn.Linear(3, 2)
    broken.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        dynamic_int8(broken)


@pytest.mark.parametrize("quantize", [dynamic_int8, compress.weight_only])
def test_a_layer_whose_weight_is_computed_in_every_pass_is_refused(quantize):
    model = nn.Sequential(weight_norm(nn.Linear(16, 8)), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"weight of '0' is made anew .*remove_parametrizations\(layer, 'weight'\)"):
        quantize(model)
    remove_parametrizations(model[0], "weight")
    assert quantize(model)(torch.ones(1, 16)).shape == (1, 3)


HOOKED = {
    "spectral_norm": (spectral_norm, lambda layer: remove_spectral_norm(layer)),
    "prune": (
        lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: torch_prune.remove(layer, "weight"),
    ),
}


@pytest.mark.parametrize("quantize", [dynamic_int8, compress.weight_only])
@pytest.mark.parametrize(("put", "remove"), HOOKED.values(), ids=HOOKED)
def test_a_layer_whose_weight_a_hook_computes_is_refused(put, remove, quantize):
    model = nn.Sequential(put(nn.Linear(16, 8)), nn.Linear(8, 3))
    model(torch.ones(1, 16)).sum().backward()
    with pytest.raises(
        ValueError, match=r"weight of '0' is made anew .*remove_spectral_norm\(layer\).*prune.remove\(layer"
    ):
        quantize(model)
    remove(model[0])
    quantize(model)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("quantize", [dynamic_int8, compress.static_int8])
def test_torchs_own_encoder_runs_in_int8(quantize, tmp_path):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, num_layers=2), nn.Linear(16, 3)

        def forward(self, x, attention_mask):
            return self.head(self.encoder(x, src_key_padding_mask=attention_mask == 0)[:, 0])

    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randn(4, 7, 16)
    given = {"x": x, "attention_mask": (torch.arange(7) < torch.tensor([7, 5, 3, 6])[:, None]).long()}
    small = quantize(model, [(given, None)]) if quantize is compress.static_int8 else quantize(model)
    with torch.no_grad():
        assert torch.allclose(small(**given), model(**given), atol=0.05)
        save_int8(tmp_path / "small", small)
        assert torch.equal(load_int8(tmp_path / "small", Encoder())(**given), small(**given))


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_int8(path, network())
    train.save_weights(path, network())
    with pytest.raises(ValueError, match=r"does not hold an 8-bit model; read it with train\.load_weights"):
        load_int8(path, network())
    save_int8(path, dynamic_int8(network()))
    with pytest.raises(ValueError, match=r"another architecture: '4\.weight' and 2 more tensors differ"):
        load_int8(path, nn.Sequential(*network()[:4], nn.Linear(24, 5, bias=False)))
    with pytest.raises(ValueError, match="not quantized; use dynamic_int8 first"):
        save_int8(path, network())


@pytest.mark.slow
def test_bert_base_takes_438_and_181_megabytes(tmp_path):
    """The sizes of PyTorch's tutorial, 438 MB and 181 MB, as files."""
    transformers = pytest.importorskip("transformers")
    model = transformers.BertForSequenceClassification(transformers.BertConfig())
    train.save_weights(tmp_path / "float", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = dynamic_int8(model, granularity="per_tensor")
    save_int8(tmp_path / "int8", small)
    assert len(quantized(small)) == 74
    assert round((tmp_path / "float").stat().st_size / 1e6, 1) == 438.0
    assert round((tmp_path / "int8").stat().st_size / 1e6, 1) == 181.4


@pytest.mark.parametrize("static", [False, True])
def test_a_layer_that_stands_in_two_places_is_int8_in_both(static, tmp_path):
    layer, x = nn.Linear(4, 4), torch.randn(8, 4)
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))
    small = compress.static_int8(model, [(x, None)]) if static else compress.dynamic_int8(model)
    assert small[0] is small[2][0]
    assert type(small[0]) is not nn.Linear
    assert type(model[0]) is type(model[2][0]) is nn.Linear
    assert torch.allclose(small(x), model(x), atol=0.2)
    file = tmp_path / "small.safetensors"
    save_int8(file, small)
    other = nn.Linear(4, 4)
    again = load_int8(file, nn.Sequential(other, nn.ReLU(), nn.Sequential(other)))
    assert again[0] is again[2][0]
    assert torch.equal(again(x), small(x))
