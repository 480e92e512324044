"""Which parameters move, and to which point: by type of module, pruned, quantized; and what is trained beside them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from trainflat import flat, tasks, train
from trainflat.flat import by_example, cheap, compressed, gradients, variants
from trainflat.flat.places import head, matrices
from trainflat.flat.points import Pruned, Quantized
from trainflat.testing.problem import Counted, equal, problem, trainable

RULES = [name for home in (gradients, cheap, variants, compressed, by_example) for name in home.__all__]


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


# where


def visited(rule, net, batch):
    """Which parameters were elsewhere in the last pass."""
    places, trained = [], [p.requires_grad for p in net.parameters()]

    def objective(model, batch):
        places.append(train.snapshot(model))
        return train.cross_entropy(model, batch)

    train.fit(net, objective, [batch], sgd(net), steps=1, gradient=rule)
    assert [p.requires_grad for p in net.parameters()] == trained
    return {name for name in places[0] if not torch.equal(places[0][name], places[-1][name])}


class Encoder(nn.Module):
    """Embedding, three blocks, a norm and a head, as transformers are made."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


def test_the_last_layers_are_the_last_blocks_and_what_comes_after():
    _, batch = problem()
    after = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    last = {f"blocks.2.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
    everything = {name for name, _ in Encoder().named_parameters()}
    assert visited(flat.last_layers(count=0), Encoder(), batch) == after
    assert visited(flat.last_layers(count=1), Encoder(), batch) == after | last
    assert visited(flat.last_layers(count=3), Encoder(), batch) == everything


def test_norm_layers_are_found_by_type_and_not_by_name():
    net = Encoder()
    net.head_norm = nn.Linear(3, 3)  # called so, but none
    chosen = visited(flat.sam_on(), net, problem()[1])
    assert chosen == {name for name in train.snapshot(net) if name.startswith("norm.") or name[8:].startswith(".0.")}


def test_the_first_pass_computes_only_the_gradients_that_it_needs():
    net, (_, batch) = Encoder(), problem()
    counts = dict.fromkeys(dict(net.named_parameters()), 0)
    for name, p in net.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: counts.update({name: counts[name] + 1}))
    train.fit(net, train.cross_entropy, [batch] * 3, sgd(net), steps=3, gradient=flat.last_layers(count=0))
    assert counts["head.weight"] == counts["norm.bias"] == 3 * 2
    assert (
        counts["embed.weight"] == counts["blocks.2.1.weight"] == 2 + 1 + 1
    )  # the first step finds out what the loss uses


def test_where_the_drawn_parameters_are_not_used_the_step_is_plain():
    net, batch = problem()[0], problem()[1]
    net.register_parameter("unused", nn.Parameter(torch.ones(3)))
    rules = (flat.esam(p=0.1, seed=seed) for seed in range(40))  # without the others no loss of a pass needs a gradient
    for rule in rules:
        train.fit(net, train.cross_entropy, [batch] * 3, sgd(net), steps=3, gradient=rule)


class Segments(Encoder):
    """An encoder under gradient checkpointing of the kind that gives no gradient where no input needs one."""

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=True)
        return self.head(self.norm(x))


def test_under_reentrant_checkpointing_the_same_parameters_move():
    ends = []
    for kind in (Encoder, Segments):
        torch.manual_seed(0)
        net = kind()
        train.fit(
            net, train.cross_entropy, [problem()[1]] * 4, sgd(net), steps=4, gradient=flat.last_layers(1.0, count=2)
        )
        ends.append(train.snapshot(net))
    assert equal(*ends)


def test_norm_layers_are_not_what_a_wrapper_of_that_name_holds():
    class PreNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fn = nn.LayerNorm(6), nn.Linear(6, 6)

        def forward(self, x):
            return self.fn(self.norm(x))

    net = nn.Sequential(PreNorm(), nn.Linear(6, 3))
    assert visited(flat.sam_on(), net, problem()[1]) == {"0.norm.weight", "0.norm.bias"}


def test_a_model_without_such_layers_is_refused():
    net, batch = nn.Linear(6, 3), problem()[1]
    with pytest.raises(ValueError, match="this model has no norm layers among its trainable parameters; use sam"):
        train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=flat.sam_on())
    norm = nn.LayerNorm(6)
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        train.fit(norm, train.cross_entropy, [batch], sgd(norm), steps=1, gradient=flat.cram())


