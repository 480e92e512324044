from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from itertools import chain, count, repeat

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainflat import flat, train
from trainflat.testing.problem import equal, problem, same


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr=lr)


class Bad:
    """Cross-entropy that is multiplied by ``value`` in its pass number ``at``."""

    def __init__(self, at, value=float("nan")):
        self.at, self.value, self.passes = at, value, 0

    def __call__(self, model, batch):
        self.passes += 1
        return train.cross_entropy(model, batch) * (self.value if self.passes == self.at else 1.0)


def stopped_weights(net, objective, match, **options):
    """The weights after the last good step, and those when the loop stopped with an error that matches."""
    after = [train.snapshot(net)]
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    run = train.loop(net, objective, repeat(problem()[1]), adam, steps=10, **options)
    with pytest.raises(train.NonFiniteLoss, match=match):
        after.extend(train.snapshot(net) for _ in run)
    return after[-1], train.snapshot(net)


# what a step is


def test_a_step_is_yielded_for_each_index_with_its_progress_and_loss():
    net, batch = problem()
    steps = train.fit(net, train.cross_entropy, repeat(batch), sgd(net), steps=4, lr=train.linear(1.0, 0.0))
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert [step.t for step in steps] == [0.0, 0.25, 0.5, 0.75]
    assert [step.lr for step in steps] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert steps[-1].loss < steps[0].loss
    assert steps[0].loss == pytest.approx(train.cross_entropy(problem()[0], batch).item())


def test_nothing_is_trained_until_the_loop_is_iterated():
    net, batch = problem()
    before = train.snapshot(net)
    run = train.loop(net, train.cross_entropy, repeat(batch), sgd(net), steps=1)
    assert equal(before, train.snapshot(net))
    next(run)
    assert not equal(before, train.snapshot(net))


def test_plain_is_the_default_and_is_a_textbook_loop():
    net, batch = problem()
    train.fit(net, train.cross_entropy, repeat(batch), sgd(net), steps=5)
    explicit, _ = problem()
    train.fit(explicit, train.cross_entropy, repeat(batch), sgd(explicit), steps=5, gradient=flat.plain())
    by_hand, _ = problem()
    optimizer = sgd(by_hand)
    for _ in range(5):
        optimizer.zero_grad()
        train.cross_entropy(by_hand, batch).backward()
        optimizer.step()
    assert equal(train.snapshot(net), train.snapshot(by_hand))
    assert equal(train.snapshot(explicit), train.snapshot(by_hand))


@pytest.mark.parametrize("gradient", [flat.plain(), flat.sam(rho=0.5)])
def test_what_the_optimizer_lacks_is_as_if_its_rate_were_zero(gradient):
    found = []
    for others in (False, True):
        net, batch = problem()
        groups = [{"params": net[4].parameters(), "lr": 0.1}]
        if others:
            groups.append({"params": [*net[0].parameters(), *net[1].parameters()], "lr": 0.0})
        run = train.loop(
            net, train.cross_entropy, repeat(batch), torch.optim.SGD(groups), steps=4, gradient=gradient, clip=0.1
        )
        found.append([(step.loss, *(p.grad for p in net.parameters())) for step in run])
    for one, other in zip(*found, strict=True):  # its gradients begin anew in every step: they do not add up
        assert same(one, other)


def test_a_step_trains_whatever_mode_the_caller_left():
    net, batch = problem(dropout=0.5)
    modes = []

    def objective(model, batch):
        modes.append(model.training)
        return train.cross_entropy(model, batch)

    for _ in train.loop(net, objective, repeat(batch), sgd(net), steps=3):
        net.eval()
    assert modes == [True] * 3


# non-finite numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(value):
    after, now = stopped_weights(
        problem()[0], Bad(at=4, value=value), rf"the loss is not finite at step 3 of 10 \(loss {value}\)"
    )
    assert equal(after, now)


