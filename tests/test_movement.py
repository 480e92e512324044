"""Movement pruning: its two gradients, exact counts, what SAM moves, and the case where magnitude is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainflat import compress, flat, train
from trainflat.compress.movement import Movement, ramp
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.stages import Movement as Stage
from trainflat.experiments.store import Store


def net(dtype=torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def matrices(name, parameter) -> bool:
    return parameter.ndim == 2


def batch(dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(8, 6, generator=draw).to(dtype), torch.randint(0, 3, (8,), generator=draw)


def held_at(model, **options) -> Movement:
    held = Movement(train.cross_entropy, model, matrices, **options).to(next(model.parameters()).dtype)
    draw = torch.Generator().manual_seed(2)
    for score in held.scores.values():
        score.data.copy_(torch.randn(score.shape, generator=draw))
    return held


@pytest.mark.parametrize(
    "options", [{"sparsity": 0.4}, {"sparsity": 0.4, "scope": "global"}, {"kind": "soft", "tau": 0.5}]
)
def test_both_gradients_are_the_definition(options):
    """dL/dW = dL/dW' * M by finite differences; dL/dS = dL/dW' * W, with dL/dW' from the masked model itself."""
    model = net()
    held = held_at(model, strength=0.0, **options)
    mask = held.mask()
    with held.on(model):
        held(model, batch()).backward()
    masked = net()
    mask.apply_to(masked)
    train.cross_entropy(masked, batch()).backward()
    step = 1e-6
    for name, alive in mask.items():
        weight, plain = model.get_parameter(name), masked.get_parameter(name)
        assert weight.grad is not None
        assert plain.grad is not None
        torch.testing.assert_close(weight.grad, plain.grad * alive)
        torch.testing.assert_close(held.scores[name.replace(".", "/")].grad, plain.grad * weight.detach())
        for index in [(0, 0), (1, 2), (2, 1)]:
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight[index] += sign * step
                with held.on(model), torch.no_grad():
                    values.append(float(held(model, batch())))
                with torch.no_grad():
                    weight[index] -= sign * step
            assert float(weight.grad[index]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)


def test_hard_counts_are_exact_where_all_scores_tie():
    model = net()
    held = Movement(train.cross_entropy, model, matrices, sparsity=0.3)
    mask = held.mask()
    for name, alive in mask.items():
        assert int((~alive).sum()) == round(0.3 * model.get_parameter(name).numel())
    overall = Movement(train.cross_entropy, model, matrices, sparsity=0.3, scope="global").mask()
    assert overall.size - overall.alive == round(0.3 * overall.size)


def test_the_price_of_soft_scores_is_the_mean_sigmoid():
    model = net()
    held = held_at(model, kind="soft", strength=7.0)
    flat_scores = torch.cat([score.detach().flatten() for score in held.scores.values()])
    with held.on(model), torch.no_grad():
        paid = float(held(model, batch()) - train.cross_entropy(model, batch()))
    assert paid == pytest.approx(7 * float(torch.sigmoid(flat_scores).mean()))


def test_the_model_is_its_own_again_afterwards():
    model = net()
    before, order = train.snapshot(model), [name for name, _ in model.named_parameters()]
    held = held_at(model, sparsity=0.5)
    for perturb in ("weights", "scores"):
        with held.on(model, perturb=perturb):
            held(model, batch()).backward()
            with pytest.raises(RuntimeError):
                model(torch.ones(1, 99, dtype=torch.float64))
        assert [name for name, _ in model.named_parameters()] == order
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_evaluation_uses_the_mask_that_pruning_will():
    model = net()
    held = held_at(model, sparsity=0.5)
    with held.on(model), torch.no_grad():
        seen = model.eval()(batch()[0])
    held.mask().apply_to(model)
    assert torch.equal(model(batch()[0]), seen)


def test_a_weight_comes_back_when_its_score_does():
    model = net()
    held = held_at(model, sparsity=0.5)
    dead = ~held.mask()["0.weight"]
    held.scores["0/weight"].data[dead] += 100
    assert held.mask()["0.weight"][dead].any()


@pytest.mark.parametrize("perturb", ["weights", "scores"])
def test_sam_moves_the_scores_only_if_asked(perturb):
    model = net()
    held = held_at(model, sparsity=0.5)
    seen = []
    original = held.objective
    held.objective = lambda m, b: (
        seen.append(torch.cat([p.detach().flatten().clone() for p in [*weights, *held.scores.values()]]))
        or original(m, b)
    )
    weights = [model.get_parameter(name) for name in ("0.weight", "2.weight")]
    biases = [model.get_parameter(name) for name in ("0.bias", "2.bias")]
    optimizer = torch.optim.SGD([{"params": [*weights, *biases]}, *held.groups()], lr=0.0)
    with held.on(model, perturb=perturb):
        train.fit(model, held, [batch()], optimizer, steps=1, gradient=flat.sam(rho=0.1))
    moved = seen[1] - seen[0]
    scores = moved[sum(w.numel() for w in weights) :]
    assert bool(scores.abs().sum() > 0) == (perturb == "scores")
    if perturb == "scores":
        assert float(moved.norm()) < 0.1 + 1e-9, "one ball for both, biases included"
    assert all(score.grad is not None for score in held.scores.values())


