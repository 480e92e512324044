"""Barrier, features, ranks, CKA and scale-invariant sharpness against closed forms; curvature of compressed models."""

from __future__ import annotations

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainflat import compress, flat, train
from trainflat.compress import Mask
from trainflat.flat.geometry import Barrier
from trainflat.flat.metrics import adaptive, per_neuron
from trainflat.testing.problem import problem, untouched
from trainflat.train import NonFiniteLoss

# barrier


class Point(nn.Module):
    """One weight, in whose terms the loss is given."""

    def __init__(self, at: float = 7.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([at], dtype=torch.float64))


def between(one: float, other: float, loss, **options) -> Barrier:
    ends = ({"w": torch.tensor([at], dtype=torch.float64)} for at in (one, other))
    return flat.barrier(Point(), *ends, lambda model: loss(float(model.w.detach())), **options)


def test_the_barrier_of_a_quartic_is_its_hill_above_the_chord():
    """(w^2 - 1)^2 from -1 to 1: 1 in the middle. Tilted by w it is the same, since the chord tilts with it."""
    assert between(-1, 1, lambda w: (w * w - 1) ** 2) == (
        1.0,
        0.5,
        pytest.approx(tuple((w * w - 1) ** 2 for w in np.linspace(-1, 1, 11))),
    )
    tilted = between(-1, 1, lambda w: (w * w - 1) ** 2 + 3 * w)
    assert (tilted.height, tilted.a) == (pytest.approx(1), 0.5)
    assert tilted.losses[-1] - tilted.losses[0] == 6


def test_the_height_is_over_the_points_and_lies_where_it_is_said_to_be():
    """-w^2 from 0 to 1 rises by a - a^2 above its chord -a, at most 1/4; with three points 1/4 too, with four 2/9."""
    assert between(0, 1, lambda w: -w * w, points=3)[:2] == (0.25, 0.5)
    height, a, losses = between(0, 1, lambda w: -w * w, points=4)
    assert height == pytest.approx(2 / 9)
    assert a in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert len(losses) == 4


@pytest.mark.parametrize("loss", [lambda w: w * w, lambda w: 2.0, abs])
def test_in_a_convex_valley_there_is_no_barrier(loss):
    assert between(-1, 2, loss).height == 0.0


def test_two_equal_models_have_none_to_the_bit():
    model, (x, y) = problem()
    state = train.snapshot(model)
    loss = flat.Loss(model, train.cross_entropy, [(x, y)])
    height, _, losses = flat.barrier(model, state, state, lambda _: loss.value())
    assert height == 0.0
    assert set(losses) == {loss.value()}


