from __future__ import annotations

import inspect
from copy import deepcopy
from functools import partial
from itertools import chain, repeat

import pytest
import torch
from torch import nn

from trainflat import flat, testing, train
from trainflat.compress import Mask
from trainflat.flat import by_example, cheap, compressed, gradients, variants
from trainflat.testing.problem import Counted, problem, trainable

RULES = {
    name: rule
    for name in flat.__all__
    if inspect.isfunction(rule := getattr(flat, name)) and rule.__annotations__.get("return") == "Gradient"
}
SINGLE = set(by_example.__all__)  # these ask for the losses of single examples
ASKING = {
    "cram",
    "default",
    "last_layers",
    "m_sam",
    "quarter_batch",
    "sam_on",
    "saq",
    "stale_cram",
} | SINGLE  # for a part, pieces, the model
PLAIN = {name: rule for name, rule in RULES.items() if name not in ASKING}
ANY_BATCH = {"m_sam"}  # a ball for each piece: four micro-batches are not the large batch
OPTIONS = {
    "sam, replayed dropout": partial(flat.sam, dropout="replay"),
    "sam, large": partial(flat.sam, rho=1.0),
    "sam, scheduled": partial(flat.sam, rho=train.linear(0.1, 0.0)),
    "asam, replayed dropout": partial(flat.asam, dropout="replay"),
    "asam, eta 0": partial(flat.asam, eta=0.0),
    "interval of 2": partial(flat.interval, k=2),
    "late from the middle on": partial(flat.late, t0=0.5),
    "looksam every second step": partial(flat.looksam, rho=0.5, k=2, alpha=2.0),
    "gsam, large": partial(flat.gsam, rho=1.0, alpha=3.0),
    "friendly_sam, slow": partial(flat.friendly_sam, rho=0.5, sigma=0.5, decay=0.99),
    "momentum_sam, up": partial(flat.momentum_sam, rho=1.0, sign=1),
    "adasap, one radius": partial(flat.adasap, lowest=1.0),
}
OPTIONS_ASKING = {
    "cram every second step": partial(flat.cram, rho=0.5, every=2, sparsity=(0.5, 0.5)),
    "cram, sparse gradient": partial(flat.cram, rho=0.5, sparsity=(0.5, 0.5), sparse_grad=True),
    "cram that grows": partial(flat.cram, rho=0.5, sparsity=(0.2, 0.6), grow=0.5),
    "cram, dense embedding": partial(flat.cram, dense=["0."]),
    "stale_cram in every step, dense embedding": partial(flat.stale_cram, rho=0.5, every=1, dense=["0."]),
    "stale_cram that grows, sparse gradient": partial(flat.stale_cram, sparsity=(0.2, 0.6), grow=0.5, sparse_grad=True),
    "saq, 4 bits": partial(flat.saq, bits=4),
    "saq, latent": partial(flat.saq, bits=4, perturb="latent"),
    "last_layers, one": partial(flat.last_layers, count=1),
    "esam, few": partial(flat.esam, rho=0.5, share=0.25, p=0.3),
    "delta_sam, large": partial(flat.delta_sam, rho=1.0, power=2.0, sigma=0.1),
    "dp_sat without privacy": partial(flat.dp_sat, clip=float("inf"), noise=0.0),
    "dp_sat, large": lambda: flat.dp_sat(rho=1.0, clip=0.01, noise=0.5),
}
COMPARING = {
    "adaptive_sam",
    "dp_sat",
    "friendly_sam",
    "momentum_sam",
    "smoothness_adaptive",
}  # gradients of several steps
NOT_PLAIN = {"dp_sat"}  # without radius it is DP-SGD


def small_net(dropout: float = 0.0, dtype: torch.dtype = torch.float32):
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 3)).to(dtype)
    return net, (torch.randn(64, 8, dtype=dtype), torch.randint(0, 3, (64,)))


def backward(function):
    def closure():
        loss = function()
        loss.backward()
        return loss.detach()

    return closure


def visits(function, params):
    """A closure that also notes where the weights are in each pass."""
    seen = []

    def noted():
        seen.append({name: p.detach().clone() for name, p in params.items()})
        return function()

    return backward(noted), seen


def length(vectors) -> float:
    return float(torch.stack([v.double().norm() for v in vectors]).norm())


# every rule


def test_the_laws_are_asked_of_every_public_rule():
    homes = (gradients, cheap, variants, compressed, by_example)
    assert set(RULES) == {name for home in homes for name in home.__all__} | {"default"}
    assert len(RULES) >= 26


