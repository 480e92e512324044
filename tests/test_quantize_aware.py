"""Training behind a grid: what the forward pass sees, what gradient comes back, and how rules, masks and stages compose."""

from __future__ import annotations

import copy
import tomllib
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.compress import (
    Mask,
    dynamic_int8,
    magnitude,
    prune,
    quantize_aware,
    static_int8,
    weight_only,
)
from trainflat.compress.fake import place
from trainflat.compress.integers import quantized
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.resolve import Spec
from trainflat.experiments.stages import quantize as stages
from trainflat.experiments.store import Store, identity
from trainflat.experiments.trials import USUAL, WAYS, Trials
from trainflat.experiments.work import make_task

GRIDS = [
    (dynamic_int8, {}),
    (dynamic_int8, {"granularity": "per_tensor"}),
    (static_int8, {"coverage": 0.999}),
    (weight_only, {"bits": 8}),
    (weight_only, {"bits": 4, "group_size": 5}),
]


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3)).to(dtype)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(32, 6, generator=draw, dtype=dtype), torch.randint(3, (32,), generator=draw)


def on_grid(model: nn.Module, quantizer, options) -> nn.Module:
    """The model with plain float weights that lie on the grid."""
    landed, there = place(quantizer, **options), copy.deepcopy(model)
    with torch.no_grad():
        for name in ("0", "3"):
            weight = there.get_submodule(name).weight
            weight.copy_(landed(weight))
    return there


@pytest.mark.parametrize(("quantizer", "options"), GRIDS)
def test_the_forward_pass_sees_the_very_weights_that_the_quantizer_stores(quantizer, options):
    model, (x, _) = network(), batch()
    make = partial(quantizer, batches=[(x, None)]) if quantizer is static_int8 else quantizer
    small, landed = make(model, **options), place(quantizer, **options)
    for name in ("0", "3"):
        layer = small.get_submodule(name)
        stored = layer.weight if quantizer is weight_only else layer.weight().dequantize()
        assert torch.equal(landed(model.get_submodule(name).weight.detach()), stored)
    with quantize_aware(model, quantizer, **options), torch.no_grad():
        seen = model(x)
    assert torch.equal(seen, on_grid(model, quantizer, options)(x))
    assert not torch.equal(seen, model(x))
    if quantizer is weight_only:
        assert torch.equal(seen, small(x))


@pytest.mark.parametrize(("quantizer", "options"), GRIDS)
def test_the_gradient_is_the_plain_one_at_the_quantized_weights(quantizer, options):
    model, there = network(torch.float64), on_grid(network(torch.float64), quantizer, options)
    with quantize_aware(model, quantizer, **options):
        train.cross_entropy(model, batch(torch.float64)).backward()
    train.cross_entropy(there, batch(torch.float64)).backward()
    for (name, p), (_, q) in zip(model.named_parameters(), there.named_parameters(), strict=True):
        assert p.grad is not None, name
        assert torch.equal(p.grad, q.grad), name
    w, draw = there[0].weight, torch.Generator().manual_seed(2)
    for i in torch.randint(w.numel(), (8,), generator=draw).tolist():
        h, sides = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                before = w.view(-1)[i].clone()
                w.view(-1)[i] += sign * h
                sides.append(float(train.cross_entropy(there, batch(torch.float64))))
                w.view(-1)[i] = before
        assert float(model[0].weight.grad.view(-1)[i]) == pytest.approx((sides[0] - sides[1]) / (2 * h), abs=1e-9)