@pytest.mark.parametrize(
    ("gave", "error", "message"),
    [
        (
            ["4.wieght", "0"],
            ValueError,
            "it gave '4.wieght' and 1 more, and the trainable parameters are named like '0.weight'",
        ),
        (set(), ValueError, "chose nothing to move: it gave no name, and the trainable .*; use plain to move none"),
        ("4.weight", TypeError, "gives the set of the names of the parameters that move; this one gave '4.weight'"),
        (None, TypeError, "this one gave None"),
    ],
)
def test_a_choice_of_ones_own_that_moves_nothing_is_told(gave, error, message):
    net, batch = problem()
    rule = flat.compose(0.05, where=lambda model, params: gave)
    with pytest.raises(error, match=message):
        train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=rule)


def test_a_choice_of_ones_own_may_give_frozen_names_and_any_iterable():
    net, batch = problem()
    net[0].weight.requires_grad_(False)
    rule = flat.compose(0.5, where=lambda model, params: (name for name in ("4.weight", "0.weight")))
    assert visited(rule, net, batch) == {"4.weight"}


def test_what_is_to_stay_dense_is_found_in_wrapped_models_and_a_name_that_is_none_is_refused():
    net, batch = problem()
    zeros = []

    def objective(model, batch):
        zeros.append([int((m.weight == 0).sum()) > 0 for m in model.modules() if isinstance(m, nn.Linear)])
        return train.cross_entropy(model, batch)

    for wrapped in (net, nn.ModuleDict({"module": net})):
        run = objective if wrapped is net else lambda model, batch: objective(model["module"], batch)
        train.fit(wrapped, run, [batch], sgd(wrapped), steps=1, gradient=flat.cram(dense=["4."]))
        assert zeros[-1] == [True, False]
    with pytest.raises(
        ValueError, match=r"no parameter's name begins with 'head', which is to stay dense; names are like '4.bias'"
    ):
        train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=flat.cram(dense=["head"]))
    with pytest.raises(ValueError, match="all its linear and convolutional layers are to stay dense"):
        train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=flat.cram(dense=["0", "4"]))
    with pytest.raises(
        ValueError, match="dense is 'head' or lists beginnings of parameters' names, .* got the text '4'"
    ):
        flat.cram(dense="4")


def test_the_head_stays_dense_wherever_it_stands():
    """In a plain model, in a wrapped one, and in every task that ships: what the task itself says is its head."""
    net, batch = problem()
    found = []

    def objective(model, batch):
        found.append({name for name, p in model.named_parameters() if p.ndim > 1 and not p.all()})
        return train.cross_entropy(model, batch)

    rule = partial(flat.cram, sparsity=[0.9, 0.9], dense="head")
    train.fit(net, objective, [batch], sgd(net), steps=1, gradient=rule())
    assert found[1] == {"0.weight"}
    wrapped = nn.ModuleDict({"module": net})
    run = lambda model, batch: objective(model["module"], batch)
    train.fit(wrapped, run, [batch], sgd(wrapped), steps=1, gradient=rule())
    assert found[3] == {"0.weight"}
    for dense in ("head", ["4"]):  # a closure may call the parameters what it likes
        closure = lambda: objective(net, batch).backward() or torch.zeros(())
        closure.model = net
        flat.cram(sparsity=[0.9, 0.9], dense=dense)(closure, {f"my.{n}": p for n, p in net.named_parameters()}, 0.0)
        assert found[-1] == {"0.weight"}
    one = nn.Linear(6, 3)
    with pytest.raises(
        ValueError, match="all its linear and convolutional layers are to stay dense, or are not trained"
    ):
        train.fit(one, train.cross_entropy, [batch], sgd(one), steps=1, gradient=rule())
    for task in (tasks.digits(), tasks.docstrings()):
        model = task.model(seed=0)
        named = {name for name, p in model.named_parameters() if id(p) in head(model)}
        assert named
        assert named == {name for name, _ in model.named_parameters() if name.startswith(tuple(task.head))}


# what is trained beside the model


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", RULES)
def test_a_layer_without_weights_does_no_harm(name):
    net, batch = problem()
    net.empty, net.none = nn.Linear(0, 3), nn.Linear(6, 0)
    net.forward = lambda x: nn.Sequential.forward(net[:-2], x) + net.empty(x[:, :0]) + net.none(x).sum()
    rule, params = getattr(flat, name)(), trainable(net)
    for _ in range(2):
        net.zero_grad()
        rule(Counted(net, batch).given(parts=True), params, 0.5)
    assert all(p.grad.isfinite().all() for p in params.values())


def test_to_look_for_matrices_computes_no_weight():
    """spectral_norm turns its vectors on whenever its weight is asked for."""
    net = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    before = train.snapshot(net)
    assert matrices(net, trainable(net)) == {"1.weight"}
    assert equal(before, train.snapshot(net))


