"""The radius that nobody has to find: how far it goes, what it costs, what it obeys and what it says."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from trainflat import flat, testing, train
from trainflat.experiments.resolve import Spec, build
from trainflat.flat.ascent import Part
from trainflat.flat.auto import HIGHEST, SAMPLE, Auto
from trainflat.flat.metrics import adaptive
from trainflat.testing.problem import problem

AUTO = {
    "sam": flat.sam,
    "asam": flat.asam,
    "interval": partial(flat.interval, k=2),
    "late": partial(flat.late, t0=0.5),
    "adaptive_sam": flat.adaptive_sam,
    "stochastic": flat.stochastic,
    "looksam": partial(flat.looksam, k=2),
    "gsam": flat.gsam,
    "friendly_sam": flat.friendly_sam,
    "bilateral_sam": flat.bilateral_sam,
    "adasap": flat.adasap,
    "momentum_sam": flat.momentum_sam,
    "stale_sam": flat.stale_sam,
}
WITH_PARTS = {
    "quarter_batch": flat.quarter_batch,
    "sam_on": flat.sam_on,
    "last_layers": partial(flat.last_layers, count=1),
    "cram": flat.cram,
    "stale_cram": partial(flat.stale_cram, every=1),
    "saq": flat.saq,
    "saq_latent": partial(flat.saq, perturb="latent"),
    "m_sam": flat.m_sam,
    "esam": flat.esam,
    "delta_sam": flat.delta_sam,
}


def walk(rule, loss, at, *, lr, steps=60):
    """Gradient descent by the rule; returns the points that were passed."""
    w = nn.Parameter(torch.tensor(at, dtype=torch.float64))
    seen = []

    def closure():
        w.grad = None
        seen.append(w.detach().clone())
        value = loss(w)
        value.backward()
        return value.detach()

    for _ in range(steps):
        rule(closure, {"w": w}, 0.0)
        w.data = w.data - lr * w.grad
    return seen


def trained(gradient, *, steps=12, scale=1.0, net=None, lr=0.01):
    net, batch = problem(torch.float64) if net is None else net
    adam = torch.optim.Adam(net.parameters(), lr=lr, eps=0.0)
    objective = lambda model, given: scale * train.cross_entropy(model, given)
    return train.fit(net, objective, [batch] * steps, adam, steps=steps, gradient=gradient)


# how far


@pytest.mark.parametrize("steps", [0.1, 0.3, 2.0])
def test_the_ascent_is_a_share_of_the_optimizers_step(steps):
    """On a slope of length 5 every step is 5 lr long."""
    rule = flat.compose(Auto(steps))
    seen = walk(rule, lambda w: 3 * w[0] + 4 * w[1], [100.0, 98.0], lr=0.01)
    assert rule.rho == pytest.approx(steps * 0.05, rel=1e-6)
    assert float((seen[-1] - seen[-2]).norm()) == pytest.approx(rule.rho, rel=1e-6)


def test_it_is_the_running_average_of_what_the_weights_moved_by():
    rule, known, rng = flat.sam("auto"), None, torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.full((50,), 100.0, dtype=torch.float64))
    last = w.detach().clone()

    def closure():
        w.grad = torch.ones_like(w)
        return w.detach().sum()

    for step in range(20):
        rule(closure, {"w": w}, 0.0)
        if step:
            length = float((w.detach() - last).norm())
            known = length if known is None else 0.9 * known + 0.1 * length
            assert rule.rho == pytest.approx(0.3 * known, rel=1e-6)
        last = w.detach().clone()
        w.data = w.data + torch.rand(50, generator=rng)


def on_a_part(rho):
    return flat.compose(rho, direction=Part(0.5), metric=adaptive(0.01))


@pytest.mark.parametrize(
    "make", [flat.asam, flat.adasap, flat.cram, flat.quarter_batch, flat.momentum_sam, flat.stale_sam, on_a_part]
)
def test_in_every_metric_and_direction_the_length_is_euclidean(make, monkeypatch):
    net, batch = problem(torch.float64)
    rule, moved = make("auto"), []
    rule.point = None  # pruning would move the weights again
    before = rule._pass_at

    def watched(closure, params, there, *rest):
        moved.append(_distance(params, there))
        return before(closure, params, there, *rest)

    monkeypatch.setattr(rule, "_pass_at", watched)
    trained(rule, steps=6, net=(net, batch))
    assert len(moved) == 5
    assert moved[-1] == pytest.approx(rule.rho, rel=1e-6)


def _distance(params, there):
    return math.sqrt(sum(float((params[name].detach() - x).square().sum()) for name, x in there.items()))


def test_a_sample_of_a_large_model_says_as_much():
    rng = torch.Generator().manual_seed(0)
    shapes = {"embedding": (3000, 300), "matrix": (700, 600), "bias": (7,)}
    params = {name: nn.Parameter(torch.randn(shape, generator=rng)) for name, shape in shapes.items()}
    radius, length = Auto(), 0.0
    radius.see(params)
    for p in params.values():
        step = torch.rand(p.shape, generator=rng) * 1e-3
        length += float(step.double().square().sum())
        p.data = p.data + step
    radius.see(params)
    assert len(radius.memory["weights"]) <= SAMPLE
    assert radius.memory["update"] == pytest.approx(math.sqrt(length), rel=0.01)


def test_it_never_goes_further_than_a_hundredth_of_the_weights():
    rule = flat.sam("auto")
    walk(rule, lambda w: w.sum(), [3.0, 4.0], lr=1.0, steps=3)
    assert rule.share == pytest.approx(HIGHEST, rel=1e-9)


@pytest.mark.parametrize("scale", [2.0**-20, 3.0, 1e4])
def test_the_unit_of_the_loss_is_of_no_account_under_adam(scale):
    rules = flat.sam("auto"), flat.sam("auto")
    trained(rules[0])
    trained(rules[1], scale=scale)
    assert rules[1].rho == pytest.approx(rules[0].rho, rel=1e-6)


def test_it_follows_the_schedule_of_the_learning_rate():
    rule, radii = flat.sam("auto"), []
    net, batch = problem()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    lr = train.linear(1.0, 0.0)
    for _ in train.loop(net, train.cross_entropy, [batch] * 100, adam, steps=100, gradient=rule, lr=lr):
        radii.append(rule.rho)
    assert radii[-1] < 0.2 * max(radii[10:30])


# what it costs and obeys


def test_the_first_step_is_plain_and_no_other_takes_an_extra_pass():
    assert [step.passes for step in trained(flat.sam("auto"), steps=4)] == [1, 2, 2, 2]
    assert [step.passes for step in trained(flat.interval("auto", k=3), steps=7)] == [1, 1, 1, 2, 1, 1, 2]
    assert [step.passes for step in trained(flat.stale_sam("auto"), steps=4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", [*AUTO, *WITH_PARTS])
def test_every_rule_with_this_radius_obeys_the_laws(name):
    rule = (AUTO | WITH_PARTS)[name]
    testing.check_gradient(partial(rule, rho="auto"), parts=name in WITH_PARTS, large_batch=name != "m_sam")


def test_dp_sat_with_this_radius_obeys_the_laws():
    testing.check_gradient(lambda: flat.dp_sat(rho="auto"), parts=True)  # not partial: without a radius it is not plain


def test_a_resumed_radius_is_the_same_number():
    one, other = flat.sam("auto"), flat.sam("auto")
    net = problem(torch.float64)
    trained(one, steps=13, net=net)
    other.load_state_dict(one.state_dict())
    assert (other.rho, other.share) == (one.rho, one.share)
    ends = []
    for rule in (one, other):
        trained(rule, steps=3, net=deepcopy(net))
        ends.append(rule.state_dict()["radius"])
    assert torch.equal(ends[0].pop("weights"), ends[1].pop("weights"))
    assert ends[0] == ends[1]


# what it says


def test_it_says_what_it_does():
    rule = flat.sam("auto")
    assert (rule.rho, rule.rise, rule.share) == (None, None, None)
    assert rule.radius.says == "the radius is not known before the first ascent"
    trained(rule)
    assert "the ascent of 0.3 steps of the optimizer, " in rule.radius.says
    assert " of the weights' norm, raises the loss by " in rule.radius.says
    stale = flat.stale_sam("auto")
    trained(stale)
    assert stale.radius.says.endswith(" of the weights' norm")
    plain = flat.sam(0.1)
    assert (plain.rho, plain.rise, plain.share) == (0.1, None, None)


@pytest.mark.parametrize(
    ("rule", "rise"),
    [
        (flat.sam(0.5), 3.5**2 / 9 - 1),
        (flat.gsam(0.5), 3.5**2 / 9 - 1),
        (flat.interval(0.5, k=2), 3.5**2 / 9 - 1),  # of the step before, the last that left the weights
        (flat.stale_sam(0.5), None),  # no pass at the weights
    ],
)
def test_with_a_given_radius_the_rise_is_known_too(rule, rise):
    walk(rule, lambda w: w.square().sum(), [3.0], lr=0.0, steps=2)
    assert rule.rise == (rise if rise is None else pytest.approx(rise))


def test_a_part_that_moves_further_stays_within_the_largest_radius_and_says_how_far():
    net, batch = problem(torch.float64)
    rule, moved = flat.esam("auto", p=0.5), []
    rule.radius.steps = 1e6  # so that only the cap holds it
    before = rule._pass_at
    rule._pass_at = lambda c, p, there, *rest: moved.append(_distance(p, there)) or before(c, p, there, *rest)
    train.fit(net, train.cross_entropy, [batch] * 4, torch.optim.SGD(net.parameters(), lr=0.1), steps=4, gradient=rule)
    assert rule.share == HIGHEST
    assert moved[-1] == pytest.approx(rule.rho, rel=1e-6)


def test_the_rise_of_a_rule_that_weighs_examples_is_that_of_the_batch():
    net, batch = problem(torch.float64)
    rule, losses = flat.delta_sam(0.1), []
    before = rule._pass_at
    rule._pass_at = lambda c, p, there, *rest: losses.append(before(c, p, there, *rest)) or losses[-1]
    first = float(train.cross_entropy(net, batch).detach())
    trained(rule, steps=1, net=(net, batch))
    assert rule.rise == pytest.approx(float(losses[0]) / first - 1, rel=1e-9)


def test_the_rise_of_a_compressed_point_is_the_ascents_own():
    """CrAM's last pass is at pruned weights, where the loss says nothing of the radius: e . g / L counts."""
    net, batch = problem(torch.float64)
    rule = flat.cram(0.1)
    loss = train.cross_entropy(net, batch)
    length = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]).norm()
    trained(rule, steps=1, net=(net, batch))
    assert rule.rise == pytest.approx(float(0.1 * length / loss.detach()), rel=1e-9)


