"""Rules that tell examples apart: against loops over single examples in float64, closed forms, and the privacy's formula."""

from __future__ import annotations

from copy import deepcopy
from itertools import repeat

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainflat import compress, flat, testing, train
from trainflat.flat.ascent import Drawn, Momentum
from trainflat.flat.draws import fill_with_noise
from trainflat.flat.examples import Private, Sharpest
from trainflat.flat.metrics import adaptive
from trainflat.flat.when import Every
from trainflat.testing.problem import equal, problem
from trainflat.train.closure import Backward
from trainflat.train.seeds import derive

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # sums of roundings of 1e-16 in another order


def still(net):
    return torch.optim.SGD(net.parameters(), lr=0.0)


def step(rule, net, *batches, objective=train.cross_entropy):
    (done,) = train.fit(net, objective, batches, still(net), steps=1, accumulate=len(batches), gradient=rule)
    return done


def gradients(net, *batches, objective=train.cross_entropy):
    """The gradient of each example by itself, one after the other."""
    params = list(net.parameters())
    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(y))]
    return [torch.autograd.grad(objective(net, one), params) for one in singles]


def flattened(tensors):
    return torch.cat([x.flatten() for x in tensors])


def moved(net, ascent, length):
    """The net with its weights ``length`` further along the ascent."""
    there = deepcopy(net)
    with torch.no_grad():
        for p, e in zip(there.parameters(), ascent, strict=True):
            p += length * e / flattened(ascent).norm()
    return there


def agrees(net, expected):
    for p, g in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, **CLOSE)


def mean(lists, weights=None):
    weights = [1.0] * len(lists) if weights is None else weights
    return [sum(w * x for w, x in zip(weights, xs, strict=True)) / len(lists) for xs in zip(*lists, strict=True)]


def closure_over(net, batch, beside=()):
    return Backward(net, train.cross_entropy, [batch], "fp32", list(beside))


@pytest.mark.parametrize("rule", [flat.esam(), flat.delta_sam(), flat.dp_sat()])
def test_an_objective_that_gives_one_number_is_refused_with_the_way_out(rule):
    net, batch = problem()
    with pytest.raises(
        TypeError, match=r"loss of each of the (32|1) examples.*train\.cross_entropy.*or take sam or m_sam"
    ):
        step(rule, net, batch, objective=lambda model, batch: model(batch[0]).square().mean())


# esam


@pytest.mark.parametrize("cuts", [[32], [8, 8, 8, 8]])
@pytest.mark.parametrize(("share", "kept"), [(0.25, 8), (0.5, 16), (0.001, 1)])
def test_esam_equals_the_loop_over_single_examples(cuts, share, kept):
    net, (x, y) = problem(torch.float64)
    done = step(flat.esam(0.5, share=share, p=1.0), net, *zip(x.split(cuts), y.split(cuts), strict=True))
    there = moved(net, mean(gradients(net, (x, y))), 0.5)
    before, after = (nn.functional.cross_entropy(each(x), y, reduction="none") for each in (net, there))
    worst = sorted(range(32), key=lambda i: float((before - after)[i].detach()))[:kept]
    single = gradients(there, (x, y))
    agrees(net, mean([single[i] for i in worst]))
    assert done.loss == pytest.approx(float(before.mean().detach()))
    assert done.passes == pytest.approx(1 + 1 / 3 + kept / 32)


