"""What holds for rules with memory, with masks and in recipes, and what is refused."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from trainflat import flat, testing, train
from trainflat.compress import Mask
from trainflat.experiments.resolve import Spec, build
from trainflat.flat.ascent import LastGradient, Momentum, Part, Unfamiliar
from trainflat.flat.combine import Summed, TwoSided
from trainflat.flat.examples import Curved, Private, Sharpest
from trainflat.flat.metrics import adaptive
from trainflat.flat.points import Pruned, Quantized
from trainflat.flat.radius import Smooth
from trainflat.flat.when import Every, From, HighNorm
from trainflat.testing.problem import Counted, equal, problem, trainable

INF = math.inf


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


def trained(gradient, *, steps=6, dropout=0.5, net=None):
    """The weights after a few steps with dropout, each step on other data."""
    made, (x, y) = problem(dropout=dropout)
    net = net or made
    batches = [(x[i : i + 12], y[i : i + 12]) for i in range(steps)]
    train.fit(net, train.cross_entropy, batches, sgd(net), steps=steps, gradient=gradient)
    return train.snapshot(net)


# what it prints


def test_a_rule_prints_as_what_it_was_composed_of():
    noisy = flat.noise(train.linear(4.0, 0.0), seed=1)
    assert repr(flat.sam(0.1)) == "Rule(radius=Given(rho=0.1))"
    assert repr(flat.sam("auto")) == "RuleWithMemory(radius=Auto(steps=0.3))"
    assert repr(flat.sam_on()) == "Rule(radius=Given(rho=0.5), where=norm_layers)"
    assert repr(flat.m_sam(pieces=2)) == "Rule(radius=Given(rho=0.05), pieces=2)"
    assert repr(flat.compose(0.2, metric=adaptive(0.01), when=Every(3))) == (
        "RuleWithMemory(radius=Given(rho=0.2), when=Every(k=3), metric=adaptive)"
    )
    assert repr(noisy) == "RuleWithMemory(radius=Given(rho=linear), direction=Noise(fill=fill_with_signs, seed=1))"


# masks, streams, state


def test_a_mask_that_comes_after_the_memory_holds():
    remembering = (flat.momentum_sam(0.5), flat.stale_sam(0.5), flat.friendly_sam(0.5), flat.looksam(0.5, k=2))
    for rule in (*remembering, flat.noise(0.5), flat.dp_sat(0.5), flat.delta_sam(0.5), flat.esam(0.5)):
        net, batch = problem()
        train.fit(net, train.cross_entropy, [batch] * 3, sgd(net), steps=3, gradient=rule)
        mask = Mask({name: torch.rand_like(p) < 0.5 for name, p in net.named_parameters() if p.ndim == 2})

        def objective(model, batch, mask=mask):
            assert not any(p[~mask[name]].any() for name, p in model.named_parameters() if name in mask)
            return train.cross_entropy(model, batch)

        with mask.on(net):
            train.fit(net, objective, [batch] * 3, sgd(net), steps=3, gradient=rule)


@pytest.mark.parametrize("made", [flat.noise, flat.stale_sam, flat.momentum_sam, flat.friendly_sam, flat.looksam])
def test_under_a_mask_no_backward_runs_but_those_of_the_passes(made):
    """DDP hangs on the accumulation of each gradient, and counts: a pass too many and its processes go apart."""
    net, batch = problem()
    mask = Mask({name: torch.rand_like(p) < 0.5 for name, p in net.named_parameters() if p.ndim == 2})
    node = net[0].weight.view_as(net[0].weight).grad_fn.next_functions[0][0]
    arrived = []
    node.register_hook(lambda *_: arrived.append(1))
    rule, passes = made(0.1), 0
    with mask.on(net):
        for _ in range(3):
            net.zero_grad()
            closure = Counted(net, batch)
            rule(closure, trainable(net), 0.0)
            passes += closure.passes
    assert len(arrived) == passes


@pytest.mark.parametrize("metric", [None, adaptive(0.01)])
@pytest.mark.parametrize("pieces", [1, 2])
def test_an_ascent_in_the_memory_of_the_last_gradient_is_as_one_beside_it(metric, pieces):
    class Beside(LastGradient):
        spent = False

    made = {"metric": metric} if metric else {}
    one, other = (flat.compose(0.3, direction=kind(), pieces=pieces, **made) for kind in (LastGradient, Beside))
    assert equal(trained(one), trained(other))
    first, second = one.state_dict()["direction"], other.state_dict()["direction"]
    assert equal(first, second)


def test_after_a_pass_that_failed_the_last_gradient_is_forgotten_not_wrong():
    net, batch = problem()
    rule = flat.stale_sam(0.5)
    train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=rule)

    def fails(model, batch):
        raise MemoryError("too large")

    with pytest.raises(MemoryError):
        train.fit(net, fails, [batch], sgd(net), steps=1, gradient=rule)
    plain = deepcopy(net)
    train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1, gradient=rule)
    train.fit(plain, train.cross_entropy, [batch], sgd(plain), steps=1)
    assert equal(train.snapshot(net), train.snapshot(plain))


@pytest.mark.parametrize(
    "rule",
    [flat.noise(), flat.cram(), flat.stochastic(p=0.5), flat.m_sam(), flat.esam(), flat.delta_sam(), flat.dp_sat()],
)
def test_what_a_rule_draws_it_draws_from_its_own_seed(rule):
    net, batch = problem()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train.fit(net, train.cross_entropy, [batch] * 4, sgd(net), steps=4, gradient=rule)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_draws_otherwise():
    for rule in (flat.noise, flat.cram, partial(flat.stochastic, rho=0.5), flat.esam, flat.delta_sam, flat.dp_sat):
        assert not equal(trained(rule(seed=0)), trained(rule(seed=1)))


def test_only_rules_that_remember_have_a_state():
    without = (flat.plain(), flat.sam(), flat.asam(), flat.late(), flat.quarter_batch(), flat.gsam(), flat.m_sam())
    assert not any(hasattr(rule, "state_dict") for rule in without)
    within = (flat.interval(), flat.stochastic(), flat.looksam(), flat.stale_sam(), flat.cram(), flat.adaptive_sam())
    within += (flat.esam(), flat.delta_sam(), flat.dp_sat())
    assert all(hasattr(rule, "state_dict") for rule in within)


def test_the_state_of_another_rule_is_refused():
    with pytest.raises(ValueError, match="this state is of another rule: 'point' is in only one"):
        flat.interval().load_state_dict(flat.cram().state_dict())
    with pytest.raises(ValueError, match="of another rule: its direction is Momentum, and here it is LastGradient"):
        flat.stale_sam().load_state_dict(flat.momentum_sam().state_dict())


def test_a_state_that_does_not_say_of_which_rule_it_is_is_taken():
    state = flat.momentum_sam().state_dict()
    flat.momentum_sam().load_state_dict({name: of for name, of in state.items() if name != "kinds"})


@pytest.mark.parametrize("begins", [0, 1])
def test_the_last_gradient_is_of_the_step_before_also_where_that_had_none(begins):
    """An expert that the step before did not ask does not move, whatever it was told long ago."""
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    rule, seen = flat.compose(0.5, direction=LastGradient(), when=Every(3)), []

    def closure():
        seen.append((a.item(), b.item()))
        a.grad, b.grad = torch.tensor([2.0]), torch.tensor([2.0]) if rule.steps == begins + 1 else None
        return torch.tensor(0.0)

    for _ in range(4):
        rule(closure, {"a": a, "b": b}, 0.0)
    assert seen[:3] == [(1.0, 1.0)] * 3
    assert seen[3] == pytest.approx((1.5, 1.0))


def test_a_skipped_step_still_teaches_the_memory():
    """With rho 0 at first the momentum is there when the radius comes."""
    seen = []
    rule = flat.momentum_sam(rho=lambda t: 0.0 if t < 0.5 else 1.0, decay=0.5)
    w = nn.Parameter(torch.tensor([1.0]))

    def closure():
        seen.append(w.item())
        w.grad = torch.tensor([2.0])
        return torch.tensor(0.0)

    for t in (0.0, 0.4, 0.6):
        rule(closure, {"w": w}, t)
    assert seen == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("rule", [flat.sam, flat.asam, flat.stale_sam, flat.smoothness_adaptive, flat.looksam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gradient_of_zero_moves_nothing_without_eps_and_in_half_precision(rule, dtype):
    takes_eps = "eps" in inspect.signature(rule).parameters
    made = rule(0.5, **({"eps": 0.0} if takes_eps else {}))
    w = nn.Parameter(torch.ones(2, dtype=dtype))

    def closure():
        w.grad = torch.zeros_like(w)
        return torch.zeros(())

    for _ in range(3):
        made(closure, {"w": w}, 0.0)
        assert w.grad.isfinite().all()


@pytest.mark.parametrize(
    ("direction", "reached"),
    [(None, 1.0), (Unfamiliar(0.0, 0.5), 1.0), (LastGradient(), 1.0), (Momentum(0.5, 1), 1.0)],
    ids=["this batch", "unfamiliar", "last gradient", "momentum"],
)
def test_a_start_of_its_own_is_left_along_the_direction(direction, reached):
    """Q(w) = (0, 1.5) at two bits, the gradient is always (1, 0), and rho 1: (1, 1.5), also where a memory lends its room."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[0.2, 1.5]])
    seen = []

    def objective(model, batch):
        seen.append(model.weight.detach().clone())
        return model.weight[0, 0]

    rule = flat.compose(1.0, direction=direction, start=Quantized(2))
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    train.fit(model, objective, [(torch.ones(1), torch.ones(1))] * 3, still, steps=3, gradient=rule)
    torch.testing.assert_close(seen[-1], torch.tensor([[reached, 1.5]]))