def test_a_rule_that_changes_nothing_says_so_once():
    rule = flat.sam("auto")
    loss = lambda w: 1e9 + w.sum()
    with pytest.warns(RuntimeWarning, match="the ascent changes nothing: .* this rule trains as plain does") as told:
        walk(rule, loss, [1.0, 1.0], lr=1e-3, steps=60)
    assert len(told) == 1
    assert rule.radius.idle


@pytest.mark.parametrize("pieces", [2, 3, 4, 5, 30, 31])
def test_it_is_said_whatever_the_number_of_ascents_in_a_step(pieces):
    net, (x, y) = problem()
    examples = x[:1].expand(62, -1), y[:1].expand(62)
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3)
    loss = lambda model, batch: train.cross_entropy(model, batch) + 1e9
    with pytest.warns(RuntimeWarning, match="the ascent changes nothing") as told:
        train.fit(net, loss, [examples] * 70, sgd, steps=70, gradient=flat.m_sam("auto", pieces=pieces))
    assert len(told) == 1


def test_a_rule_that_comes_to_change_nothing_says_so_then_also_without_a_pass_at_the_weights():
    """The learning rate falls to nothing: SAM is told by the loss, stale_sam by the rounding of the weights; neither before."""
    for rule, said in (
        (flat.sam("auto"), "raises the loss by"),
        (flat.stale_sam("auto"), "shorter than their rounding"),
    ):
        w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

        def closure(w=w):
            w.grad, loss = None, 1 + w.sum()
            loss.backward()
            return loss.detach()

        def walked(lr, steps, rule=rule, w=w, closure=closure):
            for _ in range(steps):
                rule(closure, {"w": w}, 0.0)
                w.data -= lr * w.grad

        walked(1e-3, 100)
        assert not rule.radius.idle
        with pytest.warns(RuntimeWarning, match=said) as told:
            walked(0.0, 300)
        assert len(told) == 1
        again = flat.sam("auto") if rule.radius.rise is not None else flat.stale_sam("auto")
        again.load_state_dict(rule.state_dict())
        walked(0.0, 60, again)  # a resumed run does not tell it again


def test_weights_that_stand_still_or_are_zero_are_left_where_they_are():
    rule = flat.sam("auto")
    assert {float(w) for w in walk(rule, lambda w: (w - 1.0).sum(), [1.0], lr=0.0, steps=3)} == {1.0}
    assert rule.rho is None
    assert {float(w) for w in walk(rule, lambda w: 0.0 * w.sum(), [0.0], lr=1.0, steps=3)} == {0.0}
    assert rule.rho is None


def test_a_recipe_names_it():
    rule = build(Spec.parse({"name": "sam", "rho": "auto"}, "gradient"), ["trainflat.flat"])
    trained(rule)
    assert 0 < rule.share <= HIGHEST


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flat.sam("best"), "rho must be a number of at least 0 or a schedule, got 'best'"),
        (lambda: flat.smoothness_adaptive("auto"), "is for rules that do not find it already"),
        (lambda: flat.noise("auto"), "noise goes nowhere in particular and has to be far longer: give rho a number"),
        (lambda: Auto(0.0), "must be above 0; for none use plain"),
        (lambda: Auto(-1.0), "steps must be from 0 to inf, got -1"),
    ],
)
def test_where_it_cannot_be_found_it_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