def test_the_losses_are_those_of_models_mixed_by_hand_and_the_ends_are_exact():
    model, batch = problem(torch.float64)
    one, other = train.snapshot(model), {n: torch.randn_like(t) for n, t in model.state_dict().items()}
    evaluate = lambda m: train.cross_entropy(m, batch).item()
    found = flat.barrier(model, one, other, evaluate, points=6)
    by_hand = []
    for i in range(6):
        mixed = copy.deepcopy(model)
        train.restore(mixed, {n: (1 - i / 5) * one[n] + i / 5 * other[n] for n in one})
        by_hand.append(evaluate(mixed))
    assert found.losses == pytest.approx(by_hand, rel=1e-12)
    assert (found.losses[0], found.losses[-1]) == (by_hand[0], by_hand[-1])
    rises = [loss - (1 - i / 5) * by_hand[0] - i / 5 * by_hand[-1] for i, loss in enumerate(by_hand)]
    assert found.height == pytest.approx(max(rises), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_comes_back_bit_for_bit_in_its_own_mode_even_if_stopped(dtype):
    model, _ = problem(dtype, dropout=0.5)
    model[0].eval()
    other = {n: torch.randn_like(t) for n, t in model.state_dict().items()}
    one = {n: torch.randn_like(t) for n, t in other.items()}
    memory = [p.data_ptr() for p in model.parameters()]

    def stop(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        torch.rand(1)
        raise KeyboardInterrupt

    with untouched(model, "barrier"):
        flat.barrier(model, one, other, lambda m: float(m[0].weight.sum() * torch.rand(1)), points=3)
        with pytest.raises(KeyboardInterrupt):
            flat.barrier(model, one, other, stop)
    assert memory == [p.data_ptr() for p in model.parameters()]


def test_a_weight_that_is_pruned_in_both_stays_zero_on_the_whole_line():
    model, (x, y) = problem()
    mask = compress.prune(compress.magnitude(model), 0.5, within=Mask.dense(model, lambda n, p: p.ndim == 2))
    states = []
    with mask.on(model):
        for seed in (0, 1):
            torch.manual_seed(seed)
            adam = torch.optim.Adam(model.parameters(), lr=1e-2)
            train.fit(model, train.cross_entropy, iter([(x, y)] * 5), adam, steps=5)
            states.append(train.snapshot(model))
        params = dict(model.named_parameters())

        def evaluate(model):
            assert all((params[name][~alive] == 0).all() for name, alive in mask.items())
            return train.cross_entropy(model, (x, y)).item()

        found = flat.barrier(model, *states, evaluate)
    assert len(set(found.losses)) > 1


def test_buffers_stay_as_the_firsts_and_what_is_done_to_them_is_undone():
    """A batch norm's statistics: neither mixed nor moved on, unless the evaluation counts them again, point by point."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    x = torch.randn(16, 2)
    model(x)
    one = train.snapshot(model)
    other = {n: t + 1 for n, t in one.items()}
    model(x)
    seen = []

    def evaluate(model):
        seen.append([b.clone() for b in model.buffers()])
        model.train()
        return float(model(x).square().mean())

    with untouched(model, "barrier"):
        flat.barrier(model, one, other, evaluate, points=4)
    assert len(seen) == 4
    for buffers in seen:
        assert all(torch.equal(b, one[n]) for b, (n, _) in zip(buffers, model.named_buffers(), strict=True))


def test_what_cannot_lie_on_a_line_is_told():
    model, _ = problem()
    state = train.snapshot(model)
    with pytest.raises(ValueError, match="at least 3, got 2"):
        flat.barrier(model, state, state, lambda m: 0.0, points=2)
    less = {n: t for n, t in state.items() if n != "0.weight"}
    with pytest.raises(ValueError, match="'0.weight' of shape \\(16, 6\\) and 'other' has none"):
        flat.barrier(model, state, less, lambda m: 0.0)
    small = {**state, "0.bias": torch.ones(4)}
    with pytest.raises(ValueError, match="'one' has it of shape \\(4,\\)"):
        flat.barrier(model, small, state, lambda m: 0.0)
    with pytest.raises(NonFiniteLoss, match="not finite everywhere"):
        flat.barrier(model, state, state, lambda m: math.inf)


# features


class Tokens(nn.Module):
    """Embeds numbers, mixes none, and says what it saw: ``batch seq hidden`` inside, ``batch classes`` outside."""

    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.Embedding(10, 4), nn.Dropout(0.5)
        self.pair, self.unused, self.head = Pair(), nn.Identity(), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden, _ = self.pair(hidden=self.drop(self.embed(input_ids)))
        return self.head(input=hidden[:, 0])


class Pair(nn.Module):
    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return hidden, None


@pytest.fixture
def texts():
    """A model, batches of unequal length with padding, and each example's embeddings without padding."""
    model = Tokens()
    ids = [torch.randint(1, 10, (length,)) for length in (3, 5, 2, 4)]
    batches = []
    for pair in (ids[:2], ids[2:]):
        padded = nn.utils.rnn.pad_sequence(pair, batch_first=True)
        batches.append(({"input_ids": padded, "attention_mask": 2 * (padded > 0).long()}, torch.zeros(2)))
    return model, batches, [model.embed.weight[i].detach() for i in ids]


def test_features_are_the_mean_over_the_tokens_that_are_no_padding_or_the_first(texts):
    model, batches, by_hand = texts
    for layer in ("embed", "pair"):
        found = flat.features(model, batches, layer)
        torch.testing.assert_close(found, torch.stack([e.mean(0) for e in by_hand]))
    first = torch.stack([e[0] for e in by_hand])
    assert torch.equal(flat.features(model, batches, "pair", tokens="first"), first)
    assert torch.equal(flat.features(model, batches, "head", side="input"), first)
    torch.testing.assert_close(flat.features(model, batches, "head"), model.head(first).detach())
    assert torch.equal(flat.features(model, batches, ""), flat.features(model, batches, "head"))


def test_taking_features_leaves_no_trace_and_draws_no_dropout(texts):
    model, batches, _ = texts
    model.pair.eval()
    model(**batches[0][0]).sum().backward()
    with untouched(model, "features"):
        found = flat.features(model, batches, "drop")
    assert torch.equal(found, flat.features(model.eval(), batches, "embed"))
    assert not found.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_images_are_flattened_and_sequences_without_a_mask_are_averaged_whole():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(2), nn.Flatten(1), nn.Linear(12, 1))
    x = torch.randn(5, 1, 4, 4)
    images = flat.features(net, [(x, torch.zeros(5))], "0")
    assert torch.equal(images, net[0](x).detach().flatten(1))
    torch.testing.assert_close(flat.features(net, [(x, torch.zeros(5))], "1"), net[1](net[0](x)).detach().mean(1))


def test_wrong_layers_are_told(texts):
    model, batches, _ = texts
    with pytest.raises(LookupError, match="no layer 'heed'; did you mean 'head'"):
        flat.features(model, batches, "heed")
    with pytest.raises(ValueError, match="'unused' is no part of the forward pass"):
        flat.features(model, batches, "unused")
    with pytest.raises(ValueError, match="no batches were given"):
        flat.features(model, [], "embed")
    with pytest.raises(ValueError, match='"mean" or "first", got'):
        flat.features(model, batches, "embed", tokens="last")
    net = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 2)))
    with pytest.raises(ValueError, match="for a batch of 3 examples"):
        flat.features(net, [(torch.ones(3, 2), torch.zeros(3))], "0")
    narrow = ({"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.ones(2, 4)}, torch.zeros(2))
    with pytest.raises(ValueError, match='use tokens="first"'):
        flat.features(model, [narrow], "embed")
    assert not any(m._forward_hooks for m in model.modules())


# ranks


def spread(values: list[float], n: int = 40) -> Tensor:
    """Features whose centred singular values are these, in random directions, away from zero."""
    draw = torch.Generator().manual_seed(0)
    centred = torch.randn(n, len(values), generator=draw, dtype=torch.float64)
    left, _ = torch.linalg.qr(centred - centred.mean(0))
    right, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right + 5


@pytest.mark.parametrize(
    ("values", "tolerance", "rank"),
    [
        ([1.0] * 10, 0.01, 10),
        ([10.0, 0.9, 0.1], 0.01, 1),
        ([10.0, 1.1, 0.1], 0.01, 2),
        ([10.0, 1.1, 0.1], 0.5, 1),
        ([3.0, 0.0, 0.0], 0.01, 1),
        ([4.0, 3.0, 0.0], 0.3, 2),
        ([4.0, 3.0, 0.0], 0.4, 1),
    ],
)
def test_the_feature_rank_counts_the_components_that_hold_the_variance(values, tolerance, rank):
    """By their squares: 100 of 100.82 is more than 99 %, 100 of 101.22 is less."""
    x = spread(values)
    assert flat.feature_rank(x, tolerance) == rank
    assert flat.feature_rank(7 * x.flip(0), tolerance) == rank


def test_it_is_that_of_principal_components_elsewhere():
    from sklearn.decomposition import PCA

    x = torch.randn(60, 20) @ torch.diag(torch.logspace(0, -2, 20)) + 3
    for tolerance in (0.01, 0.05, 0.2):
        expected = PCA(n_components=1 - tolerance, svd_solver="full").fit(x.double().numpy()).n_components_
        assert flat.feature_rank(x, tolerance) == expected


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    assert flat.effective_rank(spread([2.0] * 6)) == pytest.approx(6)
    assert flat.effective_rank(spread([2.0, 0.0, 0.0])) == pytest.approx(1, abs=1e-6)
    p = np.array([4, 2, 1, 1]) / 8
    assert flat.effective_rank(spread([4.0, 2.0, 1.0, 1.0])) == pytest.approx(math.exp(-(p * np.log(p)).sum()))


def test_features_are_taken_inside_torchs_own_encoder_where_tokens_are_padding():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=12, batch_first=True, dropout=0.0)
    net, x = nn.TransformerEncoder(layer, num_layers=2), torch.randn(4, 7, 8)
    mask = torch.arange(7) < torch.tensor([7, 5, 3, 6])[:, None]

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, attention_mask):
            return self.net(x, src_key_padding_mask=~attention_mask)

    found = flat.features(Padded().eval(), [({"x": x, "attention_mask": mask}, torch.zeros(4))], "net.layers.1")
    plain = net.train()(x, src_key_padding_mask=~mask).detach() * mask[:, :, None]
    torch.testing.assert_close(found, plain.sum(1) / mask.sum(1, keepdim=True))