@pytest.mark.parametrize("rule", [*PLAIN.values(), *OPTIONS.values()], ids=[*PLAIN, *OPTIONS])
def test_a_rule_obeys_the_laws(rule):
    testing.check_gradient(rule)


@pytest.mark.parametrize("name", [*sorted(ASKING), *OPTIONS_ASKING])
def test_a_rule_that_asks_more_of_the_closure_obeys_the_laws(name):
    rule = {**RULES, **OPTIONS_ASKING}[name]
    made = (
        (lambda: rule()) if name in NOT_PLAIN else rule
    )  # without its options it is not asked to be plain without radius
    testing.check_gradient(made, parts=True, large_batch=name not in ANY_BATCH)


@pytest.mark.parametrize("name", RULES)
def test_a_loss_that_a_scaler_scales_has_gradients_scaled_alike(name):
    """As torch.amp.GradScaler does, by powers of two that change on the way; which rules mind is said in `gradients`."""
    made = []
    for scales in ([1.0] * 8, [1.0, 1.0, 8.0, 8.0, 0.25, 64.0, 64.0, 1.0]):
        net, (x, y) = problem(torch.float64)
        rule, sgd = RULES[name](), torch.optim.SGD(net.parameters(), lr=0.5)
        for i, scale in enumerate(scales):
            net.zero_grad()
            rule(Counted(net, (x[i::2], y[i::2]), factor=scale).given(parts=True), trainable(net), i / 8)
            torch._foreach_div_([p.grad for p in net.parameters()], scale)
            sgd.step()
        made.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.allclose(*made, rtol=1e-9, atol=1e-12) == (name not in COMPARING)


@pytest.mark.parametrize("name", sorted(ASKING))
def test_a_plain_function_that_cannot_answer_is_told_what_to_add(name):
    net, batch = small_net()
    with pytest.raises(TypeError, match=r"closure\.(part|pieces|model|losses).*trainflat\.train\.loop do"):
        RULES[name]()(backward(lambda: train.cross_entropy(net, batch)), dict(net.named_parameters()), 0.0)


@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN)
def test_one_rule_object_serves_models_of_other_shape_and_type(rule):
    reused = rule()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for width in (3, 5):
            net = nn.Linear(4, width).to(dtype)
            before = train.snapshot(net)
            reused(
                backward(lambda net=net, dtype=dtype: net(torch.ones(2, 4, dtype=dtype)).square().mean()),
                dict(net.named_parameters()),
                0.0,
            )
            assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
            assert all(p.grad.dtype == dtype for p in net.parameters())


@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN)
def test_a_weight_without_gradient_in_the_second_pass_is_where_it_was(rule):
    """Layer drop: an implementation that restores only what has a gradient leaves such a weight perturbed."""
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([2.0]))
    passes = chain([a * b], repeat(a))  # the graph of the second pass has no b
    rule()(backward(lambda: next(passes).sum() + 0 * a.sum()), {"a": a, "b": b}, 0.0)
    assert a.item() == 1.0
    assert b.item() == 2.0


# SAM


def test_sam_on_a_quadratic_equals_the_formula():
    matrix = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    loss = flat.sam(rho=0.1, eps=0.0)(backward(lambda: 0.5 * w @ matrix @ w), {"w": w}, 0.0)
    g = matrix @ w.detach()
    torch.testing.assert_close(w.grad, matrix @ (w.detach() + 0.1 * g / g.norm()), rtol=1e-14, atol=0)
    assert loss.item() == 4.0  # the loss at the weights, 0.5 (4 + 4), not at the ascent point


def test_asam_on_a_quadratic_equals_the_formula():
    matrix = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    flat.asam(rho=0.5, eta=0.01, eps=0.0)(backward(lambda: 0.5 * w @ matrix @ w), {"w": w}, 0.0)
    g, scale = matrix @ w.detach(), w.detach().abs() + 0.01
    ascent = 0.5 * scale**2 * g / (scale * g).norm()
    torch.testing.assert_close(w.grad, matrix @ (w.detach() + ascent), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("rule", "invariant"), [(partial(flat.asam, eta=0.0), True), (flat.sam, False)])
