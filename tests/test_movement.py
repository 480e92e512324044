"""The objective of movement pruning: its two gradients, exact counts, what SAM moves, and the case where magnitude is wrong."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainflat import compress, flat, train
from trainflat.compress.movement import Movement, _prune_there, ramp


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


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.97])
def test_an_accelerator_prunes_the_same_weights_as_the_cpu(scope, sparsity):
    """The way that never leaves the device against compress.prune, with many ties and both zeros among the scores."""
    draw = torch.Generator().manual_seed(3)
    scores = {f"w{i}": torch.randint(-3, 4, shape, generator=draw) * -0.5 for i, shape in enumerate([(7, 9), (31,)])}
    whole = compress.Mask({name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()})
    assert _prune_there(scores, sparsity, scope) == compress.prune(scores, sparsity, within=whole, scope=scope)


@pytest.mark.parametrize(
    "options",
    [{"sparsity": lambda t: 0.5 * (t == 1)}, {"kind": "soft", "strength": 0.0, "tau": lambda t: 0.5 * (t == 1)}],
)
def test_movement_is_right_where_magnitude_is_wrong(options):
    """Weights 0.1 -> 1 and 3 -> 0 on sum (w - target)^2 / 2, stopped early: the large one is still the larger one.

    Each error shrinks by 1 - lr a step, and S = -lr' * sum of w * (w - target), both in closed form while nothing is pruned.
    """
    target, start, lr, steps = torch.tensor([1.0, 0.0]), torch.tensor([0.1, 3.0]), 0.05, 5
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(start[None])
    held = Movement(lambda m, x: (m(x)[:, 0] - target).square().sum() / 2, model, lr=1e-4, **options)
    optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *held.groups()], lr=lr)
    with held.on(model):
        train.fit(model, held, [torch.eye(2)] * steps, optimizer, steps=steps)
    paths = [target + (start - target) * (1 - lr) ** step for step in range(steps + 1)]
    torch.testing.assert_close(model.weight.detach()[0], paths[-1])
    gathered = -1e-4 * sum(w * (w - target) for w in paths[:-1])
    torch.testing.assert_close(held.scores["weight"].detach()[0], gathered)
    held.advance(1.0)
    by_movement = held.mask()
    by_magnitude = compress.prune(compress.magnitude(model), 0.5, within=compress.Mask.dense(model, lambda n, p: True))
    assert by_movement["weight"].tolist() == [[True, False]]
    assert by_magnitude["weight"].tolist() == [[False, True]]
    losses = [
        float((model.weight.detach()[0] * mask["weight"][0] - target).square().sum())
        for mask in (by_movement, by_magnitude)
    ]
    assert losses[0] < 0.6 < 6 < losses[1]


def test_tied_weights_are_masked_wherever_they_are():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    held = held_at(model, sparsity=0.5)
    with held.on(model), torch.no_grad():
        seen = model(torch.eye(4))
    assert model[2].weight is model[0].weight
    held.mask().apply_to(model)
    assert torch.equal(model(torch.eye(4)), seen)


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


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_layer_that_runs_again_in_the_backward_pass_is_told(reentrant):
    """It would run without its mask, and its gradient would be that of another weight."""

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = net()[:2], net()[2]

        def forward(self, x):
            return self.last(checkpoint(self.first, x, use_reentrant=reentrant))

    model = Checkpointed().double()
    held, (x, labels) = held_at(model, sparsity=0.4), batch()
    with held.on(model):
        loss = held(model, (x.requires_grad_(), labels))
        with pytest.raises(RuntimeError, match="activation checkpointing"):
            loss.backward()
    model.first(x)  # afterwards it may


def test_a_copy_is_under_the_same_mask_for_as_long():
    model, (x, _) = net(), batch()
    held, plain = held_at(model, sparsity=0.4), model(x)
    with held.on(model):
        expected, copied = model(x), deepcopy(model)
        assert torch.equal(copied(x), expected)
        with torch.no_grad():
            copied[0].weight.zero_()  # its own
        assert not torch.equal(copied(x), expected)
        assert torch.equal(model(x), expected)
        with torch.no_grad():
            copied[0].weight.copy_(model[0].weight)
    assert torch.equal(copied(x), plain)


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
    """Everything that SAM moves lies on one sphere of radius rho: weights and biases, and with "scores" the scores as well."""
    model = net()
    held = held_at(model, sparsity=0.5)
    original, own, seen = held.objective, list(model.parameters()), []

    def spy(m, b):
        seen.append([torch.cat([p.detach().flatten() for p in ps]) for ps in (own, held.scores.values())])
        return original(m, b)

    held.objective = spy
    optimizer = torch.optim.SGD([{"params": own}, *held.groups()], lr=0.0)
    with held.on(model, perturb=perturb):
        train.fit(model, held, [batch()], optimizer, steps=1, gradient=flat.sam(rho=0.1))
    weights, scores = (after - before for before, after in zip(*seen, strict=True))
    assert weights.norm() > 0
    assert bool(scores.norm() > 0) == (perturb == "scores")
    assert float(torch.cat([weights, scores]).norm()) == pytest.approx(0.1)
    assert all(score.grad is not None and score.grad.abs().sum() > 0 for score in held.scores.values())


@pytest.mark.parametrize("perturb", ["weights", "scores"])
def test_rho_zero_is_plain_bit_for_bit(perturb):
    def trained(rule):
        model = net(torch.float32)
        held = held_at(model, sparsity=ramp(0.8))
        optimizer = torch.optim.Adam([{"params": [*model.parameters()]}, *held.groups()], lr=1e-2)
        with held.on(model, perturb=perturb):
            for step in train.loop(model, held, [batch(torch.float32)] * 20, optimizer, steps=20, gradient=rule):
                held.advance((step.index + 1) / 20)
        return [*model.state_dict().values(), *held.scores.values()]

    assert all(torch.equal(a, b) for a, b in zip(trained(flat.sam(rho=0.0)), trained(flat.plain()), strict=True))


@pytest.mark.parametrize("perturb", ["weights", "scores"])
def test_autocast_computes_with_the_same_mask_and_keeps_weights_and_scores_as_they_are(perturb):
    model = net(torch.float32)
    held = held_at(model, sparsity=0.5)
    pruned = net(torch.float32)
    held.mask().apply_to(pruned)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = pruned(batch(torch.float32)[0])
        with held.on(model):
            assert torch.equal(model(batch(torch.float32)[0]), expected)
    optimizer = torch.optim.Adam([{"params": [*model.parameters()]}, *held.groups()], lr=1e-2)
    with held.on(model, perturb=perturb):
        train.fit(model, held, [batch(torch.float32)], optimizer, steps=1, gradient=flat.sam(), precision="bf16")
    assert {p.dtype for p in [*model.parameters(), *held.parameters()]} == {torch.float32}
    assert all(score.grad is not None and score.grad.isfinite().all() for score in held.scores.values())


def test_numbers_may_be_schedules():
    held = Movement(
        train.cross_entropy, net(), kind="soft", strength=train.linear(0.0, 8.0), tau=train.linear(0.0, 0.4)
    )
    assert (held.strength, held.tau, held.reached()) == (0.0, 0.0, False)
    assert held.mask().sparsity == 0
    held.advance(1.0)
    assert (held.strength, held.tau, held.reached()) == (8.0, 0.4, True)
    hard = Movement(train.cross_entropy, net(), sparsity=ramp(0.8, begin=0.2, end=0.6))
    for t, sparsity in ((0.2, 0.0), (0.4, 0.7), (0.6, 0.8), (1.0, 0.8)):
        hard.advance(t)
        assert hard.sparsity == pytest.approx(sparsity)


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
    with (
        pytest.raises(ValueError, match="perturb must be 'weights' or 'scores'"),
        held_at(net()).on(net(), perturb="all"),
    ):
        pass
    with pytest.raises(ValueError, match="nothing to score"):
        Movement(train.cross_entropy, net(), lambda name, parameter: False)
    with pytest.raises(ValueError, match="begin before end"):
        ramp(0.5, begin=0.8, end=0.2)