def test_under_sam_both_gradients_are_taken_at_quantized_weights():
    """g at Q(w), then the gradient at Q(w + rho g / |g|), done by hand."""
    options = {"bits": 4, "group_size": 5}
    data, rho = batch(torch.float64), 0.5
    model = network(torch.float64)
    params = dict(model.named_parameters())

    def closure():
        loss = train.cross_entropy(model, data)
        loss.backward()
        return loss.detach()

    before = train.snapshot(model)
    with quantize_aware(model, weight_only, **options):
        flat.sam(rho=rho)(closure, params, 0.0)
    assert all(torch.equal(before[name], p) for name, p in params.items())

    first = on_grid(network(torch.float64), weight_only, options)
    train.cross_entropy(first, data).backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in first.parameters()))
    moved = network(torch.float64)
    with torch.no_grad():
        for p, g in zip(moved.parameters(), first.parameters(), strict=True):
            p.add_(g.grad, alpha=rho / float(norm))
    second = on_grid(moved, weight_only, options)
    train.cross_entropy(second, data).backward()
    for p, q in zip(model.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_torchs_own_encoder_layers_are_scored_behind_the_grid():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True)
    model, x = nn.TransformerEncoder(layer, num_layers=2).eval(), torch.randn(4, 7, 16)
    padding = torch.arange(7) >= torch.tensor([7, 5, 3, 6])[:, None]
    with torch.no_grad():
        for given in ({}, {"src_key_padding_mask": padding}):
            with quantize_aware(model, weight_only, bits=4):
                behind, plain = model(x, **given), weight_only(model, bits=4)(x, **given)
            torch.testing.assert_close(behind[~padding], plain[~padding])
            assert not torch.allclose(behind[~padding], model(x, **given)[~padding], atol=1e-2)


def test_pruned_weights_stay_zero_behind_the_grid():
    model = network()
    mask = prune(magnitude(model), 0.5, within=Mask.dense(model, lambda name, p: p.ndim == 2))
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    with mask.on(model), quantize_aware(model, weight_only, bits=4):
        train.fit(model, train.cross_entropy, [batch()] * 5, adam, steps=5, gradient=flat.sam())
    for name, alive in mask.items():
        assert (model.get_parameter(name)[~alive] == 0).all()


def test_names_stay_and_afterwards_the_model_computes_as_before():
    model, (x, _) = network(), batch()
    expected, names = model(x), list(model.state_dict())
    with quantize_aware(model, dynamic_int8):
        assert list(model.state_dict()) == names
        with pytest.raises(RuntimeError):
            model(x[:, :2])
    assert torch.equal(model(x), expected)
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_copy_made_inside_has_its_own_weights_behind_the_same_grid():
    model, plain, (x, _) = network(), network(), batch()
    with torch.no_grad():
        plain[0].weight.neg_()
    with quantize_aware(model, weight_only, bits=4):
        expected, twin = model(x), copy.deepcopy(model)
        assert torch.equal(twin(x), expected)
        train.restore(twin, plain.state_dict())
        assert torch.equal(twin(x), on_grid(plain, weight_only, {"bits": 4})(x))
        twin(x).square().sum().backward()
        assert twin[0].weight.grad.any()
        assert torch.equal(model(x), expected)
        assert model[0].weight.grad is None
    assert torch.equal(twin(x), plain(x)), "the copy computes with w again, as the model does"


def test_one_grid_within_another_holds_until_it_is_closed():
    model, (x, _) = network(), batch()
    four, eight = ({"bits": 4}, {"bits": 8})
    with quantize_aware(model, weight_only, **four):
        with quantize_aware(model, weight_only, **eight):
            assert torch.equal(model(x), on_grid(network(), weight_only, eight)(x))
        assert torch.equal(model(x), on_grid(network(), weight_only, four)(x))
    assert torch.equal(model(x), network()(x))
    assert all("forward" not in vars(module) for module in model.modules())


def test_training_for_four_bits_loses_less_in_four_bits_than_training_without():
    """A regression without noise, so that what is left of its error is the grid's; both train equally long from the same weights.

    Six seeds gave 0.15 to 0.4 of the other's error.
    """
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed(3))
    data, coarse = (x, torch.sin(x[:, 0]) + x[:, 1] * x[:, 2].tanh()), {"bits": 4, "group_size": "row"}
    trained = nn.Sequential(nn.Linear(6, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 1))

    def fit(model: nn.Module, rate: float, **schedule) -> None:
        adam = torch.optim.Adam(model.parameters(), lr=rate)
        train.fit(model, train.mean_squared_error, [data] * 200, adam, steps=200, **schedule)

    fit(trained, 0.005)
    losses = {}
    for aware in (True, False):
        model = copy.deepcopy(trained)
        with quantize_aware(model, weight_only, **coarse) if aware else nullcontext():
            fit(model, 0.003, lr=train.linear(1.0, 0.0))
        with torch.no_grad():
            losses[aware] = float(train.mean_squared_error(weight_only(model, **coarse), data))
    assert losses[True] < 0.5 * losses[False]


