"""A check that never fails proves nothing: each law is broken here on purpose."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from trainflat import flat, testing, train


def forward_again(params, change):
    """Weights moved by ``change(p)`` (a tensor), in place."""
    with torch.no_grad():
        for p in params.values():
            if p.grad is not None:
                p.add_(change(p))


def adds_and_subtracts():
    def rule(closure, params, t):
        loss = closure()
        moves = {p: 0.05 * p.grad for p in params.values() if p.grad is not None}
        forward_again(params, lambda p: moves[p])
        forward_again(params, lambda p: -moves[p])
        return loss

    return rule


def restores_unless_it_fails():
    def rule(closure, params, t):
        loss = closure()
        kept = {p: p.detach().clone() for p in params.values()}
        forward_again(params, lambda p: 0.05 * p.grad)
        for p in params.values():
            p.grad = None
        closure()
        with torch.no_grad():
            for p, w in kept.items():
                p.copy_(w)
        return loss

    return rule


def is_plain_at_first(rule):
    """Harmless in the first step, as a rule that goes by the step before, which it keeps in its state."""

    class Later:
        def __init__(self):
            self.steps, self.first, self.later = 0, flat.plain(), rule()

        def __call__(self, closure, params, t):
            self.steps += 1
            return (self.first if self.steps == 1 else self.later)(closure, params, t)

        def state_dict(self):
            return {"steps": torch.tensor(self.steps)}

        def load_state_dict(self, state):
            self.steps = int(state["steps"])

    return Later


def swallows_errors():
    def rule(closure, params, t):
        try:
            return closure()
        except Exception:
            return torch.zeros(())

    return rule


def moves_everything_at_random():
    def rule(closure, params, t):
        kept = {p: p.detach().clone() for p in params.values()}
        try:
            with torch.no_grad():
                for p in params.values():
                    p.add_(0.01 * torch.randn_like(p))
            return closure()
        finally:
            with torch.no_grad():
                for p, w in kept.items():
                    p.copy_(w)

    return rule


def fills_pruned_gradients():
    def rule(closure, params, t):
        loss = closure()
        for p in params.values():
            if p.grad is not None:
                p.grad += 1e-3
        return loss

    return rule


def takes_the_largest_micro_batch():
    def rule(closure, params, t):
        loss = closure()
        for p in params.values():
            if p.grad is not None:
                p.grad *= len(getattr(closure, "micro", [0]))
        return loss

    return rule


def forgets_its_memory_on_disk():
    last = {}

    def rule(closure, params, t):
        loss = closure()
        for name, p in params.items():
            if p.grad is not None:
                p.grad = last[name] = p.grad + 0.5 * last.get(name, 0)
        return loss

    return rule


def divides_by_the_norm():
    def rule(closure, params, t):
        loss = closure()
        norm = sum(p.grad.norm() for p in params.values() if p.grad is not None)
        for p in params.values():
            if p.grad is not None:
                p.grad /= norm
        return loss

    return rule


def returns_a_graph():
    return lambda closure, params, t: closure().requires_grad_()


def fills_nothing():
    return lambda closure, params, t: torch.zeros(())


def needs_every_gradient():
    def rule(closure, params, t):
        loss = closure()
        for p in params.values():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad += 0 if p.grad.any() else 1
        return loss

    return rule


def keeps_what_autocast_cast():
    def rule(closure, params, t):
        loss = closure()
        own = {p: p.data for p in params.values()}
        try:
            for p in params.values():
                if p.grad is not None:
                    p.data, p.grad = p.data + 0.1 * p.grad, None
            closure()
        finally:
            for p, data in own.items():
                p.data = data
        return loss

    return rule


class Poisoned:
    """The average of all gradients so far, which one bad batch spoils for good."""

    def __init__(self):
        self.mean = {}

    def __call__(self, closure, params, t):
        loss = closure()
        for name, p in params.items():
            if p.grad is not None:
                p.grad = self.mean[name] = 0.5 * p.grad + 0.5 * self.mean.get(name, torch.zeros_like(p))
        return loss

    def state_dict(self):
        return dict(self.mean)

    def load_state_dict(self, state):
        self.mean = dict(state)


def draws_without_radius(rho=0.05):
    def rule(closure, params, t):
        torch.rand(1)
        return closure()

    return rule


def ascends_on_a_part():
    def rule(closure, params, t):
        closure.part(0.25)()
        for p in params.values():
            p.grad = None
        return closure()

    return rule


@pytest.mark.parametrize(
    ("rule", "law"),
    [
        (adds_and_subtracts, "leaves every weight bit for bit"),
        (restores_unless_it_fails, "also when the closure raises in pass 2"),
        (is_plain_at_first(restores_unless_it_fails), "step 2.*also when the closure raises in pass 2"),
        (is_plain_at_first(adds_and_subtracts), "leaves every weight bit for bit as it was .*step 2"),
        (swallows_errors, "lets the closure's error through"),
        (moves_everything_at_random, "never perturbed"),
        (fills_pruned_gradients, "stays exactly zero under SGD"),
        (takes_the_largest_micro_batch, "four micro-batches equal the large batch"),
        (forgets_its_memory_on_disk, "resuming equals never stopping"),
        (divides_by_the_norm, "a gradient of zero gives no NaN"),
        (is_plain_at_first(divides_by_the_norm), "a gradient of zero gives no NaN"),
        (keeps_what_autocast_cast, "called inside autocast a rule gives what it gives with autocast inside"),
        (Poisoned, "a rule recovers from one bad batch"),
        (returns_a_graph, "without a graph"),
        (fills_nothing, "fills every gradient"),
        (needs_every_gradient, "does not use gets no gradient"),
        (draws_without_radius, "rho = 0 is plain"),
    ],
)
def test_a_rule_that_breaks_a_law_is_told_which(rule, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_gradient(rule)


def test_evaluation_that_shifts_the_run_is_noticed(monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda *args: torch.rand(1))
    with pytest.raises(AssertionError, match="evaluating between two steps changes nothing"):
        testing.check_gradient(flat.plain)


def test_a_rule_that_asks_for_a_part_is_checked_with_one():
    with pytest.raises(AttributeError, match="part"):
        testing.check_gradient(ascends_on_a_part)
    testing.check_gradient(ascends_on_a_part, parts=True)


def test_the_large_batch_law_can_be_waived():
    testing.check_gradient(takes_the_largest_micro_batch, large_batch=False)


def test_a_check_leaves_the_random_stream_alone():
    before = torch.get_rng_state()
    testing.check_gradient(flat.sam)
    assert torch.equal(torch.get_rng_state(), before)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changes_the_model(model):
    model[0].weight.data.mul_(2)
    return weights(model)


def changes_the_mode(model):
    model.eval()
    return weights(model)


@pytest.mark.parametrize(
    ("score", "law"),
    [
        (lambda model: {}, "every matrix has a score"),
        (lambda model: {name: p.sum() for name, p in weights(model).items()}, "the parameter's shape"),
        (lambda model: {name: p / 0 * 0 for name, p in weights(model).items()}, "holds NaN"),
        (lambda model: {name: p.abs() for name, p in model.named_parameters()}, "carries no graph"),
        (lambda model: {name: p + id(model) % 997 for name, p in weights(model).items()}, "equal models"),
        (lambda model: {name: torch.rand_like(p) for name, p in weights(model).items()}, "random numbers were drawn"),
        (changes_the_model, "a score only looks: weights changed"),
        (changes_the_mode, "the training mode changed"),
    ],
)
def test_a_score_that_breaks_a_law_is_told_which(score, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_score(score)


class Noisy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = deepcopy(model)

    def forward(self, x):
        return self.model(x) + 0.001 * torch.rand(1)


def rounded(model, levels=127, outputs=3):
    small = deepcopy(model)
    with torch.no_grad():
        for p in small.parameters():
            scale = p.abs().max().clamp_min(1e-9) / levels
            p.copy_((p / scale).round() * scale)
    return nn.Sequential(small, nn.AdaptiveAvgPool1d(outputs)) if outputs != 3 else small


def in_place(model):
    for p in model.parameters():
        p.data.zero_()
    return model


@pytest.mark.parametrize(
    ("quantizer", "law"),
    [
        (lambda model: model, "gave back the one it got"),
        (in_place, "a quantizer makes another model: weights changed"),
        (partial(rounded, levels=1), "within 0.1"),
        (partial(rounded, outputs=2), "keep their shape"),
        (Noisy, "random numbers were drawn"),
    ],
)
def test_a_quantizer_that_breaks_a_law_is_told_which(quantizer, law):
    testing.check_quantizer(rounded)
    with pytest.raises(AssertionError, match=law):
        testing.check_quantizer(quantizer)


def remembers():
    calls = []

    def schedule(t):
        calls.append(t)
        return float(len(calls))

    return schedule


@pytest.mark.parametrize(
    ("schedule", "law"), [(lambda t: float("nan"), "finite"), (lambda t: None, "finite"), (remembers(), "no memory")]
)
def test_a_schedule_that_breaks_a_law_is_told_which(schedule, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_schedule(schedule)


class Blobs:
    """The smallest task: two clouds of points."""

    name, head, steps_per_epoch = "blobs", ("head.",), 4

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.y = torch.randint(0, 2, (32,), generator=generator)
        self.x = torch.randn(32, 5, generator=generator) + self.y[:, None]

    def model(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential()
            net.add_module("body", nn.Linear(5, 8))
            net.add_module("drop", nn.Dropout(0.5))
            net.add_module("head", nn.Linear(8, 2))
        return net

    def objective(self, model, batch):
        return train.cross_entropy(model, batch)

    def batches(self, seed):
        return train.Stream(32, 8, lambda i: (self.x[i], self.y[i]), seed=seed)

    def evaluate(self, model):
        return train.evaluate(model, [(self.x, self.y)], lambda z, y: {"accuracy": float((z.argmax(-1) == y).mean())})

    def held_out_batches(self, first=None):
        return [(self.x[:first], self.y[:first])]

    def prunable(self, name, parameter):
        return name == "body.weight"

    def inputs(self, size=32):
        return self.x[:size]


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"model": lambda self, seed: nn.Linear(5, 2)}, "the seed decides the model"),
        ({"head": ("classifier",)}, "the head names parameters"),
        ({"prunable": lambda self, name, p: False}, "something is prunable"),
        ({"prunable": lambda self, name, p: p.ndim == 2}, "the head is not prunable"),
        ({"batches": lambda self, seed: [(self.x, self.y)] * 2}, "batches have no end"),
        (
            {"batches": lambda self, seed: Blobs.batches(self, int(torch.randint(99, ())))},
            "the seed decides the batches",
        ),
        ({"batches": lambda self, seed: Blobs.batches(self, 0)}, "another seed gave the same"),
        ({"objective": lambda self, model, batch: model(batch[0])}, "finite 0-d loss"),
        ({"objective": lambda self, model, batch: torch.zeros(())}, "a graph"),
        ({"evaluate": lambda self, model: {"accuracy": 91.0}}, r"in \[-1, 1\]"),
        ({"evaluate": lambda self, model: {"accuracy": float(torch.rand(()))}}, "evaluating leaves no trace"),
        ({"evaluate": lambda self, model: model.eval() and {"accuracy": 1.0}}, "the training mode changed"),
        ({"evaluate": lambda self, model: {}}, "floats by name"),
        ({"held_out_batches": lambda self, first=None: [(self.x, self.y)]}, "so many examples"),
        ({"held_out_batches": lambda self, first=None: self.batches(0).at(0) and []}, "the same at every call"),
        ({"inputs": lambda self, size=32: self.x}, "inputs"),
        ({"name": ""}, "a name"),
        ({"inputs": property()}, "all its parts: not inputs"),
    ],
)
def test_a_task_that_breaks_a_law_is_told_which(change, law):
    testing.check_task(Blobs())
    with pytest.raises(AssertionError, match=law):
        testing.check_task(type("Broken", (Blobs,), change)())


# what is checked


@pytest.mark.parametrize(
    ("check", "given", "message"),
    [
        (
            testing.check_gradient,
            flat.sam(),
            r"which it calls anew .* such as flat.sam or .*; got Rule\(radius=",
        ),
        (testing.check_gradient, flat.plain(), "a check takes what makes one, .*; got <function plain"),
        (testing.check_gradient, "sam", "a check takes what makes one, .*; got 'sam'"),
        (testing.check_average, flat.swa(), "such as flat.swa or .*; got swa of"),
        (
            testing.check_score,
            {"0.weight": torch.ones(1)},
            "this checks compress.magnitude, a function .*; got {'0.weight",
        ),
        (testing.check_quantizer, nn.Linear(1, 1), "this checks compress.dynamic_int8, a function .*; got Linear"),
        (testing.check_schedule, 0.1, r"a function from progress to a number, such as train.linear\(\); got 0.1"),
    ],
)
def test_what_a_check_is_not_made_for_is_told(check, given, message):
    with pytest.raises(TypeError, match=message):
        check(given)