def test_rescaling_two_layers_inversely_changes_asam_not_at_all(rule, invariant):
    found = []
    for c in (1.0, 10.0):
        a = nn.Parameter(c * torch.tensor([1.0, 2.0], dtype=torch.float64))
        b = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64) / c)
        rule(rho=0.1)(backward(lambda a=a, b=b: ((a * b).sum() - 3) ** 2), {"a": a, "b": b}, 0.0)
        found.append(torch.cat([a.grad * c, b.grad / c]))
    assert torch.allclose(*found, rtol=1e-12) is invariant


def test_ten_steps_of_sam_equal_six_lines_by_hand():
    net, batch = small_net(dtype=torch.float64)
    twin = deepcopy(net)
    train.fit(
        net, train.cross_entropy, [batch] * 10, torch.optim.SGD(net.parameters(), 0.5), steps=10, gradient=flat.sam(0.1)
    )
    weights = list(twin.parameters())
    for _ in range(10):
        g = torch.autograd.grad(train.cross_entropy(twin, batch), weights)
        norm = torch.cat([x.flatten() for x in g]).norm()
        kept = [w.detach().clone() for w in weights]
        with torch.no_grad():
            [w.copy_(k + 0.1 * x / (norm + 1e-12)) for w, k, x in zip(weights, kept, g, strict=True)]
        g = torch.autograd.grad(train.cross_entropy(twin, batch), weights)
        with torch.no_grad():
            [w.copy_(k - 0.5 * x) for w, k, x in zip(weights, kept, g, strict=True)]
    for p, q in zip(net.parameters(), weights, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [flat.sam, partial(flat.asam, eta=1e9)], ids=["sam", "asam as a ball"])
def test_the_norm_is_over_all_parameters_at_once(rule):
    """With a large eta ASAM's ball is SAM's, scaled: the ascent has length rho for T = eta and radius rho / eta."""
    a, b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([4.0]))
    rho = 0.1 if rule is flat.sam else 0.1 / 1e9
    closure, seen = visits(lambda: 0.5 * (a.square() + b.square()).sum(), {"a": a, "b": b})
    rule(rho=rho)(closure, {"a": a, "b": b}, 0.0)
    first, second = seen
    moved = {name: (second[name] - first[name]).item() for name in first}
    assert moved == {"a": pytest.approx(0.06, rel=1e-5), "b": pytest.approx(0.08, rel=1e-5)}  # 0.1 (3, 4) / 5


def test_eps_is_added_outside_the_square_root():
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    closure, seen = visits(lambda: 1e-12 * w.sum(), {"w": w})
    flat.sam(rho=1.0, eps=1e-12)(closure, {"w": w}, 0.0)
    assert seen[1]["w"].item() == pytest.approx(0.5)  # 1e-12 / (1e-12 + 1e-12); inside it would be 1e-6


@pytest.mark.parametrize("rule", [flat.sam, flat.asam, partial(flat.asam, eta=0.0)])
def test_a_gradient_of_zero_moves_nothing(rule):
    w = nn.Parameter(torch.tensor([1.0, 0.0]))
    closure, seen = visits(lambda: (0 * w).sum(), {"w": w})
    rule()(closure, {"w": w}, 0.0)
    assert torch.equal(seen[0]["w"], seen[1]["w"])
    assert torch.equal(w.grad, torch.zeros(2))


def test_pruned_weights_have_no_share_in_the_norm():
    net = nn.Linear(4, 1, bias=False)
    mask = Mask({"weight": torch.tensor([[True, False, True, False]])})
    params = dict(net.named_parameters())
    closure, seen = visits(lambda: (net.weight * torch.tensor([3.0, 100.0, 4.0, 100.0])).sum(), params)
    with mask.on(net):
        flat.sam(rho=0.1)(closure, params, 0.0)
    moved = seen[1]["weight"] - seen[0]["weight"]
    torch.testing.assert_close(moved, torch.tensor([[0.06, 0.0, 0.08, 0.0]]), rtol=1e-5, atol=0)


def test_the_norm_of_bfloat16_gradients_is_taken_in_float32():
    big = nn.Parameter(torch.zeros(100_003, dtype=torch.bfloat16))
    probe = nn.Parameter(torch.zeros(1, dtype=torch.float64).float())
    closure, seen = visits(lambda: big.float().sum() + probe.sum(), {"big": big, "probe": probe})
    flat.sam(rho=1.0)(closure, {"big": big, "probe": probe}, 0.0)
    true = 100_004**-0.5  # every gradient is 1
    naive = 1 / float(torch.ones_like(big).norm())
    assert seen[1]["probe"].item() == pytest.approx(true, rel=1e-6)
    assert naive != pytest.approx(true, rel=1e-4), "the demonstration needs a norm that bfloat16 cannot hold"