def test_a_nan_in_the_second_pass_of_sam_stops_before_the_step():
    match = r"the loss at the ascent point is not finite at step 2 of 10 \(loss \d"
    after, now = stopped_weights(problem()[0], Bad(at=6), match, gradient=flat.sam())
    assert equal(after, now)


def test_a_nan_in_the_first_pass_of_sam_stops_before_the_step():
    after, now = stopped_weights(problem()[0], Bad(at=5), "the loss is not finite at step 2 of 10", gradient=flat.sam())
    assert equal(after, now)


def test_an_infinite_gradient_stops_before_the_step_if_it_is_clipped():
    def objective(model, batch):
        loss = train.cross_entropy(model, batch)
        w = next(model.parameters())
        return loss + (w - w.detach()).abs().sqrt().sum()  # the loss is as before, its gradient is not finite

    after, now = stopped_weights(problem()[0], objective, "the gradient's norm is not finite at step 0 of 10", clip=1.0)
    assert equal(after, now)


def test_the_error_says_what_to_try():
    net, batch = problem()
    with pytest.raises(ArithmeticError, match=r"still those before the step\. Try a smaller learning rate"):
        train.fit(net, Bad(at=1), [batch], sgd(net), steps=1)


def test_a_nan_in_one_micro_batch_is_seen():
    _, now = stopped_weights(problem()[0], Bad(at=3), "the loss is not finite at step 0 of 10", accumulate=4)
    assert equal(now, train.snapshot(problem()[0]))


# learning rates


def test_the_schedule_multiplies_each_groups_own_rate():
    net, batch = problem()
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[4].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    rates = []
    for _ in train.loop(net, train.cross_entropy, repeat(batch), optimizer, steps=4, lr=train.linear(1.0, 0.0)):
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [pytest.approx([0.1 * f, 0.02 * f]) for f in (1.0, 0.75, 0.5, 0.25)]


def test_the_schedule_goes_on_where_a_resumed_run_stopped(tmp_path):
    net, batch = problem()
    optimizer = sgd(net)
    rates = []
    options = {"steps": 4, "lr": train.linear(1.0, 0.0)}
    for step in train.loop(net, train.cross_entropy, repeat(batch), optimizer, **options):
        rates.append(step.lr)
        if step.index == 1:
            train.save_state(tmp_path / "state", net, optimizer, step=2)
            break
    other, _ = problem()
    optimizer = sgd(other, lr=99.0)  # the saved rate wins, not the one at hand or the last scheduled one
    start, _ = train.load_state(tmp_path / "state", other, optimizer)
    rates += [s.lr for s in train.loop(other, train.cross_entropy, repeat(batch), optimizer, start=start, **options)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_second_fit_starts_from_the_base_rate_again():
    net, batch = problem()
    optimizer = sgd(net)
    for _ in range(2):
        steps = train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=2, lr=train.linear(1.0, 0.0))
        assert steps[0].lr == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [1.0, train.linear(1.0, 0.0)], ids=["none", "linear"])
def test_a_rate_that_is_set_between_two_fits_is_the_new_base(schedule):
    net, batch = problem()
    optimizer = sgd(net)
    for rate in (0.1, 0.02, 0.3):
        optimizer.param_groups[0]["lr"] = rate
        steps = train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=2, lr=schedule)
        assert [step.lr for step in steps] == pytest.approx([rate, rate * train.schedules.at(schedule, 0.5)])


def test_a_rate_that_was_set_on_the_way_is_saved_with_the_run(tmp_path):
    options, rates = {"steps": 5, "lr": train.linear(1.0, 0.0)}, {}
    for stop in (None, 2, 3):
        net, batch = problem()
        optimizer, rates[stop] = sgd(net), []
        for step in train.loop(net, train.cross_entropy, repeat(batch), optimizer, **options):
            rates[stop].append(step.lr)
            if step.index == 1:
                optimizer.param_groups[0]["lr"] = 1.0
            if step.index + 1 == stop:
                train.save_state(tmp_path / "state", net, optimizer, step=stop)
                break
        if stop:
            net, _ = problem()
            optimizer = sgd(net)
            start, _ = train.load_state(tmp_path / "state", net, optimizer)
            resumed = train.loop(net, train.cross_entropy, repeat(batch), optimizer, start=start, **options)
            rates[stop] += [step.lr for step in resumed]
    assert rates[None] == pytest.approx([0.1, 0.08, 0.6, 0.4, 0.2])
    assert rates[None] == rates[2] == rates[3]