def test_an_axis_of_time_in_front_is_told():
    """torch's recurrent layers have it there by default: a row would be a moment, averaged over the examples."""
    net, labels = nn.LSTM(3, 5), torch.zeros(4)
    with pytest.raises(ValueError, match=r"begin with 7 and its labels with 4: .*batch_first=True"):
        flat.features(net, [(torch.randn(7, 4, 3), labels)], "")
    net.batch_first = True
    assert flat.features(net, [(torch.randn(4, 7, 3), labels)], "").shape == (4, 5)


def test_features_that_do_not_vary_have_rank_zero():
    for x in (torch.full((5, 3), 0.1), torch.randn(1, 3)):
        assert (flat.feature_rank(x), flat.effective_rank(x)) == (0, 0.0)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(0, 3), torch.full((2, 2), torch.nan)])
def test_what_is_no_matrix_of_features_is_told(x):
    for measure in (flat.feature_rank, flat.effective_rank, lambda x: flat.cka(x, x)):
        with pytest.raises(ValueError, match="a finite matrix"):
            measure(x)
    with pytest.raises(ValueError, match="must be in"):
        flat.feature_rank(torch.ones(2, 2), 0.0)


@pytest.mark.parametrize("x", [torch.ones(3, 2).numpy(), [[1.0, 2.0]], None])
def test_features_that_are_no_tensor_are_told(x):
    of_users = inspect.unwrap(flat.cka)  # the tests' own check of shapes would speak first
    for measure in (inspect.unwrap(flat.feature_rank), inspect.unwrap(flat.effective_rank), lambda x: of_users(x, x)):
        with pytest.raises(TypeError, match=r"features are a tensor, as torch.as_tensor makes of an array; got a "):
            measure(x)