# recipes and refusals


@pytest.mark.parametrize(
    "table",
    [
        {"name": "interval", "rho": 0.2, "k": 3},
        {"name": "cram", "rho": 0.05, "sparsity": [0.4, 0.9], "every": 5, "dense": ["4."]},
        {"name": "saq", "bits": 4, "perturb": "latent"},
        {"name": "adaptive_sam", "start": -INF, "end": 1.0},
    ],
    ids=lambda table: table["name"],
)
def test_a_recipe_names_a_rule_with_plain_values(table):
    rule = build(Spec.parse(table, "gradient"), ["trainflat.flat"])
    trained(rule, steps=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flat.interval(k=0), "k counts steps and must be at least 1, got 0"),
        (lambda: flat.late(t0=1.5), "t0 must be from 0 to 1, got 1.5"),
        (lambda: flat.stochastic(p=-0.1), "p must be from 0 to 1, got -0.1"),
        (lambda: flat.adaptive_sam(decay=2), "decay must be from 0 to 1, got 2"),
        (lambda: flat.quarter_batch(fraction=0), r"fraction .* must be in \(0, 1\], got 0"),
        (lambda: flat.momentum_sam(sign=0), r"sign must be -1 \(down along the momentum\) or 1 \(up\), got 0"),
        (lambda: flat.looksam(alpha=-1), "alpha must be from 0 to inf, got -1"),
        (lambda: flat.m_sam(pieces=0), "pieces must be at least 1, got 0"),
        (lambda: flat.last_layers(count=-1), "count is a number of layers and must be at least 0, got -1"),
        (lambda: flat.adasap(lowest=2), "lowest must be from 0 to 1, got 2"),
        (lambda: flat.cram(sparsity=[0.9, 0.4]), "a sparsity must be from 0.9 to 1, got 0.4"),
        (lambda: flat.cram(sparsity=[0.5]), "sparsity is a range, its lowest and its highest value"),
        (lambda: flat.stale_cram(sparsity=[0.9, 0.4]), "a sparsity must be from 0.9 to 1, got 0.4"),
        (lambda: flat.stale_cram(sparsity=0.5), "sparsity is a range, its lowest and its highest value"),
        (lambda: flat.stale_cram(every=0), "k counts steps and must be at least 1, got 0"),
        (lambda: flat.saq(bits=1), "bits must be from 2 to 16, got 1"),
        (lambda: flat.saq(perturb="both"), "perturb must be 'quantized' or 'latent', got 'both'"),
        (lambda: flat.esam(share=0), r"share is that of the examples .* must be in \(0, 1\], got 0"),
        (lambda: flat.esam(p=1.5), r"p is the share of the parameters .* must be in \(0, 1\], got 1.5"),
        (lambda: flat.delta_sam(power=-1), "power must be from 0 to inf, got -1"),
        (lambda: flat.delta_sam(sigma=0), "sigma is a weight's standard deviation and must be above 0, got 0"),
        (lambda: flat.dp_sat(clip=0), "clip is the largest norm of one example's gradient and must be above 0, got 0"),
        (lambda: flat.dp_sat(noise=-1), "noise must be from 0 to inf, got -1"),
        (lambda: flat.dp_sat(clip=INF), "the noise is in units of clip, so clip must be finite; or give noise=0"),
        (lambda: flat.cram(rho=-1), "rho must be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flat.sam(rho=None), "rho must be a number of at least 0 or a schedule, got None"),
        (lambda: flat.sam(rho=[0.1]), r"rho must be a number of at least 0 or a schedule, got \[0.1\]"),
        (lambda: flat.sam(eps="small"), "eps must be a number from 0 to inf, got 'small'"),
        (lambda: flat.late(t0=None), "t0 must be a number from 0 to 1, got None"),
        (lambda: flat.interval(k=2.5), "k counts steps and is a whole number, got 2.5"),
        (lambda: flat.cram(every="2"), "k counts steps and is a whole number, got '2'"),
        (lambda: flat.m_sam(pieces=2.5), "pieces counts those of a batch and is a whole number, got 2.5"),
        (
            lambda: flat.compose(0.1, direction="up"),
            "direction is one of those that trainflat.flat.ascent makes.*got 'up'",
        ),
        (lambda: flat.compose(0.1, direction=Every(2)), "direction is one of those that trainflat.flat.ascent makes"),
        (lambda: flat.compose(0.1, start=0.5), "start is one of those that trainflat.flat.points makes"),
        (lambda: flat.compose(0.1, point=Pruned), "point is one of those .*; got <class '.*Pruned'>"),
        (lambda: flat.compose(0.1, combine="sum"), "combine is one of those that trainflat.flat.combine makes"),
        (lambda: flat.compose(0.1, when=5), "when is one of those that trainflat.flat.when makes, or of yours; got 5"),
        (lambda: flat.compose(0.1, examples=3), "examples is one of those that trainflat.flat.examples makes"),
        (
            lambda: flat.compose(0.1, metric="l2"),
            "metric is a function, of trainflat.flat.metrics or your own; got 'l2'",
        ),
        (lambda: flat.compose(0.1, where=["0.weight"]), r"where is a function, of trainflat.flat.places .* got \['0.w"),
        (lambda: flat.compose(0.1, where=nn.LayerNorm), "where is a function, .*; got <class '.*LayerNorm'>"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("rule", [flat.sam, flat.asam, flat.adasap, flat.stale_sam, flat.looksam, flat.friendly_sam])
def test_sparse_gradients_are_told_with_the_way_out(rule):
    batch = torch.arange(16).reshape(8, 2) % 10, torch.arange(8) % 3
    for sparse in (False, True):
        net = nn.Sequential(nn.Embedding(10, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 3))
        run = partial(train.fit, net, train.cross_entropy, [batch] * 2, torch.optim.SGD(net.parameters(), 0.1), steps=2)
        assert len(run(gradient=flat.plain())) == 2
        if not sparse:
            run(gradient=rule())
            continue
        with pytest.raises(TypeError, match="a gradient is sparse, .* make the embedding with sparse=False, or"):
            run(gradient=rule())


@pytest.mark.parametrize(
    "made",
    [flat.sam, flat.asam, flat.noise, flat.stale_sam, flat.momentum_sam, flat.default, partial(flat.sam, "auto")],
)
def test_complex_weights_are_told_in_the_first_step(made):
    net = nn.ParameterDict({"weight": nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))})

    def closure():
        loss = (net["weight"].abs() ** 2).sum()
        loss.backward()
        return loss.detach()

    closure.model = net
    with pytest.raises(
        TypeError, match=r"^weight is complex; .* neither sharded .* nor complex. flat.plain\(\) trains any$"
    ):
        made()(closure, trainable(net), 0.0)
    with pytest.raises(TypeError, match="complex"):
        flat.Loss(net, lambda model, batch: (net["weight"].abs() ** 2).sum(), [(None, torch.zeros(1))])
    flat.plain()(closure, trainable(net), 0.0)