def test_esam_moves_the_drawn_parameters_alone_and_further():
    """|e| = rho / p over those that are drawn; the first pass finds no other gradient, the last one all."""
    net, batch = problem(torch.float64)
    here, visited = train.snapshot(net), []

    def objective(model, batch):
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        visited.append(({name: x - here[name] for name, x in train.snapshot(model).items()}, trained))
        return train.cross_entropy(model, batch)

    steps = train.fit(net, objective, repeat(batch), still(net), steps=3, gradient=flat.esam(0.6, share=0.5, p=0.5))
    for number in range(3):
        drawn = set(Drawn(0.5).among(dict(net.named_parameters()), number))
        (_, trained), (there, _), (last, needed) = visited[3 * number : 3 * number + 3]
        assert trained == drawn
        assert {name for name, e in there.items() if e.any()} == drawn == {name for name, e in last.items() if e.any()}
        assert needed == here.keys()
        assert float(flattened(there.values()).norm()) == pytest.approx(1.2, rel=1e-9)
    assert len({frozenset(Drawn(0.5).among(dict(net.named_parameters()), number)) for number in range(9)}) > 3
    assert [done.passes for done in steps] == [pytest.approx(11 / 6)] * 3


@pytest.mark.parametrize("p", [0.05, 0.6])
def test_parameters_are_drawn_as_often_as_asked_and_at_least_one(p):
    params = {f"layer.{i}": nn.Parameter(torch.zeros(1)) for i in range(40)}
    counts = [len(Drawn(p, seed=7).among(params, step)) for step in range(200)]
    assert min(counts) >= 1
    assert sum(counts) / 8000 == pytest.approx(p, abs=4 * (p * (1 - p) / 8000) ** 0.5)  # four standard errors
    one = {"only": params["layer.0"]}
    assert all(Drawn(p).among(one, step) for step in range(20))


def test_esam_compares_losses_under_one_dropout_and_keeps_the_stream():
    """Else with a tiny radius the rise would be that of another dropout, and the choice an accident."""
    masks = []

    class Dropout(nn.Dropout):
        def forward(self, x):
            masks.append(super().forward(torch.ones_like(x)))
            return x * masks[-1]

    net = nn.Sequential(nn.Linear(6, 16), Dropout(0.5), nn.Linear(16, 3))
    _, batch = problem()
    torch.manual_seed(3)
    step(flat.esam(0.1), net, batch)
    first, again, chosen = masks
    assert torch.equal(first, again)
    assert len(chosen) == 16
    after = torch.get_rng_state()
    torch.manual_seed(3)
    nn.functional.dropout(torch.ones(32, 16))
    nn.functional.dropout(torch.ones(16, 16))
    assert torch.equal(torch.get_rng_state(), after)


# delta_sam


class Noting(Backward):
    """Writes down which weights it is given."""

    def __init__(self, *args):
        super().__init__(*args)
        self.given = []

    def losses(self, weights=None):
        self.given.append(weights)
        return super().losses(weights)


def test_with_weights_alike_delta_sam_is_sam_also_with_dropout():
    """Its three forward passes draw nothing, so that the passes that count have sam's dropout; to rounding, since it adds
    the examples up one by one."""
    found, streams = [], []
    for rule in (flat.delta_sam(0.3, power=0.0), flat.sam(0.3)):
        net, (x, y) = problem(torch.float64, dropout=0.5)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        train.fit(
            net, train.cross_entropy, [(x[i : i + 12], y[i : i + 12]) for i in range(6)], sgd, steps=6, gradient=rule
        )
        found.append(flattened(net.parameters()))
        streams.append(torch.get_rng_state())
    torch.testing.assert_close(*found, **CLOSE)
    assert torch.equal(*streams)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_delta_sams_weights_are_the_curvatures(power):
    """(w x_i)^2 has the curvature 2 x_i^2 at every w, and one dimension only, so that z is of no account."""
    model, x = nn.Linear(1, 1, bias=False).double(), torch.tensor([[1.0], [-3.0], [0.5], [0.0]], dtype=torch.float64)
    closure = Noting(model, train.mean_squared_error, [(x, torch.zeros(4))], "fp32", [])
    flat.delta_sam(0.3, power=power, sigma=0.1)(closure, dict(model.named_parameters()), 0.0)
    curvature = (x[:, 0] ** 2) ** power
    assert [weights is None for weights in closure.given] == [True, True, True, False]
    torch.testing.assert_close(closure.given[3], curvature / curvature.mean(), rtol=1e-9, atol=1e-9)