# cka


def by_gram(x: Tensor, y: Tensor) -> float:
    """Kornblith et al. 2019 as it is written: HSIC with the centring matrix, K and L linear kernels."""
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    hsic = lambda k, l: torch.trace(k @ h @ l @ h) / (n - 1) ** 2  # noqa: E741
    k, other = x.double() @ x.double().T, y.double() @ y.double().T
    return float(hsic(k, other) / (hsic(k, k) * hsic(other, other)).sqrt())


@pytest.mark.parametrize("n", [4, 12, 200])
def test_both_ways_to_cka_equal_the_definition(n):
    x, y = torch.randn(n, 10) + 3, torch.randn(n, 6) - 1
    assert flat.cka(x, y) == pytest.approx(by_gram(x, y), rel=1e-9)
    assert flat.cka(x, y) == pytest.approx(flat.cka(y, x), rel=1e-12)


@pytest.mark.parametrize("n", [8, 100])
def test_cka_does_not_see_turns_scales_and_shifts_and_does_see_the_rest(n):
    x, y = torch.randn(n, 10, dtype=torch.float64), torch.randn(n, 10, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))
    found = flat.cka(x, y)
    assert 0 < found < 1
    assert flat.cka(x, 3 * x @ q - 2) == pytest.approx(1)
    assert flat.cka(-0.1 * x @ q + 5, y @ q.T) == pytest.approx(found)
    assert flat.cka(x @ torch.diag(torch.logspace(0, 2, 10).double()), y) != pytest.approx(found, rel=1e-3)