def test_rho_zero_is_plain_bit_for_bit():
    def trained(rule):
        model = net(torch.float32)
        held = held_at(model, sparsity=ramp(0.8))
        optimizer = torch.optim.Adam([{"params": [*model.parameters()]}, *held.groups()], lr=1e-2)
        with held.on(model):
            for step in train.loop(model, held, [batch(torch.float32)] * 20, optimizer, steps=20, gradient=rule):
                held.advance((step.index + 1) / 20)
        return [*model.state_dict().values(), *held.scores.values()]

    assert all(torch.equal(a, b) for a, b in zip(trained(flat.sam(rho=0.0)), trained(flat.plain()), strict=True))


def test_autocast_keeps_weights_and_scores_as_they_are():
    model = net(torch.float32)
    held = held_at(model, sparsity=0.5)
    optimizer = torch.optim.Adam([{"params": [*model.parameters()]}, *held.groups()], lr=1e-2)
    with held.on(model):
        train.fit(model, held, [batch(torch.float32)], optimizer, steps=1, precision="bf16")
    assert {p.dtype for p in [*model.parameters(), *held.parameters()]} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "harder"}, "kind must be 'hard' or 'soft'"),
        ({"scope": "layer"}, "scope must be 'global' or 'tensor'"),
        ({"tau": 1.0}, "tau is compared with a sigmoid"),
        ({"sparsity": 1.0}, "sparsity must be in [0, 1)"),
        ({"strength": -1.0}, "strength must be at least 0"),
    ],
)
def test_values_outside_their_range_are_one_sentence(options, said):
    with pytest.raises(ValueError) as error:
        Movement(train.cross_entropy, net(), matrices, **options)
    assert said in str(error.value)
    with pytest.raises(ValueError, match="nothing to score"):
        Movement(train.cross_entropy, net(), lambda name, parameter: False)
    with pytest.raises(ValueError, match="begin before end"):
        ramp(0.5, begin=0.8, end=0.2)


RECIPE = """
[defaults]
task = "mylab:blobs"
steps = 24
gradient = { name = "sam", rho = 0.05 }
[stage.move]
kind = "Movement"
sparsity = 0.8
[stage.int8]
kind = "OneShot"
model = "move"
sparsities = [0.9]
"""


@pytest.mark.parametrize("fields", [{}, {"move.perturb": "scores"}, {"move.way": "soft"}, {"move.keep": "best"}])
def test_the_stage_resumes_to_the_same_bits_and_leaves_what_it_scored(fields, tmp_path, plugins, monkeypatch):
    from dataclasses import replace
    from itertools import count

    (tmp_path / "trial.toml").write_text(RECIPE)
    plan = planning.plan(read(str(tmp_path / "trial.toml")), overrides=fields)
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    runner.run(plan, whole)
    original, left = Stage.run, [5, 13]

    def stopped(stage, work):
        steps, after = count(1), left.pop(0) if left else None
        return original(stage, replace(work, stop=lambda: next(steps) == after))

    monkeypatch.setattr(Stage, "run", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.run(plan, parts)
    runner.run(plan, parts)
    key = next(job.key for job in plan.jobs if job.name == "move")
    for file in ("model.safetensors", "mask.safetensors"):
        assert (whole.folder(key) / file).read_bytes() == (parts.folder(key) / file).read_bytes()
    (row,) = whole.done(key)["rows"]
    mask = compress.load_mask(whole.folder(key) / "mask.safetensors")
    weights = train.state.read(whole.folder(key) / "model.safetensors")[0]
    assert row["sparsity"] == mask.sparsity
    assert all((weights[name][~alive] == 0).all() for name, alive in mask.items())
    assert not any("score" in name for name in weights)
    if "move.way" not in fields:
        assert row["sparsity"] == pytest.approx(0.8, abs=2e-3)


def test_what_cannot_be_is_told_while_planning(tmp_path, plugins):
    (tmp_path / "trial.toml").write_text(RECIPE)
    for fields, said in (
        ({"move.sparsity": 1.0}, "sparsity must be in [0, 1)"),
        ({"move.begin": 0.9}, "begin before end"),
        ({"move.tau": 0.0}, "tau must be in (0, 1)"),
        ({"move.score_lr": 0.0}, "score_lr above 0"),
    ):
        with pytest.raises(ValueError) as error:
            planning.plan(read(str(tmp_path / "trial.toml")), overrides=fields)
        assert said in str(error.value)