SHARDED = """
import sys
import torch
from torch.distributed.fsdp import fully_shard
from trainflat import flat, train
from trainflat.compress import Mask

torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
net = fully_shard(torch.nn.Linear(3, 2), mesh=mesh)
batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
mask = Mask({"weight": torch.ones(2, 3, dtype=torch.bool)})
sgd = torch.optim.SGD(net.parameters(), lr=0.1)
tries = [
    *[lambda rule=rule: train.fit(net, train.cross_entropy, [batch], sgd, steps=1, gradient=rule)
      for rule in (flat.sam(), flat.default(), flat.stale_sam(), flat.noise(), flat.sam("auto"))],
    lambda: flat.Loss(net, train.cross_entropy, [batch]),
    lambda: mask.apply_to(net),
    lambda: Mask.dense(net, lambda name, p: True),
]
for attempt in tries:
    try:
        attempt()
    except TypeError as error:
        print(error)
train.fit(net, train.cross_entropy, [batch], sgd, steps=1, gradient=flat.plain())
torch.distributed.destroy_process_group()
"""


def test_sharded_weights_are_told_by_all_that_moves_measures_or_masks_them(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path / "meet")], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert len(said) == 8
    assert all("is a DTensor; " in line and "sharded" in line for line in said)


def test_choices_that_contradict_each_other_are_refused():

    with pytest.raises(ValueError, match="uses the gradient of the whole batch at the weights"):
        flat.compose(0.1, direction=LastGradient(), combine=Summed())
    with pytest.raises(ValueError, match="uses the gradient of the whole batch at the weights"):
        flat.compose(0.1, direction=Part(0.5), when=HighNorm(1, -1, 0.9))
    with pytest.raises(ValueError, match="uses the gradient of the whole batch at the weights"):
        flat.compose(0.1, start=Quantized(8), combine=Summed())
    with pytest.raises(ValueError, match="is that of the gradient itself"):
        flat.compose(0.1, direction=Unfamiliar(1.0, 0.9), combine=TwoSided())
    with pytest.raises(ValueError, match="no compressed point: leave out `point`"):
        flat.compose(0.1, point=Pruned(0.5, 0.5), combine=TwoSided())
    with pytest.raises(ValueError, match="this way to combine adds them up: leave out `combine`"):
        flat.compose(Smooth(0.1), combine=Summed())
    with pytest.raises(ValueError, match="are for the metric l2"):
        flat.compose(Smooth(0.1), metric=adaptive(0.01))
    with pytest.raises(ValueError, match="their losses at the weights are needed: leave out `direction`"):
        flat.compose(0.1, direction=Part(0.5), examples=Sharpest(0.5))
    with pytest.raises(ValueError, match="uses the gradient of the whole batch at the weights.*and `examples`"):
        flat.compose(0.1, combine=Summed(), examples=Curved(1.0, 0.1))
    with pytest.raises(ValueError, match="would not be private: take a direction that comes without one"):
        flat.compose(0.1, examples=Private(1.0, 1.0))
    with pytest.raises(ValueError, match="alike in every piece of a batch: leave out `pieces` or `examples`"):
        flat.compose(0.1, pieces=2, examples=Sharpest(0.5))