def test_delta_sam_equals_the_loop_over_single_examples():
    net, (x, y) = problem(torch.float64)
    done = step(flat.delta_sam(0.5, power=1.0, sigma=0.05, seed=4), net, (x, y))
    z = {name: torch.empty_like(p.data) for name, p in net.named_parameters()}
    fill_with_noise(z, derive("flat curvature", 4, 0))
    up, here, down = deepcopy(net), net, deepcopy(net)
    with torch.no_grad():
        for sign, twin in ((1, up), (-1, down)):
            [p.add_(z[name], alpha=sign * 0.05) for name, p in twin.named_parameters()]
    a, b, c = (nn.functional.cross_entropy(each(x), y, reduction="none") for each in (up, here, down))
    weights = (a - 2 * b + c).abs()
    assert weights.max() > 2 * weights.mean()  # they differ
    there = moved(net, mean(gradients(net, (x, y)), weights.tolist()), 0.5)
    agrees(net, mean(gradients(there, (x, y))))
    assert done.loss == pytest.approx(float(b.mean().detach()))
    assert done.passes == pytest.approx(3)


def test_losses_without_curvature_weigh_alike():
    net, batch = problem()
    closure = Noting(net, lambda model, batch: 0.0 * train.cross_entropy(model, batch), [batch], "fp32", [])
    flat.delta_sam()(closure, dict(net.named_parameters()), 0.0)
    assert torch.equal(closure.given[3], torch.ones(32))


# dp_sat


@pytest.mark.parametrize("cuts", [[32], [8, 8, 8, 8], [20, 12]])
@pytest.mark.parametrize("clip", [0.5, 1.0, 1e9])
def test_without_noise_dp_sat_equals_clipping_in_a_loop(cuts, clip):
    net, (x, y) = problem(torch.float64)
    rule = flat.dp_sat(0.3, clip=clip, noise=0.0)
    batches = list(zip(x.split(cuts), y.split(cuts), strict=True))
    size = [32 / len(cuts) / cut for cut in cuts for _ in range(cut)]  # with micro-batches of unequal size
    done, ascent = step(rule, net, *batches), None
    for _ in range(2):  # the first step at the weights, the second along its gradient
        there = net if ascent is None else moved(net, ascent, 0.3)
        single = [[s * g for g in each] for s, each in zip(size, gradients(there, (x, y)), strict=True)]
        lengths = [float(flattened(each).norm()) for each in single]
        ascent = mean(single, [min(1.0, clip / length) for length in lengths])
        agrees(net, ascent)
        net.zero_grad()
        assert done.passes == 1
        done = step(rule, net, *batches)
    assert (sum(length > clip for length in lengths) > 0) == (clip < 1e9)


def test_cut_at_nothing_dp_sat_is_stale_sam_to_rounding():
    found = []
    for rule in (flat.dp_sat(0.3, clip=1e9, noise=0.0), flat.stale_sam(0.3)):
        net, (x, y) = problem(torch.float64)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        train.fit(
            net, train.cross_entropy, [(x[i : i + 12], y[i : i + 12]) for i in range(4)], sgd, steps=4, gradient=rule
        )
        found.append(flattened(net.parameters()))
    torch.testing.assert_close(*found, **CLOSE)


def test_the_noise_has_the_standard_deviation_of_the_formula():
    clip, noise, size = 0.5, 2.0, 8
    net, batch = nn.Linear(100, 100, bias=False).double(), (torch.randn(8, 100).double(), torch.randint(0, 100, (8,)))
    found = []
    for each in (0.0, noise):
        net.zero_grad()
        step(flat.dp_sat(0.0, clip=clip, noise=each, seed=1), net, batch)
        found.append(net.weight.grad.clone())
    added = found[1] - found[0]
    expected = noise * clip / size
    assert float(added.std()) == pytest.approx(expected, rel=4 / (2 * 10_000) ** 0.5)  # four standard errors
    assert abs(float(added.mean())) < 4 * expected / 100
    assert abs(float((added[:50] * added[50:]).mean())) < 4 * expected**2 / 5000**0.5  # independent