def test_a_state_of_before_goes_on_from_its_base_rate():
    net, batch = problem()
    optimizer = sgd(net, lr=0.05)  # where the schedule had left it
    optimizer.param_groups[0]["initial_lr"] = 0.1
    rest = train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=4, start=2, lr=train.linear(1.0, 0.0))
    assert [step.lr for step in rest] == pytest.approx([0.05, 0.025])


SCHEDULERS = {
    "warm-up": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 3)),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=7),
}


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_of_torchs_that_is_stepped_between_the_steps_sets_the_rate(scheduler, kind):
    def made():
        net, batch = problem()
        optimizer = torch.optim.SGD(net.parameters(), lr=kind(0.1), momentum=0.9)
        return net, batch, optimizer, scheduler(optimizer)

    by_hand, batch, optimizer, schedule = made()
    for _ in range(6):
        optimizer.zero_grad()
        train.cross_entropy(by_hand, batch).backward()
        optimizer.step()
        schedule.step()
    net, batch, optimizer, schedule = made()
    for _ in train.loop(net, train.cross_entropy, repeat(batch), optimizer, steps=6):
        schedule.step()
    assert equal(train.snapshot(net), train.snapshot(by_hand))


def test_a_group_that_is_added_between_two_steps_has_its_own_rate():
    net, batch = problem()
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    run = train.loop(net, train.cross_entropy, repeat(batch), optimizer, steps=2, lr=train.linear(1.0, 0.0))
    next(run)
    optimizer.add_param_group({"params": net[4].parameters(), "lr": 0.02})
    next(run)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.01])


def test_a_number_scales_the_rate():
    net, batch = problem()
    assert train.fit(net, train.cross_entropy, repeat(batch), sgd(net), steps=1, lr=0.5)[0].lr == pytest.approx(0.05)


# batches


@pytest.mark.parametrize("rule", [flat.plain, flat.sam, flat.asam])
def test_every_pass_of_a_step_sees_the_same_micro_batches(rule):
    net, (x, y) = problem()
    seen = []

    def objective(model, batch):
        seen.append(batch[1].tolist())
        return train.cross_entropy(model, batch)

    stream = train.Stream(32, 4, lambda i: (x[i], y[i]), seed=0)
    train.fit(net, objective, stream, sgd(net), steps=2, accumulate=2, gradient=rule())
    passes = len(seen) // 4
    assert passes == (1 if rule is flat.plain else 2)
    drawn = [batch[1].tolist() for batch, _ in zip(stream, range(4))]
    assert seen == drawn[:2] * passes + drawn[2:] * passes