def test_a_composition_without_a_name_obeys_the_laws():
    """CrAM on a quarter of the batch, late, in an adaptive ball, and never named: what the choices are for."""

    def mine(rho=0.2):
        return flat.compose(rho, direction=Part(0.25), metric=adaptive(0.01), point=Pruned(0.5, 0.5), when=From(0.0))

    testing.check_gradient(mine, parts=True)
    assert deepcopy(mine()) is not None


@pytest.mark.parametrize("made", [flat.sam, flat.gsam, flat.bilateral_sam, partial(flat.compose, combine=Summed())])
def test_a_closure_may_change_the_gradients_that_it_finds(made):
    """A mean over micro-batches that is made after the backward passes, gradients cut, or zeros written in place."""
    found = []
    for after in (False, True):
        net, (x, y) = problem(torch.float64)

        def closure(net=net, x=x, y=y, after=after):
            net.zero_grad(set_to_none=not after)
            for i in range(4):
                (train.cross_entropy(net, (x[i::4], y[i::4])) / (1 if after else 4)).backward()
            for p in net.parameters():
                p.grad.div_(4 if after else 1)
            return torch.zeros((), dtype=torch.float64)

        made(0.1)(closure, trainable(net), 0.0)
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.allclose(*found, rtol=1e-12, atol=1e-14)