def test_cka_of_one_feature_each_is_the_squared_correlation_and_of_unrelated_ones_zero():
    x, y = torch.randn(50, 1), torch.randn(50, 1)
    assert flat.cka(x, y) == pytest.approx(np.corrcoef(x.flatten(), y.flatten())[0, 1] ** 2, rel=1e-5)
    square = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert flat.cka(square[:, :1], square[:, 1:]) == 0
    assert math.isnan(flat.cka(square, torch.ones(4, 3)))
    with pytest.raises(ValueError, match="of 4 and 3 examples"):
        flat.cka(square, torch.ones(3, 3))


# scale-invariant sharpness


def rescaled(net: nn.Sequential, by: float) -> nn.Sequential:
    """The same function: a layer times ``by`` and its successor divided by it, with nothing but a ReLU between."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p in other[0].parameters():
            p.mul_(by)
        other[2].weight.div_(by)
    return other


def two_layers() -> tuple[nn.Sequential, list]:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    return net, [(torch.randn(32, 6, dtype=torch.float64), torch.randint(0, 3, (32,)))]


@pytest.mark.parametrize("by", [0.01, 3.0, 1000.0])
def test_the_adaptive_ascent_is_the_same_after_rescaling_a_layer_and_its_successor(by):
    net, batches = two_layers()
    losses = [flat.Loss(model, train.cross_entropy, batches) for model in (net, rescaled(net, by))]
    assert losses[0].value() == pytest.approx(losses[1].value(), rel=1e-12)
    found = [flat.ascent_sharpness(loss, rho=0.5, metric=adaptive(0.0)) for loss in losses]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0] > 0
    plain = [flat.ascent_sharpness(loss, rho=0.05) for loss in losses]
    assert plain[0] != pytest.approx(plain[1], rel=1e-2)


@pytest.mark.parametrize(
    ("metric", "rule"),
    [(adaptive(0.0), flat.asam(rho=0.3, eta=0.0)), (adaptive(0.01), flat.asam(rho=0.3)), (None, flat.sam(rho=0.3))],
)
def test_the_ascent_in_a_metric_is_the_rules_own_step(metric, rule):
    net, [batch] = two_layers()
    seen = []

    def closure():
        value = train.cross_entropy(net, batch)
        value.backward()
        seen.append(value.item())
        return value.detach()

    rule(closure, dict(net.named_parameters()), 0.0)
    loss = flat.Loss(net, train.cross_entropy, [batch])
    options = {} if metric is None else {"metric": metric}
    assert flat.ascent_sharpness(loss, rho=0.3, **options) == pytest.approx(seen[1] - seen[0], rel=1e-9)
    assert flat.ascent_sharpness(loss, rho=0.0, **options) == 0


def test_any_metric_leaves_the_model_and_the_frozen_coordinates_alone():
    net, [batch] = two_layers()
    mask, moved = Mask({"0.weight": torch.rand(16, 6) < 0.5}), []

    def watched(model, batch):
        moved.append(bool((model[0].weight[~mask["0.weight"]] != start[~mask["0.weight"]]).any()))
        return train.cross_entropy(model, batch)

    start = net[0].weight.detach().clone()
    with untouched(net, "ascent"):
        for metric in (adaptive(0.0), adaptive(0.1), per_neuron(0.5, 0.1)):
            flat.ascent_sharpness(flat.Loss(net, watched, [batch], mask=mask), metric=metric)
    assert not any(moved)


# curvature of compressed models


def dense_hessian(model: nn.Module, batch) -> Tensor:
    """By torch, of all trainable parameters in their order."""
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def f(vector: Tensor) -> Tensor:
        parts = zip(names, vector.split(sizes), model.parameters(), strict=True)
        params = {name: part.view(p.shape) for name, part, p in parts}
        return nn.functional.cross_entropy(torch.func.functional_call(model.eval(), params, batch[0]), batch[1])

    return torch.autograd.functional.hessian(f, torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


@pytest.fixture
def masked():
    model, batch = problem(torch.float64)
    mask = compress.prune(compress.magnitude(model), 0.7, within=Mask.dense(model, lambda n, p: p.ndim == 2))
    mask.apply_to(model)
    return model, batch, mask


def test_under_a_mask_all_measures_are_those_between_live_coordinates(masked):
    """The same whether the mask is given or is on the model: its hooks alone would zero rows and not columns."""
    model, batch, mask = masked
    given = flat.Loss(model, train.cross_entropy, [batch], mask=mask)
    within = dense_hessian(model, batch)[given.alive][:, given.alive]
    measures = {
        "eigenvalue": lambda loss: flat.top_eigenvalue(loss, tolerance=1e-6, max_iterations=100),
        "trace": lambda loss: flat.trace(loss, probes=20),
        "ascent": flat.ascent_sharpness,
        "box": lambda loss: flat.sharpness(loss, eps=[1e-2], directions=5),
    }
    expected = {name: measure(given) for name, measure in measures.items()}
    assert expected["eigenvalue"].value == pytest.approx(torch.linalg.eigvalsh(within)[-1].item(), rel=1e-8)
    assert abs(expected["trace"].value - within.trace().item()) < 4 * expected["trace"].error
    with untouched(model, "under a mask"), mask.on(model):
        loss = flat.Loss(model, train.cross_entropy, [batch])
        assert torch.equal(loss.alive, given.alive)
        assert {name: measure(loss) for name, measure in measures.items()} == expected
    free = flat.Loss(model, train.cross_entropy, [batch])
    assert free.alive is None
    assert flat.top_eigenvalue(free).value != pytest.approx(expected["eigenvalue"].value, rel=1e-3)


def test_a_mask_without_a_zero_freezes_nothing(masked):
    model, batch, _ = masked
    with Mask.dense(model, lambda n, p: p.ndim == 2).on(model):
        assert flat.Loss(model, train.cross_entropy, [batch]).alive is None


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_the_hessian_of_a_dequantized_model_is_the_dense_one_at_the_points_of_the_grid(granularity):
    graph = pytest.importorskip("trainflat.export.graph")
    model, (x, y) = problem()
    floats = graph.in_floats(compress.dynamic_int8(model, granularity=granularity))
    assert not torch.equal(floats[0].weight, model[0].weight)
    assert all(p.requires_grad for p in floats.parameters())
    floats, batch = floats.double(), (x.double(), y)
    loss, dense = flat.Loss(floats, train.cross_entropy, [batch]), dense_hessian(floats, batch)
    assert loss.size == sum(p.numel() for p in model.parameters())
    with untouched(floats, "curvature on a grid"):
        value, residual, _ = flat.top_eigenvalue(loss, tolerance=1e-6, max_iterations=100)
        found = flat.trace(loss, probes=100)
    assert value == pytest.approx(torch.linalg.eigvalsh(dense)[-1].item(), rel=1e-8)
    assert residual < 1e-5
    assert abs(found.value - dense.trace().item()) < 4 * found.error


def test_a_pruned_and_quantized_model_keeps_its_zeros_and_is_measured_inside_its_mask():
    graph = pytest.importorskip("trainflat.export.graph")
    model, (x, y) = problem()
    mask = compress.prune(compress.magnitude(model), 0.5, within=Mask.dense(model, lambda n, p: p.ndim == 2))
    mask.apply_to(model)
    floats = graph.in_floats(compress.dynamic_int8(model)).double()
    assert all((dict(floats.named_parameters())[name][~alive] == 0).all() for name, alive in mask.items())
    loss = flat.Loss(floats, train.cross_entropy, [(x.double(), y)], mask=mask)
    within = dense_hessian(floats, (x.double(), y))[loss.alive][:, loss.alive]
    found = flat.top_eigenvalue(loss, tolerance=1e-6, max_iterations=100)
    assert found.value == pytest.approx(torch.linalg.eigvalsh(within)[-1].item(), rel=1e-8)
    assert flat.spectrum(loss, iterations=40).values[-1] == pytest.approx(found.value, rel=1e-8)
