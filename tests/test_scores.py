from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from trainflat import compress, testing
from trainflat.compress import Mask, magnitude, prune, scores

SCORES = {name: getattr(scores, name) for name in scores.__all__}


def test_every_score_is_public():
    assert len(SCORES) >= 2
    assert all(getattr(compress, name) is score for name, score in SCORES.items())


@pytest.mark.parametrize("score", [*SCORES.values(), partial(compress.random, seed=7)])
def test_a_score_obeys_the_laws(score):
    testing.check_score(score)


def test_magnitude_is_the_absolute_weight():
    net = nn.Linear(5, 3)
    assert all(torch.equal(tensor, dict(net.named_parameters())[name].abs()) for name, tensor in magnitude(net).items())


def test_magnitude_kills_the_smallest_weights():
    net = nn.Linear(50, 40)
    mask = prune(magnitude(net), 0.7, within=Mask.dense(net, lambda name, p: p.ndim == 2))
    weight = net.weight.detach().abs()
    assert weight[~mask["weight"]].max() < weight[mask["weight"]].min()


def test_random_scores_are_decided_by_seed_and_name_alone():
    a, b = nn.Linear(4, 3), nn.Linear(4, 3)
    assert torch.equal(compress.random(a)["weight"], compress.random(b)["weight"])
    assert not torch.equal(compress.random(a)["weight"], compress.random(a, seed=1)["weight"])
    wide = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    found = compress.random(wide)
    assert not torch.equal(found["0.weight"], found["1.weight"])


def test_random_scores_are_uniform_and_prune_every_layer_alike():
    net = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 200))
    with torch.no_grad():
        net[0].weight.mul_(100)  # magnitude would kill only the other layer
    mask = prune(compress.random(net), 0.5, within=Mask.dense(net, lambda name, p: p.ndim == 2))
    shares = [float(alive.float().mean()) for alive in mask.values()]
    assert shares == pytest.approx([0.5, 0.5], abs=0.02)  # 20,000 draws each: s.d. 0.0035