def test_what_is_trained_beside_the_model_gets_the_same_combination_of_gradients():
    w, beside = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([0.0]))

    def closure():
        loss = (w**2 / 2 + w * beside).sum()
        loss.backward()
        return loss.detach()

    closure.beside = [beside]
    for rule, expected in ((flat.bilateral_sam(0.25), 1.25 + 1.0 - 0.75), (flat.compose(0.25, combine=Summed()), 2.25)):
        w.grad = beside.grad = None
        rule(closure, {"w": w}, 0.0)
        assert beside.grad.tolist() == w.grad.tolist() == [expected]


@pytest.mark.parametrize("made", [flat.gsam, flat.bilateral_sam, flat.m_sam, partial(flat.compose, combine=Summed())])
def test_gradients_are_not_held_in_memory_that_ddp_writes_to(made):
    net, batch = problem()
    closure = Counted(net, batch).given(parts=True)
    closure.model.gradient_as_bucket_view = True
    with pytest.raises(ValueError, match="make it with gradient_as_bucket_view=False"):
        made(0.1)(closure, trainable(net), 0.0)
    flat.sam(0.1)(closure, trainable(net), 0.0)


def test_a_parameter_of_two_names_counts_once():
    found = []
    for names in (1, 2):
        net, batch = problem()
        params = {f"{name} {i}": p for i in range(names) for name, p in net.named_parameters()}
        flat.bilateral_sam(0.1)(Counted(net, batch), params, 0.0)
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(*found)


def test_a_parameter_dict_has_names():
    net = nn.ParameterDict({"w": nn.Parameter(torch.tensor([1.0]))})

    def closure():
        loss = (net["w"] ** 2).sum()
        loss.backward()
        return loss.detach()

    flat.sam(0.5)(closure, net, 0.0)
    assert net["w"].grad.tolist() == [3.0]


def test_what_is_beside_gets_its_gradient_once_in_a_step_without_a_direction():
    w, beside = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))

    def closure():
        loss = (0 * w + beside).sum()
        loss.backward()
        w.grad = None  # as if the loss did not use it
        return loss.detach()

    closure.beside = [beside]
    flat.sam(0.1)(closure, {"w": w}, 0.0)
    assert beside.grad.item() == 1
