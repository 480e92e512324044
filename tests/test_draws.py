"""Random vectors as large as the weights: what they are, and where they lie."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from trainflat import compress, flat, tasks
from trainflat.flat.draws import Noise, fill_with_noise, fill_with_signs
from trainflat.flat.metrics import norm

FILLS = [fill_with_signs, fill_with_noise]


@pytest.mark.parametrize("fill", FILLS)
def test_entries_are_independent_with_mean_0_and_variance_1(fill):
    n, draws = 130, 20_000  # not a multiple of 64: bits of three integers a draw
    x = torch.empty(draws, n)
    fill({str(i): row for i, row in enumerate(x)}, seed=1)
    bound = 5 / draws**0.5  # five standard errors of a mean
    assert x.mean(0).abs().max() < bound
    covariance = x.T @ x / draws - torch.eye(n)
    assert covariance.abs().max() < bound * 2**0.5  # of a normal number's square the variance is 2


@pytest.mark.parametrize(
    "like",
    [
        torch.empty(7),
        torch.empty(3, 5, 16),
        torch.empty(64, dtype=torch.bfloat16),
        torch.empty(8, 4, 2, 2).to(memory_format=torch.channels_last),
        torch.empty(5, 16, dtype=torch.float64).T,
        torch.empty(0),
        torch.empty(()),
    ],
)
def test_signs_are_minus_1_or_1_in_every_shape_and_the_same_for_the_same_seed(like):
    one, again, other = (torch.empty_like(like) for _ in range(3))
    fill_with_signs({"x": one}, seed=3)
    fill_with_signs({"x": again}, seed=3)
    fill_with_signs({"a": torch.empty(64), "x": other}, seed=3)
    assert one.abs().eq(1).all()
    assert torch.equal(one, again)
    assert one.numel() < 16 or not torch.equal(one, other)


def test_every_bit_of_an_integer_is_drawn():
    x = torch.empty(64 * 1000)
    fill_with_signs({"x": x}, seed=0)
    assert x.view(1000, 64).mean(0).abs().max() < 5 / 1000**0.5


def test_the_smoothed_loss_is_that_of_the_second_order():
    """L = sum c_i w_i^2 / 2: at w + e and w - e on average L(w) + rho^2 sum(c) / 2n, exactly, whatever the signs are."""
    c, w, rho = torch.rand(50, dtype=torch.float64), nn.Parameter(torch.randn(50, dtype=torch.float64)), 3.0
    reached = []

    def closure():
        reached.append(w.detach().clone())
        loss = (c * w**2).sum() / 2
        loss.backward()
        return loss.detach()

    flat.noise(rho)(closure, {"w": w}, 0.0)
    e = reached[0] - w.detach()
    mean = sum((c * (w.detach() + sign * e) ** 2).sum() / 2 for sign in (-1, 1)) / 2
    assert torch.isclose(mean, (c * w.detach() ** 2).sum() / 2 + rho**2 * c.sum() / 2 / 50, rtol=1e-12)
    assert torch.isclose(e.norm(), torch.tensor(rho, dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize("entries", ["signs", "normal"])
def test_the_noise_of_the_next_step_lies_where_the_last_step_s_point_lay(entries):
    w, seen = nn.Parameter(torch.zeros(64)), []

    def closure():
        w.grad = None
        seen.append(w.data_ptr())
        loss = (w**2).sum()
        loss.backward()
        return loss.detach()

    rule, own = flat.noise(entries=entries), w.data_ptr()
    for _ in range(3):
        rule(closure, {"w": w}, 0.0)
    assert len(set(seen)) == 1
    assert own not in seen
    assert w.data_ptr() == own
    assert not w.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("task", [tasks.digits, tasks.docstrings])
def test_the_known_length_of_signs_is_the_one_that_would_be_found_by_reading_them(task, dtype):
    params = dict(task().model(seed=0).to(dtype).named_parameters())
    direction = Noise()
    vectors = direction.vectors(params, step=0)
    assert torch.equal(direction.length, norm(list(vectors.values())))


def test_pruned_weights_do_not_count_in_the_length_of_the_noise():
    net, reached = nn.Linear(8, 8, bias=False), []

    def closure():
        net.zero_grad()
        reached.append(net.weight.detach().clone())
        loss = net(torch.ones(8)).sum()
        loss.backward()
        return loss.detach()

    rule, dense = flat.noise(rho=2.0), compress.Mask.dense(net, where=lambda name, p: True)
    quarter = compress.prune(compress.magnitude(net), 0.75, within=dense)
    for mask, moved in ((dense, 64), (quarter, 16), (None, 64)):
        with mask.on(net) if mask else nullcontext():
            rule(closure, dict(net.named_parameters()), 0.0)
            way = reached[-1] - net.weight
            assert way.count_nonzero() == moved
            assert torch.isclose(way.norm(), torch.tensor(2.0))


def test_other_entries_are_refused():
    with pytest.raises(ValueError, match="entries must be 'signs' or 'normal', got 'uniform'"):
        Noise("uniform")  # type: ignore[arg-type]