def test_a_model_without_a_linear_layer_is_refused():
    message = "there is nothing to quantize: Conv1d has no nn.Linear layer"
    with pytest.raises(ValueError, match=message), quantize_aware(nn.Conv1d(1, 1, 1), weight_only):
        pass


def test_a_quantizer_that_does_not_say_where_weights_land_is_refused():
    with pytest.raises(TypeError, match=r"_weightless does not say where weights land.*_weightless\.place"):
        place(_weightless)
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 3"):
        place(weight_only, bits=3)
    with pytest.raises(ValueError, match="granularity must be"):
        place(dynamic_int8, granularity="per_row")


def _weightless(model: nn.Module) -> nn.Module:
    return model


TRAIN = '[defaults]\ntask = "mylab:blobs"\nsteps = 12\n[stage.train]\nkind = "Finetune"\n'
INT4 = '{ name = "weight_only", bits = 4 }'
AWARE = f'[stage.aware]\nkind = "QuantizeAware"\nmodel = "train"\nquantizer = {INT4}\n'


@pytest.fixture
def planned(tmp_path, plugins):
    def plan(stages: str, **overrides):
        path = tmp_path / "trial.toml"
        path.write_text(stages)
        return planning.plan(read(str(path)), overrides=overrides)

    return plan


@pytest.fixture
def ran(tmp_path, planned):
    def run(stages: str, **overrides):
        made, store = planned(stages, **overrides), Store(tmp_path / "store")
        runner.run(made, store)
        return {job.name: (store.done(job.key)["rows"], store.folder(job.key)) for job in made.jobs}

    return run


def test_the_stage_leaves_a_model_and_its_score_on_the_grid(ran):
    found = ran(
        TRAIN + AWARE + f'[stage.small]\nkind = "Quantize"\nmodel = "aware"\nquantizer = {INT4}\n'
        f'[stage.cost]\nkind = "Measure"\nmodel = "aware"\nquantizer = {INT4}\n'
        '[stage.whole]\nkind = "Measure"\nmodel = "aware"\n[stage.other]\nkind = "Quantize"\nmodel = "aware"\n',
        **{"aware.gradient": "sam"},
    )
    (row,), _ = found["aware"]
    (small,), _ = found["small"]
    assert row["variant"] == "qat for weight_only 4"
    assert (row["steps"], row["passes"]) == (12, 24)
    assert row["on_grid"] == {"variant": "qat, weight_only 4", "metrics": small["metrics"]}
    assert small["variant"] == found["cost"][0][0]["variant"] == "qat, weight_only 4"
    assert found["whole"][0][0]["variant"] == "qat for weight_only 4"
    assert found["other"][0][0]["variant"] == "qat for weight_only 4, int8 per_channel"
    assert found["cost"][0][0]["cost"]["bytes"] < found["whole"][0][0]["cost"]["bytes"]


def test_a_shrunk_model_that_was_trained_for_a_grid_keeps_its_own_name():
    row, int4 = {"variant": "cofi, qat for weight_only 4", "shape": {}}, Spec("weight_only", {"bits": 4})
    assert stages.quantized(row, int4) == "cofi, qat, weight_only 4"
    assert stages.quantized(row, Spec("dynamic_int8")) == "cofi, qat for weight_only 4, int8 per_channel"
    assert stages.quantized({"variant": "imp", "sparsity": 0.5}, int4) == "weight_only 4"


def test_what_was_pruned_stays_pruned_in_the_stage(ran):
    found = ran(TRAIN + '[stage.imp]\nkind = "Imp"\nsparsity = 0.6\nrounds = 2\n' + AWARE.replace('"train"', '"imp"'))
    before, after = (train.state.read(found[name][1] / "model.safetensors")[0] for name in ("imp", "aware"))
    assert found["aware"][0][0]["sparsity"] == found["imp"][0][-1]["sparsity"]
    matrices = [name for name, tensor in before.items() if tensor.ndim == 2]
    assert matrices
    for name in matrices:
        assert (after[name][before[name] == 0] == 0).all()
        assert not torch.equal(after[name], before[name])
    assert sum(int((before[name] == 0).sum()) for name in matrices) > 100