def test_the_noise_is_another_in_every_step_and_the_same_for_the_same_seed():
    found = []
    for rule in (flat.dp_sat(0.0, seed=1), flat.dp_sat(0.0, seed=1), flat.dp_sat(0.0, seed=2)):
        net, batch = problem()
        for _ in range(2):
            net.zero_grad()
            step(rule, net, batch)
            found.append(flattened(p.grad for p in net.parameters()))
    a, b, again, b_again, other, _ = found
    assert torch.equal(a, again)
    assert torch.equal(b, b_again)
    assert not torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(a, other, atol=1e-4)


def test_another_example_changes_the_gradient_by_at_most_twice_the_clip_over_the_batch():
    """The sensitivity, on which the privacy rests; without clipping the same example changes it by far more."""
    changes = {}
    for clip in (0.1, 1e9):
        found = []
        for factor in (1.0, 100.0):
            net, (x, y) = problem(torch.float64)
            x = x.clone()
            x[5] *= -factor
            step(flat.dp_sat(0.0, clip=clip, noise=1.0 if clip < 1 else 0.0), net, (x, y))
            found.append(flattened(p.grad for p in net.parameters()))
        changes[clip] = float((found[0] - found[1]).norm())
    assert changes[0.1] <= 2 * 0.1 / 32 + 1e-12
    assert changes[1e9] > 2 * 0.1 / 32


def test_a_batch_norm_that_learns_its_statistics_is_not_private():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    batch = torch.randn(6, 1, 4, 4), torch.randint(0, 3, (6,))
    before = train.snapshot(net)
    with pytest.raises(ValueError, match="running statistics of a batch norm .* nn.GroupNorm"):
        step(flat.dp_sat(), net, batch)
    assert equal(before, train.snapshot(net))
    net[1] = nn.GroupNorm(1, 2)
    step(flat.dp_sat(), net, batch)


def test_without_radius_dp_sat_is_private_all_the_same():
    net, batch = problem()
    step(flat.dp_sat(rho=0.0), net, batch)
    private = flattened(p.grad for p in net.parameters())
    net.zero_grad()
    step(None, net, batch)
    assert not torch.allclose(private, flattened(p.grad for p in net.parameters()), atol=1e-3)


def test_what_would_not_be_private_is_refused():
    net, batch = problem()
    params = dict(net.named_parameters())
    with pytest.raises(ValueError, match="trained beside the model's own parameters would not be private"):
        flat.dp_sat()(closure_over(net, batch, beside=[nn.Parameter(torch.ones(1))]), params, 0.0)
    closure = closure_over(net, batch)
    closure.model = DistributedDataParallel.__new__(DistributedDataParallel)
    with pytest.raises(ValueError, match="under DDP single gradients would be averaged before they are clipped"):
        flat.dp_sat()(closure, params, 0.0)


def test_a_pruned_weight_gets_no_noise():
    net, batch = problem()
    mask = compress.Mask({name: torch.rand_like(p) < 0.5 for name, p in net.named_parameters() if p.ndim == 2})
    with mask.on(net):
        step(flat.dp_sat(noise=10.0), net, batch)
        for name, alive in mask.items():
            gradient = net.get_parameter(name).grad
            assert not gradient[~alive].any()
            assert gradient[alive].all()


def test_the_choices_compose_with_others():
    """Esam every second step in an adaptive ball, and private momentum: no name needed."""

    def now_and_then(rho=0.5):
        return flat.compose(rho, metric=adaptive(0.01), examples=Sharpest(0.5), when=Every(2))

    def private_momentum():
        return flat.compose(0.5, direction=Momentum(0.9, 1), examples=Private(1.0, 1.0))

    testing.check_gradient(now_and_then, parts=True)
    testing.check_gradient(private_momentum, parts=True)
