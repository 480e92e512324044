"""Gradients that last: a rule that remembers them keeps them instead of copies, where nobody else writes into them."""

from __future__ import annotations

from functools import partial
from itertools import repeat

import pytest
import torch
from torch import nn, optim

from trainflat import flat, train
from trainflat.testing.problem import problem

OPTIMIZERS = {
    "Adadelta": optim.Adadelta,
    "Adafactor": optim.Adafactor,
    "Adagrad": optim.Adagrad,
    "Adagrad, fused": partial(optim.Adagrad, fused=True),
    "Adam": optim.Adam,
    "Adam, amsgrad, decay": partial(optim.Adam, amsgrad=True, weight_decay=0.1),
    "Adam, fused": partial(optim.Adam, fused=True, weight_decay=0.1),
    "Adam, maximize": partial(optim.Adam, maximize=True, weight_decay=0.1),
    "AdamW": partial(optim.AdamW, weight_decay=0.1),
    "AdamW, fused": partial(optim.AdamW, fused=True),
    "Adamax": optim.Adamax,
    "ASGD": partial(optim.ASGD, weight_decay=0.1),
    "NAdam": partial(optim.NAdam, weight_decay=0.1),
    "RAdam": partial(optim.RAdam, weight_decay=0.1),
    "RMSprop": partial(optim.RMSprop, momentum=0.9, centered=True),
    "Rprop": optim.Rprop,
    "SGD": partial(optim.SGD, lr=0.1),
    "SGD, nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD, fused": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, fused=True),
}


def trained(make, rule, **options):
    net, batch = problem()
    train.fit(net, train.cross_entropy, repeat(batch), make(net.parameters()), steps=6, gradient=rule, **options)
    return net.state_dict()


def copying(rule):
    def gradient(closure, params, t):
        closure.lasting = False
        return rule(closure, params, t)

    return gradient


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_of_torchs_leaves_gradients_as_they_are_and_lets_go_of_them(make):
    net, (x, y) = problem()
    optimizer = make(net.parameters())
    for _ in range(3):  # some begin differently
        nn.functional.cross_entropy(net(x), y).backward()
        before = [p.grad.clone() for p in net.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))
        optimizer.zero_grad()
        assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("rule", [flat.stale_sam, flat.dp_sat], ids=["stale_sam", "dp_sat"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_keeping_them_is_copying_them_bit_for_bit(make, rule):
    kept, copied = trained(make, rule(0.1)), trained(make, copying(rule(0.1)))
    assert all(torch.equal(kept[name], copied[name]) for name in kept)


class Writes(optim.SGD):
    """What the gradient is after the step is no gradient."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.zero_()


WRITING = {
    "an optimizer of one's own": (partial(Writes, lr=0.1), {}),
    "foreach": (partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=True), {}),
    "clipped": (partial(optim.SGD, lr=0.1), {"clip": 1e-2}),
}


@pytest.mark.parametrize(("make", "options"), WRITING.values(), ids=WRITING)
def test_where_others_write_into_them_they_are_copied(make, options):
    found = trained(make, flat.stale_sam(0.5), **options)
    copied = trained(make, copying(flat.stale_sam(0.5)), **options)
    plain = trained(make, flat.plain(), **options)
    assert all(torch.equal(found[name], copied[name]) for name in found)
    assert not all(torch.equal(found[name], plain[name]) for name in found)


def test_the_memory_is_the_gradients_own():
    net, batch = problem()
    rule, sgd = flat.stale_sam(), optim.SGD(net.parameters(), lr=0.1)
    for _ in train.loop(net, train.cross_entropy, repeat(batch), sgd, steps=3, gradient=rule):
        kept = rule.state_dict()["direction"]
        assert all(kept[name] is p.grad for name, p in net.named_parameters())