def test_every_quantizer_is_scored_and_measured_by_its_own_name(ran):
    grids = {
        "static": ('{ name = "static_int8", calibrate = 2 }', "static_int8 per_channel calibrate 2"),
        "eight": ('"weight_only"', "weight_only 8"),
        "four": ('{ name = "weight_only", bits = 4, group_size = 16 }', "weight_only 4 group_size 16"),
    }
    asked = TRAIN
    for name, (quantizer, _) in grids.items():
        asked += f'[stage.{name}]\nkind = "Quantize"\nmodel = "train"\nquantizer = {quantizer}\n'
        asked += f'[stage.{name}-cost]\nkind = "Measure"\nmodel = "train"\nquantizer = {quantizer}\n'
    found = ran(asked)
    for name, (_, variant) in grids.items():
        assert found[name][0][0]["variant"] == found[f"{name}-cost"][0][0]["variant"] == variant
    assert len({found[f"{name}-cost"][0][0]["cost"]["parameters"] for name in grids}) == 1
    assert found["eight-cost"][0][0]["cost"]["bytes"] > found["four-cost"][0][0]["cost"]["bytes"]


def test_calibration_batches_follow_from_the_stages_seed(planned):
    task = make_task(Spec("mylab:blobs"))
    found = []
    for seed in (0, 0, 1):
        small = stages.on_grid(Spec("static_int8", {"calibrate": 1}), task.model(0), task, seed)
        found.append([layer.input_scale for layer in quantized(small).values()])
    assert found[0] == found[1] != found[2]


def test_a_stage_of_dynamic_int8_keeps_the_identity_that_it_had_before_there_were_others(planned):
    plan = planned(TRAIN + '[stage.int8]\nkind = "Quantize"\nmodel = "train"\n')
    trained, job = plan.jobs
    before = {"quantizer": {"name": "dynamic_int8", "granularity": "per_channel"}}
    assert job.key == identity("Quantize", 1, before, {"model": trained.key}, 0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (AWARE.replace('"train"', '"small"'), "model = 'small' is a OneShot, which leaves no model"),
        (AWARE.replace("bits = 4", "bits = 3"), "bits must be 8 or 4, got 3"),
        (AWARE.replace(INT4, '"copy:deepcopy"'), "deepcopy does not say where weights land"),
        (AWARE + 'task = { name = "mylab:blobs", batch_size = 8 }\n', "this stage about mylab:blobs"),
        (AWARE.replace("bits = 4", "bit = 4"), "weight_only takes no 'bit'; did you mean 'bits'"),
    ],
)
def test_what_cannot_be_trained_for_is_told_while_planning(planned, asked, words):
    small = '[stage.small]\nkind = "OneShot"\nmodel = "train"\n'
    with pytest.raises((ValueError, LookupError), match=words):
        planned(TRAIN + small + asked)


def stages_of(**options) -> dict:
    return tomllib.loads(
        Trials(name="mine", task={"name": "digits"}, claim="A claim.", sizes=(0.5,), **options).recipe()
    )


def test_the_usual_trials_try_no_further_grid():
    assert stages_of() == stages_of(ways=USUAL["cpu"])
    assert not [name for name in stages_of()["stage"] if "static" in name or "int4" in name or "aware" in name]


def test_trials_try_every_grid_that_is_asked_for_and_train_for_it(planned):
    document = stages_of(ways=WAYS)
    for prefix in ("", "shrunk-50-"):
        for name in ("static", "int4", "qat-int8", "qat-static", "qat-int4"):
            assert {f"{prefix}{name}", f"{prefix}{name}-cost"} <= document["stage"].keys()
    assert document["stage"]["qat-static"]["model"] == "aware-int8"
    assert document["stage"]["aware-int4"]["quantizer"] == {"name": "weight_only", "bits": 4}
    sweep = document["sweep"]["optimizer"]["SAM"]
    assert set(sweep) == {
        f"{name}.gradient" for name, t in document["stage"].items() if name == "train" or "aware" in name
    }
    only = stages_of(ways=("qat",))["stage"]
    assert set(only) == {"train", "cost", "int8", "int8-cost", "aware-int8", "qat-int8", "qat-int8-cost"}
    text = Trials(name="mine", task={"name": "digits"}, claim="A claim.", sizes=(0.5,), ways=WAYS).recipe()
    assert len(planned(text).jobs) > 50
