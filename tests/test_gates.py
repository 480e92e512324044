"""Hard-concrete gates: closed forms, Monte Carlo, gradients; how they act on a model; the Lagrangian that aims them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainflat import train
from trainflat.compress import Gates, Lagrangian, concrete, gated, structure
from trainflat.compress.sizes import sparsity
from trainflat.compress.units import FAMILIES
from trainflat.flat import sam
from trainflat.tasks import zoo

HIDDEN, LAYERS = 8, 2


def encoder(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    model = zoo.Encoder(
        zoo.Words(20, 10, HIDDEN, 0.0), classes=3, hidden=HIDDEN, heads=2, layers=LAYERS, ffn=6, dropout=0.0
    )
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.to(dtype).eval()


TOKENS = torch.arange(2 * 5).reshape(2, 5)


# the distribution


@pytest.mark.parametrize("log_alpha", [-4.6, -1.0, 0.0, 0.7, 3.0])
def test_the_share_of_zeros_and_ones_is_the_closed_forms(log_alpha):
    n = 200_000
    z = concrete.sample(torch.full((n,), log_alpha))
    for seen, expected in (
        ((z > 0).double().mean(), 1 - 1 / (1 + math.exp(log_alpha - 2 / 3 * math.log(0.1 / 1.1)))),
        ((z == 1).double().mean(), 1 - 1 / (1 + math.exp(log_alpha - 2 / 3 * math.log(1.1 / 0.1)))),
    ):
        assert abs(seen - expected) < 4 * math.sqrt(expected * (1 - expected) / n) + 1e-5
    assert torch.allclose(concrete.open_probability(torch.tensor(log_alpha)), (z > 0).float().mean(), atol=5e-3)


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 2.0])
def test_the_mean_of_samples_is_the_integral_of_the_tail(log_alpha):
    """E[z] = integral of P(z > t) over [0, 1], with P(z > t) = 1 - sigmoid(T logit((t + 0.1) / 1.2) - log_alpha)."""
    z = concrete.sample(torch.full((400_000,), log_alpha, dtype=torch.float64))
    t = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    tail = 1 - torch.sigmoid(2 / 3 * torch.logit((t + 0.1) / 1.2) - log_alpha)
    assert abs(z.mean() - tail.mean()) < 4 * z.std() / len(z) ** 0.5


def test_the_gradient_of_a_sample_equals_finite_differences():
    log_alpha = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    uniform = torch.linspace(0.35, 0.6, 9, dtype=torch.float64)  # neither cut at 0 nor at 1
    assert torch.autograd.gradcheck(lambda a: concrete.sample(a, uniform), log_alpha, eps=1e-6, atol=1e-8)
    assert torch.autograd.gradcheck(concrete.open_probability, log_alpha, eps=1e-6, atol=1e-8)


def test_probabilities_stay_away_from_zero_and_one():
    p = concrete.open_probability(torch.tensor([-100.0, 100.0], dtype=torch.float64))
    assert torch.allclose(p, torch.tensor([1e-6, 1 - 1e-6], dtype=torch.float64), rtol=1e-9, atol=0)


@given(st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.25, 2.0, 4.6]), min_size=1, max_size=12), st.integers(0, 1))
def test_evaluation_shuts_the_expected_number_of_the_smallest(values, least):
    log_alpha = torch.tensor(values, dtype=torch.float64)
    zeros = min(round(len(values) - float(concrete.open_probability(log_alpha).sum())), len(values) - least)
    shut = sorted(range(len(values)), key=lambda i: (values[i], i))[:zeros]  # ties: the first go
    expected = [0.0 if i in shut else 1 / (1 + math.exp(-values[i] * 0.8 * 1.5)) for i in range(len(values))]
    assert concrete.expected(log_alpha, least=least).tolist() == pytest.approx(expected)


# gates


def test_initial_log_alphas_are_the_papers_and_drawn_from_the_seed():
    model = zoo.vit_small()
    gates, again, other = (Gates(structure(model), seed=seed) for seed in (0, 0, 1))
    for family in FAMILIES:
        alpha = gates.log_alpha[family]
        assert abs(alpha.mean() - (0 if family == "intermediate" else 10)) < 0.02
        assert torch.equal(alpha, again.log_alpha[family])
        assert not torch.equal(alpha, other.log_alpha[family])
    assert abs(gates.log_alpha["intermediate"].std() - 0.01) < 0.002
    dropped = Gates(structure(model), drop=0.2).log_alpha["intermediate"].mean()
    assert abs(dropped - math.log(0.8 / 0.2)) < 0.01


def test_clamp_is_the_papers_interval():
    gates = Gates(structure(zoo.vit_small()))
    gates.log_alpha["head"].data.fill_(-50)
    gates.clamp()
    assert float(gates.log_alpha["head"].detach().min()) == pytest.approx(math.log(0.01))
    assert float(gates.log_alpha["hidden"].detach().max()) == pytest.approx(math.log(100))


@pytest.mark.parametrize("families", [[family] for family in FAMILIES] + [list(FAMILIES[:2])])
def test_any_subset_of_the_families_works(families):
    """The reference implementation breaks when one is left out: a stale variable, a missing attribute."""
    model = encoder()
    gates = Gates(structure(model), families=families)
    assert list(gates.log_alpha) == families
    before = model(TOKENS)
    with gates.on(model.train()):
        loss = model(TOKENS).sum() + gates.sparsity()
    loss.backward()
    assert all(alpha.grad is not None for alpha in gates.parameters())
    with gates.on(model.eval()):
        model(TOKENS)
    assert torch.equal(model(TOKENS), before)
    z = gates.deterministic()
    assert list(z) == families + [family for family in FAMILIES if family not in families]
    assert all(bool((z[family] == 1).all()) for family in FAMILIES if family not in families)


def test_unknown_families_and_rates_are_refused():
    found = structure(zoo.vit_small())
    with pytest.raises(ValueError, match=r"families are some of attention, .* got \['layer'\]"):
        Gates(found, families=["layer"])
    with pytest.raises(ValueError, match="got none"):
        Gates(found, families=[])
    with pytest.raises(ValueError, match="drop is a probability"):
        Gates(found, drop=1.0)


def test_a_single_hidden_dimension_stays_however_low_all_are():
    gates = Gates(structure(encoder()))
    for alpha in gates.log_alpha.values():
        alpha.data.fill_(-4.6)
    z = gates.deterministic()
    assert int((z["hidden"] > 0).sum()) == 1
    assert not z["attention"].any()
    assert not z["ffn"].any()


# gates on a model


def test_open_gates_change_no_bit_and_no_key():
    model = encoder()
    before, keys = model(TOKENS), list(model.state_dict())
    found = structure(model)
    with gated(model, found, found.open):
        assert torch.equal(model(TOKENS), before)
        assert list(model.state_dict()) == keys
    with gated(model, found, dict):
        assert torch.equal(model(TOKENS), before), "a family that is missing is open"


def test_gates_are_gone_after_an_error_inside():
    model = encoder()
    before = model(TOKENS)
    gates = Gates(structure(model))
    with pytest.raises(RuntimeError, match="mine"), gates.on(model):
        raise RuntimeError("mine")
    assert torch.equal(model(TOKENS), before)
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in model.modules())


def test_training_samples_at_every_pass_and_evaluation_does_not():
    model = encoder()
    gates = Gates(structure(model))
    with gates.on(model):
        assert torch.equal(model(TOKENS), model(TOKENS))
        state = torch.get_rng_state()
        train.predict(model, [(TOKENS, torch.zeros(2))])
        assert torch.equal(torch.get_rng_state(), state)
        model.train()
        assert not torch.equal(model(TOKENS), model(TOKENS))
        torch.set_rng_state(state)
        first = model(TOKENS)
        torch.set_rng_state(state)
        assert torch.equal(model(TOKENS), first)


def test_a_copy_made_under_the_gates_is_under_them_in_its_own_mode_and_as_long():
    model = encoder()
    gates = Gates(structure(model))
    for alpha in gates.log_alpha.values():
        alpha.data.uniform_(-3, 3)
    with gates.on(model):
        expected, twin = model(TOKENS), copy.deepcopy(model)
        model.train()
        assert torch.equal(twin(TOKENS), expected)
        assert not torch.equal(model(TOKENS), model(TOKENS)), "the copy is evaluated, the model samples"
        model.eval().classifier.weight.data.zero_()
        assert torch.equal(twin(TOKENS), expected)
    assert torch.equal(twin(TOKENS), encoder()(TOKENS)), "the copy has no gates either"


def layer_norm_over(x, kept, norm):
    """LayerNorm over some dimensions only, by index."""
    out = torch.zeros_like(x)
    chosen = x[..., kept]
    out[..., kept] = nn.functional.layer_norm(chosen, chosen.shape[-1:], norm.weight[kept], norm.bias[kept], norm.eps)
    return out


def test_the_gated_encoder_computes_what_it_says():
    """Written out by hand, with indices, for the pre-LN encoder: every gate at its place."""
    model, found = encoder(torch.float64), structure(encoder())
    z = {name: torch.rand(shape, dtype=torch.float64) for name, shape in found.shapes.items()}
    z["hidden"][[1, 4]], z["head"][0, 1], z["intermediate"][1, :3], z["attention"][1] = 0, 0, 0, 0
    kept = z["hidden"].nonzero().flatten()
    x = model.embeddings.word(TOKENS) + model.embeddings.position.weight[:5]
    x = layer_norm_over(x * z["hidden"], kept, model.embeddings.norm) * z["hidden"]
    for i, layer in enumerate(model.layers):
        inner = layer_norm_over(x, kept, layer.attention_norm) * z["hidden"]
        q, k, v = (
            m(inner).unflatten(-1, (2, -1)).transpose(1, 2)
            for m in (layer.attention.query, layer.attention.key, layer.attention.value)
        )
        mixed = (q @ k.mT / math.sqrt(HIDDEN / 2)).softmax(-1) @ v * z["head"][i][:, None, None]
        x = x + layer.attention.output(mixed.transpose(1, 2).flatten(2)) * z["attention"][i] * z["hidden"]
        inner = layer_norm_over(x, kept, layer.ffn_norm) * z["hidden"]
        inner = nn.functional.gelu(layer.intermediate(inner)) * z["intermediate"][i]
        x = x + layer.output(inner) * z["ffn"][i] * z["hidden"]
    pooled = model.pooler((layer_norm_over(x, kept, model.norm) * z["hidden"]).mean(1))
    with gated(model, found, lambda: z):
        assert torch.allclose(model(TOKENS), model.classifier(pooled), atol=1e-12)


def test_the_gradient_through_a_gated_model_equals_finite_differences():
    model = encoder(torch.float64)
    gates = Gates(structure(model)).double()
    for alpha in gates.log_alpha.values():
        alpha.data.uniform_(-1.5, 1.5)
    model.train()

    def loss():
        torch.manual_seed(3)  # the same uniform numbers
        with gates.on(model):
            return model(TOKENS).square().sum()

    loss().backward()
    z = gates.sample()
    checked = 0
    with torch.no_grad():
        torch.manual_seed(3)
        z = gates.sample()
        for family, alpha in gates.log_alpha.items():
            grads = alpha.grad.reshape(-1)
            for i in range(alpha.numel()):
                inner = 1e-4 < float(z[family].reshape(-1)[i]) < 1 - 1e-4  # at a cut there is a kink
                if not inner:
                    continue
                flat, sides = alpha.view(-1), []
                for step in (1e-6, -2e-6):
                    flat[i] += step
                    sides.append(float(loss()))
                flat[i] += 1e-6
                assert grads[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-6)
                checked += 1
    assert checked > 15


def test_no_number_ever_leaves_the_device():
    """On the meta device there are no numbers, so whatever looked at one would fail."""
    with torch.device("meta"):
        model = zoo.bert_small(vocabulary=20, positions=10, classes=2)
        tokens = torch.zeros(2, 5, dtype=torch.long)
    gates = Gates(structure(model)).to("meta")
    held = Lagrangian(lambda model, batch: model(batch).sum(), gates, target=0.5)
    with gates.on(model):
        held(model.train(), tokens).backward()
        model.eval()(tokens)
    gates.clamp()
    assert gates.deterministic()["hidden"].is_meta


def test_autocast_keeps_its_type():
    model = encoder().train()
    gates = Gates(structure(model))
    with gates.on(model), torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(TOKENS)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(bool(alpha.grad.isfinite().all()) for alpha in gates.parameters())


def test_sam_with_replayed_dropout_replays_the_gates():
    model = encoder().train()
    gates, drawn = Gates(structure(model)), []

    def sample():
        drawn.append(gates.sample())
        return drawn[-1]

    batch = [(TOKENS, torch.tensor([0, 1]))]
    with gated(model, gates.structure, sample):
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        train.fit(model, train.cross_entropy, batch, sgd, steps=1, gradient=sam(0.05, dropout="replay"))
    first, second = drawn
    assert all(torch.equal(first[family], second[family]) for family in FAMILIES)


# aiming


def test_the_price_is_the_papers_and_its_multipliers_ascend():
    gates = Gates(structure(encoder()))
    held = Lagrangian(lambda model, batch: torch.zeros(()), gates, target=0.9, lr=0.1)
    held.multipliers.data[:] = torch.tensor([2.0, 3.0])
    s = float(gates.sparsity().detach())
    assert float(held.price().detach()) == pytest.approx(2 * (s - 0.9) + 3 * (s - 0.9) ** 2)
    held.multipliers.data.zero_()
    optimizer = torch.optim.AdamW(held.groups())
    for _ in range(5):
        optimizer.zero_grad()
        held(None, None).backward()
        optimizer.step()
    l1, l2 = held.multipliers.tolist()
    assert l1 < 0 < l2, "too dense: s - t < 0, so l1 falls below zero and pulls s up, l2 rises"


def test_a_target_outside_its_range_is_refused():
    gates = Gates(structure(encoder()))
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 95"):
        Lagrangian(train.cross_entropy, gates, target=95)


def test_a_warmed_up_target_is_a_schedule_of_ours():
    rise = train.linear(0.95, 0.95, warmup=0.1)
    assert [round(rise(t), 4) for t in (0.0, 0.05, 0.1, 0.5, 1.0)] == [0.0, 0.475, 0.95, 0.95, 0.95]


def toy(seed):
    """Two layers whose best structure is known: what is useless has a zero column behind it, so it costs nothing to cut."""
    model = encoder(seed=seed)
    useful = {"head": [[1, 0], [0, 0]], "intermediate": [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]}
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            head = torch.tensor(useful["head"][i]).repeat_interleave(HIDDEN // 2)
            layer.attention.output.weight.mul_(head)
            layer.output.weight.mul_(torch.tensor(useful["intermediate"][i]))
            layer.attention.output.bias.zero_()
            layer.output.bias.zero_()
            layer.intermediate.bias.fill_(1.0)  # every neuron is awake, so those that count do count
    return model, {family: torch.tensor(kept, dtype=torch.bool) for family, kept in useful.items()}


def test_the_lagrangian_finds_the_best_structure_of_a_toy():
    model, useful = toy(seed=2)
    found = structure(model)
    for p in model.parameters():
        p.requires_grad_(False)
    with torch.no_grad():
        inputs = [torch.randint(0, 20, (16, 10)) for _ in range(4)]
        wanted = [model(x) for x in inputs]
    # a log-alpha stays in its interval, so what is shut still opens in 4.7 % of the samples: the sparsity of the best
    shut, wide = (concrete.open_probability(torch.tensor(end)) for end in concrete.CLAMP)
    best = {family: torch.where(kept, wide, shut) for family, kept in useful.items()}
    target = float(sparsity(found, {**found.open(), **best}))
    gates = Gates(found, families=["head", "intermediate"])
    rise, steps = train.linear(target, target, warmup=0.3), 600
    objective = lambda model, batch: 1000 * nn.functional.mse_loss(model(batch[0]), batch[1])
    held = Lagrangian(objective, gates, target=rise, lr=0.1)
    optimizer = torch.optim.AdamW(held.groups())
    with gates.on(model.train()):
        for step in range(steps):
            held.advance(step / steps)
            optimizer.zero_grad()
            held(model, (inputs[step % 4], wanted[step % 4])).backward()
            optimizer.step()
    held.advance(1.0)
    z = gates.deterministic()
    for family, kept in useful.items():
        assert torch.equal(z[family] > 0, kept), family
    assert abs(float(gates.sparsity().detach()) - target) < 0.01


def test_gates_and_multipliers_resume_to_the_same_bits():
    model = encoder().train()
    batch = (TOKENS, torch.tensor([0, 1]))

    def start():
        net = copy.deepcopy(model)
        held = Lagrangian(train.cross_entropy, Gates(structure(net)), target=0.6)
        return net, held, torch.optim.AdamW([{"params": net.parameters(), "lr": 1e-3}, *held.groups()])

    def run(net, held, optimizer, steps):
        with held.gates.on(net):
            for _ in range(steps):
                optimizer.zero_grad()
                held(net, batch).backward()
                optimizer.step()
                held.gates.clamp()

    whole = start()
    torch.manual_seed(5)
    run(*whole, 6)
    half, again = start(), start()
    torch.manual_seed(5)
    run(*half, 3)
    state = torch.get_rng_state()
    for new, old in zip(again, half):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    torch.manual_seed(99)
    torch.set_rng_state(state)
    run(*again, 3)
    for one, other in zip(whole[:2], again[:2]):
        assert all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())