def test_that_a_weight_under_a_parametrization_is_no_matrix_is_told():
    net = weight_norm(nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"no linear or convolutional layer to train \(.* weight_norm, .*\)"):
        flat.cram()(Counted(net, problem()[1]).given(parts=True), trainable(net), 0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2s_layers_are_matrices_and_an_embedding_is_none(tied):
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
    config = transformers.GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=8,
        vocab_size=16,
        n_positions=8,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=tied,
    )
    net = transformers.GPT2LMHeadModel(config)
    found = matrices(net, dict(net.named_parameters()))
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    inside = {f"transformer.h.{i}.{layer}.weight" for i in range(2) for layer in layers}
    assert found == (inside if tied else inside | {"lm_head.weight"})


def test_what_is_trained_beside_the_model_has_the_sum_of_the_passes_that_cram_adds_up():
    """(w v)^2 with v = 2 beside: dL/dv = 2 w^2 v is 4 at w = 1, and 9 at the ascent point, w = 1.5 (nothing is pruned)."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    beside = nn.Parameter(torch.tensor(2.0))
    both = torch.optim.SGD([*model.parameters(), beside], lr=0.0)

    def objective(model, batch):
        return (model(batch[0])[:, 0] * beside - batch[1]).square().mean()

    batch = (torch.ones(2, 1), torch.zeros(2))
    train.fit(model, objective, [batch], both, steps=1, gradient=flat.cram(0.5, sparsity=(0.0, 0.0)))
    assert beside.grad.item() == pytest.approx(4 + 9)
    assert model.weight.grad.item() == pytest.approx(8 + 12)  # dL/dw = 2 w v^2


def test_a_rule_whose_parameters_the_loss_does_not_use_is_plain():
    """The head's norm is not on the way: the pass that was taken for it alone is taken again for all."""
    _, (x, y) = problem()
    found = []
    for rule in (flat.sam_on(), flat.plain()):
        torch.manual_seed(0)
        both = nn.ModuleDict({"net": nn.Linear(6, 3), "aside": nn.LayerNorm(3)})

        def objective(model, batch):
            return train.cross_entropy(model["net"], batch) + 0 * batch[0].clone().requires_grad_().sum()

        train.fit(both, objective, [(x, y)], sgd(both), steps=1, gradient=rule)
        found.append(train.snapshot(both))
    assert equal(*found)


# points


def test_the_pruned_point_has_a_sparsity_from_the_range_another_each_time():
    net, batch = Encoder(), problem()[1]
    seen = []

    def objective(model, batch):
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
        seen.append(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights))
        return train.cross_entropy(model, batch)

    train.fit(net, objective, [batch] * 20, sgd(net), steps=20, gradient=flat.cram(sparsity=[0.3, 0.8]))
    assert seen[::2] == [0.0] * 20
    pruned = seen[1::2]
    assert len(set(pruned)) > 15
    assert 0.29 < min(pruned) < 0.45
    assert 0.65 < max(pruned) < 0.81


def test_a_rule_hands_its_progress_to_a_range_that_grows():
    net, batch = Encoder(), problem()[1]
    seen = []

    def objective(model, batch):
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
        seen.append(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights))
        return train.cross_entropy(model, batch)

    rule = flat.cram(sparsity=[0.0, 0.8], grow=1.0)
    train.fit(net, objective, [batch] * 20, sgd(net), steps=20, gradient=rule)
    most = [0.8 * step / 20 for step in range(20)]
    assert all(pruned <= limit + 0.01 for pruned, limit in zip(seen[1::2], most, strict=True))
    assert max(seen) > 0.4