def test_the_loss_of_an_accumulated_step_is_the_mean():
    net, (x, y) = problem()
    whole = train.fit(net, train.cross_entropy, [(x, y)], sgd(net, 0.0), steps=1)[0].loss
    pieces = [(x[i::4], y[i::4]) for i in range(4)]
    assert train.fit(net, train.cross_entropy, pieces, sgd(net, 0.0), steps=1, accumulate=4)[0].loss == pytest.approx(
        whole
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_that_end_early_are_named(accumulate):
    net, batch = problem()
    with pytest.raises(
        ValueError, match="the batches ended at step 3 of 5; give fewer steps or an endless stream, of a Data"
    ):
        train.fit(net, train.cross_entropy, [batch] * (4 * accumulate - 1), sgd(net), steps=5, accumulate=accumulate)


def test_a_loader_is_an_endless_stream_as_the_sentence_says():
    net, (x, y) = problem()
    loader = DataLoader(TensorDataset(x, y), batch_size=12, shuffle=True)
    seen = []

    def objective(model, batch):
        seen.append(batch[0])
        return train.cross_entropy(model, batch)

    stream = chain.from_iterable(repeat(loader))
    train.fit(net, objective, stream, sgd(net), steps=2 * len(loader))
    first, second = torch.cat(seen[: len(loader)]), torch.cat(seen[len(loader) :])
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(x.tolist())
    assert not torch.equal(first, second)  # in another order


def test_a_stream_is_entered_and_an_iterable_is_wound_forward():
    net, (x, y) = problem()
    stream = train.Stream(32, 8, lambda i: (x[i], y[i]), seed=3)
    listed = [batch for batch, _ in zip(stream, range(6))]
    ends = []
    for batches in (stream, listed, (batch for batch in listed)):
        net, _ = problem()
        train.fit(net, train.cross_entropy, batches, sgd(net), steps=6, start=2)
        ends.append(train.snapshot(net))
    assert equal(ends[0], ends[1])
    assert equal(ends[0], ends[2])


def test_a_stream_is_entered_by_micro_batches():
    asked = []

    class Asked:
        def at(self, position):
            asked.append(position)
            return repeat(problem()[1])

    net, _ = problem()
    train.fit(net, train.cross_entropy, Asked(), sgd(net), steps=6, start=4, accumulate=3)
    assert asked == [12]


def test_inputs_may_be_a_dict_of_keywords():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = problem()[0]

        def forward(self, features, scale):
            return self.net(features * scale)

    (x, y), net = problem()[1], Named()
    batch = ({"features": x, "scale": torch.full((32, 1), 2.0)}, y)
    steps = train.fit(net, train.cross_entropy, repeat(batch), sgd(net), steps=3)
    assert steps[-1].loss < steps[0].loss


# a part of the batch


def test_a_part_is_the_first_share_of_every_micro_batch():
    net, (x, y) = problem()
    sizes = []

    def rule(closure, params, t):
        closure.part(0.25)()
        for p in params.values():
            p.grad = None
        return closure()

    def objective(model, batch):
        sizes.append(len(batch[1]))
        return train.cross_entropy(model, batch)

    micro = [(x[:20], y[:20]), ({"input": x[20:]}, y[20:])]
    train.fit(net, objective, micro, sgd(net), steps=1, accumulate=2, gradient=rule)
    assert sizes == [5, 3, 20, 12]


def test_a_part_is_never_empty_and_its_losses_are_watched():
    net, batch = problem()
    with pytest.raises(train.NonFiniteLoss):
        train.fit(net, Bad(at=1), [batch], sgd(net), steps=1, gradient=lambda c, p, t: (c.part(0.001)(), c())[1])


# precision


def test_bf16_keeps_weights_and_gradients_in_float32_and_is_close():
    found = {}
    for precision in ("fp32", "bf16"):
        net, batch = problem()
        adam = torch.optim.Adam(net.parameters(), lr=0.01)
        kinds = set()

        def objective(model, batch, kinds=kinds):
            kinds.add(model[0](batch[0]).dtype)
            return train.cross_entropy(model, batch)

        options = {"steps": 10, "precision": precision, "gradient": flat.sam()}
        found[precision] = [step.loss for step in train.fit(net, objective, repeat(batch), adam, **options)]
        assert kinds == {torch.float32 if precision == "fp32" else torch.bfloat16}
        assert {p.dtype for p in net.parameters()} | {p.grad.dtype for p in net.parameters()} == {torch.float32}
        assert {s["exp_avg"].dtype for s in adam.state.values()} == {torch.float32}
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)  # bfloat16 has 8 bits: 0.4 % a rounding
    assert found["bf16"] != found["fp32"]


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate counts the micro-batches of a step and must be at least 1, got 0"),
        ({"start": -1}, "start counts the steps already done and must be at least 0, got -1"),
        ({"steps": -1}, "steps counts the optimizer steps of the whole run and must be at least 0, got -1"),
        ({"precision": "fp16"}, "precision must be 'fp32' or 'bf16', got 'fp16'"),
        ({"start": 2}, "steps counts those of the whole run, with the 2 already done, and must be no fewer; got 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    net, batch = problem()
    with pytest.raises(ValueError, match=message):
        train.fit(net, train.cross_entropy, [batch], sgd(net), **{"steps": 1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2.0}, r"accumulate counts the micro-batches of a step and is a whole number, got 2\.0"),
        ({"start": None}, "start counts the steps already done and is a whole number, got None"),
        ({"steps": 2.5}, r"steps counts the optimizer steps of the whole run and is a whole number, got 2\.5"),
        ({"lr": None}, r"a number is wanted here, or a schedule, .* such as train\.linear\(\); got None"),
        ({"lr": "0.1"}, "got '0.1'"),
        ({"lr": train.linear}, "got <function linear at .*, which gives <function linear.* at 0"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(options, message):
    net, batch = problem()
    with pytest.raises(TypeError, match=message):
        train.fit(net, train.cross_entropy, [batch] * 9, sgd(net), **{"steps": 1, **options})


def test_what_is_no_optimizer_is_refused():
    net, batch = problem()
    for given in (None, torch.optim.SGD):
        with pytest.raises(TypeError, match=r"optimizer is a torch\.optim\.Optimizer, such as .*; got (None|<class)"):
            train.fit(net, train.cross_entropy, [batch], given, steps=1)


def test_an_optimizer_that_evaluates_by_itself_is_refused():
    net, batch = problem()
    with pytest.raises(TypeError, match="the step of LBFGS asks for the loss at places of its own choice"):
        train.fit(net, train.cross_entropy, [batch], torch.optim.LBFGS(net.parameters()), steps=1)


def test_a_run_that_is_over_goes_no_further():
    net, batch = problem()
    assert train.fit(net, train.cross_entropy, [batch], sgd(net), steps=3, start=3) == []


def test_a_model_that_is_frozen_altogether_is_refused():
    net, batch = problem()
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        train.fit(net, train.cross_entropy, [batch], sgd(net), steps=1)


def test_progress_is_given_to_the_rule():
    net, batch = problem()
    seen = []

    def rule(closure, params, t):
        seen.append(t)
        return closure()

    train.fit(net, train.cross_entropy, repeat(batch), sgd(net), steps=4, start=1, gradient=rule)
    assert seen == [0.25, 0.5, 0.75]


def test_no_step_draws_more_than_its_batches():
    drawn = count()
    batches = (problem()[1] for _ in drawn)
    net, _ = problem()
    train.fit(net, train.cross_entropy, batches, sgd(net), steps=3, accumulate=2)
    assert next(drawn) == 6


@pytest.mark.parametrize(
    ("rule", "seconds", "plain"),
    [
        (None, 40 + 5, 40 + 5),
        (flat.sam(0.1), 80 + 5, 40 + 5),
        (flat.quarter_batch(0.1), 10 + 40 + 5, 40 + 5),  # the pace is that of both passes together
        (
            lambda closure, params, t: (later(7), closure())[1],
            7 + 40 + 5,
            40 + 5,
        ),  # what a rule does itself is its cost
    ],
    ids=["plain", "sam", "quarter_batch", "a rule that works"],
)
def test_a_step_says_what_it_took_and_what_a_plain_one_would_have(rule, seconds, plain, monkeypatch):
    """By a clock of its own: an example takes 1 in a pass, and the optimizer 5."""
    for name in ("loop", "closure"):
        monkeypatch.setattr(import_module(f"trainflat.train.{name}"), "perf_counter", lambda: CLOCK[0])
    net, data = nn.Linear(1, 1), (torch.randn(40, 1), torch.randn(40))
    only = torch.optim.SGD(net.parameters(), lr=0.1)
    only.register_step_pre_hook(lambda *_: later(5))

    def objective(model, batch):
        later(len(batch[1]))
        return train.mean_squared_error(model, batch)

    (step,) = train.fit(net, objective, [data], only, steps=1, gradient=rule)
    assert (step.seconds, step.plain) == pytest.approx((seconds, plain))


CLOCK = [0.0]


def later(seconds: float) -> None:
    CLOCK[0] += seconds


@pytest.mark.parametrize("rule", [flat.sam(rho=0.5), flat.asam(rho=0.5)])
def test_what_is_trained_beside_the_model_gets_the_last_passs_gradient(rule):
    """(w v - 1)^2 with v beside: at w + rho dL/dv is what the descent sees, once and not the sum of both passes."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    beside = nn.Parameter(torch.tensor(3.0))
    sgd = torch.optim.SGD([*model.parameters(), beside], lr=0.0)
    seen = []

    def objective(model, batch):
        seen.append(float(model.weight.detach()))
        return (model(batch[0]) * beside - 1).square().sum()

    train.fit(model, objective, [(torch.ones(1, 1), torch.ones(1))], sgd, steps=1, gradient=rule)
    assert seen[1] != seen[0] == 1.0
    w = seen[1]
    assert beside.grad is not None
    assert float(beside.grad) == pytest.approx(2 * (3 * w - 1) * w, rel=1e-5)


def test_a_group_that_is_not_scheduled_keeps_its_rate():
    model, beside = nn.Linear(1, 1), nn.Parameter(torch.tensor(1.0))
    groups = [{"params": model.parameters()}, {"params": [beside], "lr": 0.5, "scheduled": False}]
    sgd = torch.optim.SGD(groups, lr=1.0)
    rates = [
        [group["lr"] for group in sgd.param_groups]
        for _ in train.loop(
            model, lambda m, b: m(b[0]).sum() * beside, [(torch.ones(1, 1), None)] * 4, sgd, steps=4, lr=train.linear()
        )
    ]
    assert rates == [[1.0, 0.5], [0.75, 0.5], [0.5, 0.5], [0.25, 0.5]]


def test_an_optimizer_of_another_copy_of_the_model_is_refused():
    net, batch = problem()
    adam = torch.optim.Adam(deepcopy(net).parameters())
    with pytest.raises(ValueError, match="has none of the model's parameters.*Make it last, from model.parameters"):
        train.fit(net, train.cross_entropy, [batch], adam, steps=1)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_norm_that_nothing_can_have_is_refused(clip):
    net, batch = problem()
    with pytest.raises(ValueError, match="clip is the largest norm of the gradient and must be above 0"):
        train.fit(net, train.cross_entropy, [batch], torch.optim.SGD(net.parameters(), lr=0.1), steps=1, clip=clip)


@pytest.mark.parametrize("gradient", [flat.sam, flat.plain, "sam", 0.05])
def test_what_is_no_rule_is_refused(gradient):
    net, batch = problem()
    with pytest.raises(
        TypeError, match=r"gradient is a rule, which is called with .closure, params, t., such as flat.sam"
    ):
        train.fit(net, train.cross_entropy, [batch], torch.optim.SGD(net.parameters()), steps=1, gradient=gradient)


def test_a_state_that_is_the_model_s_own_memory_is_not_restored():
    net, _ = problem()
    with pytest.raises(ValueError, match="the model's own memory.*train.snapshot"):
        train.restore(net, net.state_dict())


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (
            nn.CrossEntropyLoss(),
            r"called with the model and a batch, .*; CrossEntropyLoss\(\) takes outputs and labels",
        ),
        (lambda model, batch: 0.5, "a 0-d tensor; this one gave a float"),
        (lambda model, batch: None, "a 0-d tensor; this one gave a NoneType"),
        (lambda model, batch: model(batch[0]), r"a 0-d tensor; this one has shape \(32, 3\)"),
    ],
)
def test_an_objective_that_gives_no_mean_loss_is_told(objective, says):
    net, batch = problem()
    with pytest.raises((TypeError, ValueError), match=says):
        train.fit(net, objective, [batch], sgd(net), steps=1)