def test_the_norm_of_float16_gradients_does_not_overflow():
    w = nn.Parameter(torch.zeros(10_000, dtype=torch.float16))
    closure, seen = visits(lambda: (1000 * w).float().sum(), {"w": w})
    flat.sam(rho=1.0)(closure, {"w": w}, 0.0)  # |g| = 1e5, above what float16 can hold
    torch.testing.assert_close(seen[1]["w"], torch.full_like(w, 0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_subtracting_the_perturbation_does_not_restore(dtype):
    """The widespread p.add_(e) ... p.sub_(e) drifts; this is why the rules copy."""
    net, batch = small_net(dtype=dtype)
    before = train.snapshot(net)
    train.cross_entropy(net, batch).backward()
    norm = length([p.grad for p in net.parameters()])
    with torch.no_grad():
        for p in net.parameters():
            e = p.grad * (0.05 / norm)
            p.add_(e).sub_(e)
    changed = sum(int((tensor != before[name]).sum()) for name, tensor in net.state_dict().items())
    assert changed > 0


# dropout and the random stream


class NotingDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.masks = []

    def forward(self, x):
        mask = (torch.rand_like(x) < 0.5).float()
        self.masks.append(mask)
        return x * mask


@pytest.mark.parametrize("rule", [flat.sam, flat.asam])
@pytest.mark.parametrize(("dropout", "repeated"), [("replay", True), ("fresh", False)])
def test_the_second_pass_replays_dropout_only_if_told(rule, dropout, repeated):
    noting = NotingDropout()
    net = nn.Sequential(nn.Linear(8, 32), noting, nn.Linear(32, 3))
    _, batch = small_net()
    rule(dropout=dropout)(backward(lambda: train.cross_entropy(net, batch)), dict(net.named_parameters()), 0.0)
    first, second = noting.masks
    assert torch.equal(first, second) is repeated


@pytest.mark.parametrize(("dropout", "passes"), [("replay", 1), ("fresh", 2)])
def test_the_random_stream_is_left_where_as_many_passes_would(dropout, passes):
    net, batch = small_net(dropout=0.5)
    torch.manual_seed(7)
    for _ in range(passes):
        train.cross_entropy(net, batch)
    expected = torch.get_rng_state()
    torch.manual_seed(7)
    flat.sam(dropout=dropout)(backward(lambda: train.cross_entropy(net, batch)), dict(net.named_parameters()), 0.0)
    assert torch.equal(torch.get_rng_state(), expected)


# in the loop


def test_clipping_bounds_the_second_gradient_and_leaves_the_ascent_alone():
    found = {}
    for clip in (None, 0.01):
        torch.manual_seed(0)
        net, batch = small_net()
        places = []

        def objective(model, batch, places=places):
            places.append(train.snapshot(model))
            return train.cross_entropy(model, batch)

        train.fit(
            net, objective, [batch], torch.optim.SGD(net.parameters(), 0.0), steps=1, gradient=flat.sam(0.05), clip=clip
        )
        ascent = [places[1][name] - places[0][name] for name in places[0]]
        found[clip] = ascent, [p.grad for p in net.parameters()]
    assert length(found[None][1]) > 0.01  # or there is nothing to clip
    assert length(found[0.01][1]) == pytest.approx(0.01, rel=1e-4)
    assert length(found[0.01][0]) == pytest.approx(0.05, rel=1e-4)
    assert all(map(torch.equal, found[None][0], found[0.01][0]))
    scale = 0.01 / length(found[None][1])
    for clipped, whole in zip(found[0.01][1], found[None][1], strict=True):
        torch.testing.assert_close(clipped, scale * whole, rtol=1e-3, atol=1e-9)  # only shorter


@pytest.mark.parametrize("rule", [flat.sam, flat.asam])
def test_rho_follows_its_schedule_and_zero_takes_one_pass(rule):
    w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    radii = []
    scheduled = rule(rho=lambda t: max(0.0, 0.2 - 0.4 * t))
    for t in (0.0, 0.25, 0.5, 0.75):
        closure, seen = visits(lambda: w.square().sum(), {"w": w})
        scheduled(closure, {"w": w}, t)
        radii.append((seen[-1]["w"] - seen[0]["w"]).item())
    unit = 1.0 if rule is flat.sam else 1.01  # ASAM's ball at w = 1 is |w| + eta wide
    assert radii == pytest.approx([0.2 * unit, 0.1 * unit, 0.0, 0.0])
    assert len(seen) == 1


# what is refused


@pytest.mark.parametrize("rule", [flat.sam, flat.asam])
def test_a_negative_rho_is_refused_at_once_or_when_the_schedule_gets_there(rule):
    with pytest.raises(ValueError, match=r"rho must be at least 0, got -0\.1"):
        rule(rho=-0.1)
    w = nn.Parameter(torch.ones(1))
    falling = rule(rho=train.linear(0.1, -0.1))
    with pytest.raises(ValueError, match=r"rho must be at least 0, got .* at t = 0\.750"):
        falling(backward(lambda: w.sum()), {"w": w}, 0.75)


def test_a_negative_eta_is_refused():
    with pytest.raises(ValueError, match="eta must be at least 0, got -1"):
        flat.asam(eta=-1)


@pytest.mark.parametrize("rule", [flat.sam, flat.asam])
def test_a_wrong_word_for_dropout_is_refused(rule):
    with pytest.raises(ValueError, match="dropout must be 'fresh' or 'replay', got 'same'"):
        rule(dropout="same")


def _forgets_backward(net, batch):
    return lambda: train.cross_entropy(net, batch)


def _gives_a_number(net, batch):
    return lambda: Counted(net, batch)().item()


PLAIN = flat.plain()


@pytest.mark.parametrize("rule", [PLAIN, flat.sam(), flat.stale_sam(), flat.gsam()])
def test_what_cannot_be_a_step_is_a_sentence(rule):
    net, batch = problem()
    params = trainable(net)
    for given in (list(net.parameters()), net.parameters()):
        with pytest.raises(
            TypeError, match=r"takes the parameters by name, dict\(model.named_parameters\(\)\); this is a"
        ):
            rule(Counted(net, batch), given, 0.0)
    with pytest.raises(ValueError, match="was given no parameters, and so would do nothing"):
        rule(Counted(net, batch), {}, 0.0)
    with pytest.raises(ValueError, match=r"copies, as in state_dict\(\); give dict\(model.named_parameters\(\)\)"):
        rule(Counted(net, batch), net.state_dict(), 0.0)
    with pytest.raises(TypeError, match="a closure is a function that .* at several places; this is a Tensor"):
        rule(train.cross_entropy(net, batch), params, 0.0)
    with pytest.raises(TypeError, match="returns the loss, a 0-d tensor; this one returned float"):
        rule(_gives_a_number(net, batch), params, 0.0)
    with pytest.raises(ValueError, match="t is the progress of the run, from 0 to 1, step / steps; got 7"):
        rule(Counted(net, batch), params, 7)
    net.zero_grad()
    if rule is PLAIN:  # it need not know: an optimizer may step in the backward pass
        return
    with pytest.raises(ValueError, match=r"none of the parameters has a gradient: it has to run loss.backward\(\)"):
        rule(_forgets_backward(net, batch), params, 0.0)


def test_statistics_of_a_batch_norm_can_be_kept_as_the_first_pass_left_them():
    """As the docstring of `gradients` does; of SAM as it is they are those of both passes."""
    torch.manual_seed(0)
    start, x = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), torch.randn(16, 8)
    found = {}
    for name, rule in {"plain": flat.plain(), "both": flat.sam(1.0), "first": flat.sam(1.0)}.items():
        net, seen = deepcopy(start), []

        def closure(net=net, seen=seen):
            loss = net(x).pow(3).mean()
            loss.backward()
            seen.append([b.clone() for b in net.buffers()])
            return loss

        rule(closure, dict(net.named_parameters()), 0.0)
        if name == "first":
            for own, first in zip(net.buffers(), seen[0], strict=True):
                own.copy_(first)
        found[name] = train.snapshot(net)
    statistics = [name for name, _ in start.named_buffers()]
    assert all(torch.equal(found["first"][name], found["plain"][name]) for name in statistics)
    assert not any(torch.equal(found["both"][name], found["plain"][name]) for name in statistics)


@pytest.mark.parametrize("rule", [flat.plain(), flat.sam(), flat.bilateral_sam()])
def test_a_closure_may_return_the_loss_with_its_graph_as_torch_s_own_do(rule):
    net, batch = problem()

    def closure():
        loss = train.cross_entropy(net, batch)
        loss.backward()
        return loss

    assert not rule(closure, trainable(net), 0.0).requires_grad