@pytest.mark.parametrize("t", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_a_range_that_grows_has_its_highest_sparsity_on_a_straight_line(t):
    """By hand: 10 to 50 %, all of it there after half of the training; at one draw u the share is 0.1 + 0.4 u min(1, 2 t)."""
    whole, grown = torch.randn(100, 100), torch.randn(100, 100)
    whole.copy_(grown)
    Pruned(0.1, 0.5)({"w": whole}, t=t, step=3)
    Pruned(0.1, 0.5, grow=0.5)({"w": grown}, t=t, step=3)
    u = (float((whole == 0).float().mean()) - 0.1) / 0.4
    assert float((grown == 0).float().mean()) == pytest.approx(0.1 + 0.4 * u * min(1, 2 * t), abs=1e-4)
    assert u > 0.1


def test_the_threshold_of_a_large_model_is_close_to_the_exact_one():
    big = {"a": torch.randn(1500, 1000), "b": 3 * torch.randn(1200, 1000)}
    Pruned(0.7, 0.7)(big, t=0.0, step=0)
    dead = sum(int((x == 0).sum()) for x in big.values())
    assert dead / 2.7e6 == pytest.approx(0.7, abs=2e-3)  # a sample of 900,000: a standard deviation of 0.0005


def test_the_quantized_point_has_its_grid_in_each_row_and_zeros_stay():
    before = torch.randn(20, 50)
    before[3], before[4, 7] = 0.0, 0.0  # a pruned neuron, a pruned weight
    moved = {"weight": before.clone()}
    Quantized(8)(moved, t=0.0, step=0)
    scale = before.abs().amax(1, keepdim=True) / 127
    assert not moved["weight"][3].any()
    assert moved["weight"][4, 7] == 0
    assert ((moved["weight"] - before).abs() <= scale / 2 * (1 + 1e-5)).all()
    alive = [i for i in range(20) if i != 3]
    levels = (moved["weight"] / scale)[alive]
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert (levels.abs().amax(1).round() == 127).all()


def test_the_parameters_that_stay_dense_are_named_by_their_beginning():
    net, batch = Encoder(), problem()[1]
    found = []

    def objective(model, batch):
        found.append({name for name, p in model.named_parameters() if not p.all()})
        return train.cross_entropy(model, batch)

    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.01 * torch.randn_like(p))  # no zeros but pruned ones
    train.fit(
        net, objective, [batch], sgd(net), steps=1, gradient=flat.cram(sparsity=[0.9, 0.9], dense=["head", "embed"])
    )
    assert found[1] == {f"blocks.{i}.1.weight" for i in range(3)}


class Routed(nn.Module):
    """One of two heads, by the batch."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        return getattr(self, x[1])(self.body(x[0]).relu())


def routed(heads: str, rule, stop: int | None = None):
    """Where head b is in each pass, as far from its start, and the weights at the end; resumed after ``stop``."""
    torch.manual_seed(0)
    net, (x, y) = Routed(), (torch.randn(8, 4), torch.randint(0, 2, (8,)))
    start, seen, sgd = (
        net.b.weight.detach().clone(),
        [],
        torch.optim.SGD(net.parameters(), lr=0.0 if stop is None else 0.1),
    )

    def objective(model, batch):
        seen.append(float((model.b.weight.detach() - start).norm()))
        return train.cross_entropy(model, batch)

    batches = [((x, head), y) for head in heads]
    for first, last, gradient in ((0, stop or len(heads), rule()), (stop or len(heads), len(heads), rule())):
        rest = {"steps": len(heads), "start": first, "gradient": gradient}
        for step in train.loop(net, objective, batches, sgd, **rest):
            if step.index + 1 == last:
                break
    return seen, train.snapshot(net)


def test_a_head_that_was_not_used_in_the_step_before_moves_when_it_is():
    seen, _ = routed("aabb", lambda: flat.sam(0.5))
    assert [round(x, 6) > 0 for x in seen] == [False] * 5 + [True, False, True]


def test_what_the_step_before_used_changes_nothing_so_resuming_is_exact():
    for rule in (lambda: flat.sam(0.5), lambda: flat.last_layers(0.5, count=1)):
        assert equal(routed("aaabbbaaa", rule, stop=9)[1], routed("aaabbbaaa", rule, stop=4)[1])


@pytest.mark.parametrize("name", RULES)
def test_a_frozen_layer_stays_frozen_and_where_it_is(name):
    net, (x, y) = problem()
    first = net[0].requires_grad_(False)
    was, seen = first.weight.clone(), []

    def closure():
        seen.append(torch.equal(first.weight, was))
        loss = train.cross_entropy(net, (x, y))
        loss.backward()
        return loss.detach()

    full = Counted(net, (x, y)).given(parts=True)
    for key in ("part", "pieces", "losses", "count", "model"):
        setattr(closure, key, getattr(full, key))
    sgd, rule = torch.optim.SGD(net.parameters(), lr=0.1), getattr(flat, name)()
    printed = repr(rule)
    for step in range(4):
        sgd.zero_grad()
        rule(closure, dict(net.named_parameters()), step / 4)
        sgd.step()
    assert all(seen)
    assert repr(rule) == printed  # what it was made of, not what it remembers
    assert ("0x" in printed) == (name == "plain")
    assert not first.weight.requires_grad
    assert torch.equal(first.weight, was)


def test_a_layer_that_is_let_go_while_training_gets_its_gradient_once():
    norms = []
    for rule in (flat.plain(), flat.sam(1e-6)):
        net, batch = problem()
        net[0].requires_grad_(False)
        for step in train.loop(
            net, train.cross_entropy, [batch] * 3, torch.optim.SGD(net.parameters(), lr=0.0), steps=3, gradient=rule
        ):
            if step.index == 0:
                net[0].requires_grad_(True)
        norms.append(net[0].weight.grad.norm())
    assert torch.isclose(*norms, rtol=1e-4)
