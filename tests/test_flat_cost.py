"""What each rule costs: its passes, counted and promised, and the copies of the weights that it keeps."""

from __future__ import annotations

import gc
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.flat import by_example, cheap, compressed, gradients, variants
from trainflat.testing.problem import problem


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


# cost

S, P = [2] * 10, [1] * 10
PASSES = {
    "plain": (flat.plain(), P),
    "sam": (flat.sam(), S),
    "interval": (flat.interval(), [2, 1, 1, 1, 1] * 2),
    "late": (flat.late(), [1] * 7 + [2] * 3),
    "looksam": (flat.looksam(), [2, 1, 1, 1, 1] * 2),
    "quarter_batch": (flat.quarter_batch(), [1.25] * 10),
    "momentum_sam": (flat.momentum_sam(), P),
    "stale_sam": (flat.stale_sam(), P),
    "noise": (flat.noise(), P),
    "gsam": (flat.gsam(), S),
    "friendly_sam": (flat.friendly_sam(), S),
    "bilateral_sam": (flat.bilateral_sam(), [3] * 10),
    "m_sam": (flat.m_sam(), S),
    "sam_on": (flat.sam_on(), S),
    "last_layers": (flat.last_layers(), S),
    "adasap": (flat.adasap(), S),
    "smoothness_adaptive": (flat.smoothness_adaptive(), S),
    "cram": (flat.cram(), S),
    "cram, every fifth": (flat.cram(every=5), [2, 1, 1, 1, 1] * 2),
    "stale_cram": (flat.stale_cram(), P),
    "default": (flat.default(), P),
    "default, pretrained": (flat.default(pretrained=True), P),
    "dp_sat": (flat.dp_sat(), P),
    "saq": (flat.saq(), S),
    "rho 0": (flat.cram(rho=0.0), P),
}


@pytest.mark.parametrize(("rule", "promised"), PASSES.values(), ids=PASSES)
def test_the_passes_are_those_that_are_promised_and_skipped_ones_do_not_happen(rule, promised):
    net, batch = problem()
    seen = []

    def objective(model, batch):
        seen.append(len(batch[1]))
        return train.cross_entropy(model, batch)

    steps = train.fit(net, objective, repeat(batch), sgd(net), steps=10, gradient=rule)
    assert [step.passes for step in steps] == promised
    assert sum(seen) == sum(promised) * len(batch[1])  # examples that went forward


@pytest.mark.parametrize(("rule", "low", "high"), [(flat.stochastic(), 1.3, 1.7), (flat.adaptive_sam(), 1.2, 1.8)])
def test_a_rule_that_decides_as_it_goes_takes_one_pass_or_two(rule, low, high):
    net, (x, y) = problem()
    batches = [(x[i % 20 : i % 20 + 12], y[i % 20 : i % 20 + 12]) for i in range(100)]
    passes = [step.passes for step in train.fit(net, train.cross_entropy, batches, sgd(net), steps=100, gradient=rule)]
    assert set(passes) == {1, 2}
    assert low < np.mean(passes) < high


COPIES = {
    1: ("sam", "asam", "interval", "late", "stochastic", "adaptive_sam", "quarter_batch", "noise", "adasap", "last_layers",
        "default", "delta_sam", "esam", "saq", "stale_cram", "stale_sam"),
    2: ("looksam", "momentum_sam", "gsam", "friendly_sam", "bilateral_sam", "cram", "m_sam", "smoothness_adaptive", "dp_sat"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "copies"), [(name, copies) for copies, names in COPIES.items() for name in names])
def test_beside_weights_and_gradients_no_more_copies_are_alive_during_a_pass_than_promised(name, copies):
    size, extra = 97 * 89, []

    class Net(nn.Linear):
        def forward(self, x):
            """Counts distinct memories of the weights' size; the pass will add a gradient unless there is one to add to."""
            tensors = [x for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter) and x.numel() == size]
            alive = {x.untyped_storage().data_ptr() for x in tensors}
            extra.append(len(alive) - (1 if self.weight.grad is None else 2))
            return super().forward(x).sum(1)

    often = {"interval": {"k": 1}, "late": {"t0": 0.0}, "looksam": {"k": 2}}.get(name, {})
    gc.collect()
    gc.freeze()  # what is there already is not asked each time
    net, batch = Net(97, 89, bias=False), (torch.randn(8, 97), torch.randn(8))
    only = torch.optim.SGD(net.parameters(), lr=0.001)
    try:
        train.fit(net, train.mean_squared_error, [batch] * 3, only, steps=3, gradient=getattr(flat, name)(**often))
    finally:
        gc.unfreeze()
    assert max(extra) == copies


def test_every_rule_promises_its_copies_and_its_passes():
    homes = (gradients, cheap, variants, compressed, by_example)
    rules = {name for home in homes for name in home.__all__} | {"default"}
    assert {name for names in COPIES.values() for name in names} == rules - {
        "plain",
        "sam_on",
    }  # sam_on: of norm layers alone
    assert rules - {"asam", "stochastic", "adaptive_sam", "delta_sam", "esam"} <= PASSES.keys()
    # the first three decide as they go; the others have a forward pass alone, see test_flat_by_example
