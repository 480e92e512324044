"""What each rule computes: its formula by numpy, and its closest simpler rule in the limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.experiments.recipe import read
from trainflat.experiments.resolve import Spec, build
from trainflat.flat.combine import Summed
from trainflat.testing.problem import equal, problem

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


# the closest simpler rule

LIMITS = {
    "interval, k = 1": (flat.interval(0.3, k=1), flat.sam(0.3)),
    "late from 0 on": (flat.late(0.3, t0=0.0), flat.sam(0.3)),
    "late from 1 on": (flat.late(0.3, t0=1.0), flat.plain()),
    "stochastic, p = 1": (flat.stochastic(0.3, p=1.0), flat.sam(0.3)),
    "stochastic, p = 0": (flat.stochastic(0.3, p=0.0), flat.plain()),
    "adaptive_sam, threshold -inf": (flat.adaptive_sam(0.3, start=-INF, end=-INF), flat.sam(0.3)),
    "adaptive_sam, threshold inf": (flat.adaptive_sam(0.3, start=INF, end=INF), flat.plain()),
    "quarter_batch, all of it": (flat.quarter_batch(0.3, fraction=1.0), flat.sam(0.3)),
    "looksam, k = 1": (flat.looksam(0.3, k=1), flat.sam(0.3)),
    "looksam, nothing reused": (flat.looksam(0.3, k=3, alpha=0.0), flat.interval(0.3, k=3)),
    "momentum_sam up without memory": (flat.momentum_sam(0.3, decay=0.0, sign=1), flat.stale_sam(0.3)),
    "gsam, alpha = 0": (flat.gsam(0.3, alpha=0.0), flat.sam(0.3)),
    "friendly_sam, sigma = 0": (flat.friendly_sam(0.3, sigma=0.0), flat.sam(0.3)),
    "m_sam, one piece": (flat.m_sam(0.3, pieces=1), flat.sam(0.3)),
    "esam, all examples and parameters": (flat.esam(0.3, share=1.0, p=1.0), flat.sam(0.3)),
    "dp_sat without privacy": (flat.dp_sat(0.3, clip=INF, noise=0.0), flat.stale_sam(0.3)),
    "dp_sat without privacy and radius": (flat.dp_sat(0.0, clip=INF, noise=0.0), flat.plain()),
    "last_layers, all of them": (flat.last_layers(0.3, count=99), flat.sam(0.3)),
    "cram, nothing pruned": (flat.cram(0.3, sparsity=[0, 0]), flat.compose(0.3, combine=Summed())),
    "cram that has grown": (flat.cram(0.3, sparsity=[0.5, 0.5], grow=1.0), flat.cram(0.3, sparsity=[0.5, 0.5])),
    "stale_cram, nothing pruned": (flat.stale_cram(0.3, sparsity=[0, 0], every=1), flat.stale_sam(0.3)),
    "stale_cram, too seldom": (flat.stale_cram(0.3, every=99), flat.plain()),
    "default": (flat.default(0.3), flat.stale_cram(0.3)),
    "default, pretrained": (flat.default(0.3, pretrained=True), flat.stale_sam(0.3)),
}


@pytest.mark.parametrize(("rule", "simpler"), LIMITS.values(), ids=LIMITS)
def test_in_the_limit_a_rule_is_its_closest_simpler_one_bit_for_bit(rule, simpler):
    found = trained(rule)
    assert equal(found, trained(simpler))


def test_the_third_arm_of_quickstart_is_the_default_rule():
    arms = read("quickstart").document["sweep"]["optimizer"]
    (spec,) = (arm["gradient"] for name, arm in arms.items() if name not in ("Adam", "SAM"))
    assert equal(trained(build(Spec.parse(spec, "gradient"), ["trainflat.flat"])), trained(flat.default()))


def test_sam_on_a_model_of_norm_layers_alone_is_sam():
    found = []
    for rule in (flat.sam_on(0.3), flat.sam(0.3)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6))
        found.append(trained(rule, net=net))
    assert equal(*found)


def test_quantized_finely_saq_is_nearly_sam():
    for perturb in ("quantized", "latent"):
        close = trained(flat.saq(0.3, bits=16, perturb=perturb), dropout=0.0)
        for name, tensor in trained(flat.sam(0.3), dropout=0.0).items():
            torch.testing.assert_close(close[name], tensor, rtol=0, atol=2e-4)


def test_the_last_weights_of_two_equal_halves_are_sams():
    """m-SAM on a batch whose pieces are the same has the same ball twice."""
    found = []
    for rule in (flat.m_sam(0.3, pieces=2), flat.sam(0.3)):
        net, (x, y) = problem(torch.float64)
        train.fit(net, train.cross_entropy, [(x.repeat(2, 1), y.repeat(2))] * 3, sgd(net), steps=3, gradient=rule)
        found.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


# brute force: a quadratic 0.5 w'Aw + c'w with another c in each step, five steps of gradient descent in numpy

STEPS, LR = 5, 0.1
RANDOM = np.random.default_rng(0)
HALF = RANDOM.normal(size=(8, 8))
CURVATURE = HALF @ HALF.T / 8
TILTS = RANDOM.normal(size=(STEPS, 8))
START = RANDOM.normal(size=8)


def unit(v):
    return v / np.linalg.norm(v)


def by_torch(rule):
    """The gradients that a rule gives in five steps; the weights are those of a linear layer, 2 x 3 and 2."""
    net = nn.Linear(3, 2).double()
    nn.utils.vector_to_parameters(torch.from_numpy(START.copy()), net.parameters())
    found, params = [], dict(net.named_parameters())
    for step in range(STEPS):

        def closure(step=step):
            w = nn.utils.parameters_to_vector(net.parameters())
            loss = 0.5 * w @ torch.from_numpy(CURVATURE) @ w + torch.from_numpy(TILTS[step]) @ w
            loss.backward()
            return loss.detach()

        closure.model = net
        rule(closure, params, step / STEPS)
        found.append(torch.cat([p.grad.flatten() for p in params.values()]).numpy().copy())
        with torch.no_grad():
            for p in params.values():
                p.sub_(LR * p.grad)
                p.grad = None
    return np.array(found)


def by_numpy(step_of):
    """The same from ``step_of(w, gradient, step, memory) -> result``."""
    w, memory, found = START.copy(), {}, []
    for step in range(STEPS):
        result = step_of(w, lambda at, step=step: CURVATURE @ at + TILTS[step], step, memory)
        found.append(result)
        w = w - LR * result
    return np.array(found)


def interval(w, gradient, step, memory):
    g = gradient(w)
    return gradient(w + 0.3 * unit(g)) if step % 2 == 0 else g


def looksam(w, gradient, step, memory):
    g = gradient(w)
    if step % 2 == 0:
        there = gradient(w + 0.3 * unit(g))
        memory["v"] = there - there @ unit(g) * unit(g)
        return there
    return g + 0.7 * np.linalg.norm(g) * unit(memory["v"])


def momentum_sam(w, gradient, step, memory):
    g = gradient(w - 0.3 * unit(memory["m"]) if memory else w)
    memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
    return g


def stale_sam(w, gradient, step, memory):
    memory["g"] = gradient(w + 0.3 * unit(memory["g"]) if memory else w)
    return memory["g"]


def adaptive_sam(w, gradient, step, memory):
    g = gradient(w)
    square = g @ g
    mean = 0.5 * memory.get("mean", square) + 0.5 * square
    variance = 0.5 * memory.get("variance", 0) + 0.5 * (square - mean) ** 2
    memory |= {"mean": mean, "variance": variance}
    c = 1 - 2 * step / STEPS
    return gradient(w + 0.3 * unit(g)) if square >= mean + c * math.sqrt(variance) else g


def gsam(w, gradient, step, memory):
    g = gradient(w)
    there = gradient(w + 0.3 * unit(g))
    return there - 0.4 * (g - g @ unit(there) * unit(there))


def friendly_sam(w, gradient, step, memory):
    g = gradient(w)
    d = g - 0.9 * memory["m"] if memory else g
    memory["m"] = 0.6 * memory["m"] + 0.4 * g if memory else g
    return gradient(w + 0.3 * unit(d))


def bilateral_sam(w, gradient, step, memory):
    g = gradient(w)
    there, back = gradient(w + 0.3 * unit(g)), gradient(w - 0.3 * unit(g))
    return there + g - back


def adasap(w, gradient, step, memory):
    g, e = gradient(w)[:6].reshape(2, 3), np.zeros(8)
    rows, scale = w[:6].reshape(2, 3), np.abs(w[:6].reshape(2, 3)) + 0.01
    size = np.linalg.norm(rows, axis=1)
    radius = 0.5 - (size - size.min()) / (size.max() - size.min()) * (0.5 - 0.05)
    for i in range(2):
        e[3 * i : 3 * i + 3] = radius[i] * scale[i] ** 2 * g[i] / np.linalg.norm(scale[i] * g[i])
    return gradient(w + e)


def smoothness_adaptive(w, gradient, step, memory):
    g = gradient(w)
    s = memory["s"] if memory else 0.3 / np.linalg.norm(g)
    there = gradient(w + s * g)
    growth = math.sqrt(1 + memory["growth"]) if memory else INF
    new = min(growth * s, np.linalg.norm(s * g) / (2 * np.linalg.norm(there - g)))
    memory |= {"s": new, "growth": new / s}
    return there


def cram(w, gradient, step, memory):
    g = gradient(w)
    there = w + 0.3 * unit(g)
    there[np.argsort(np.abs(there[:6]))[:3]] = 0
    return g + gradient(there)


def cram_sparse(w, gradient, step, memory):
    there = w + 0.3 * unit(gradient(w))
    there[np.argsort(np.abs(there[:6]))[:3]] = 0
    kept = np.ones_like(w)
    kept[:6] = there[:6] != 0
    return gradient(w) + kept * gradient(there)


def stale_cram(w, gradient, step, memory):
    there = w.copy()
    if step % 2 == 0 and memory:
        there += 0.3 * unit(memory["g"])
        there[np.argsort(np.abs(there[:6]))[:3]] = 0
    memory["g"] = gradient(there)
    return memory["g"]


def quantize(w):
    w = w.copy()
    for row in w[:6].reshape(2, 3):
        scale = np.abs(row).max() / 7
        row[:] = np.round(row / scale) * scale
    return w


def saq(w, gradient, step, memory):
    q = quantize(w)
    return gradient(q + 0.3 * unit(gradient(q)))


def saq_latent(w, gradient, step, memory):
    return gradient(quantize(w + 0.3 * unit(gradient(w))))


BRUTE = {
    "interval": (flat.interval(0.3, k=2), interval),
    "looksam": (flat.looksam(0.3, k=2), looksam),
    "momentum_sam": (flat.momentum_sam(0.3, decay=0.8), momentum_sam),
    "stale_sam": (flat.stale_sam(0.3), stale_sam),
    "adaptive_sam": (flat.adaptive_sam(0.3, decay=0.5), adaptive_sam),
    "gsam": (flat.gsam(0.3), gsam),
    "friendly_sam": (flat.friendly_sam(0.3, sigma=0.9, decay=0.6), friendly_sam),
    "bilateral_sam": (flat.bilateral_sam(0.3), bilateral_sam),
    "adasap": (flat.adasap(0.5, lowest=0.1), adasap),
    "smoothness_adaptive": (flat.smoothness_adaptive(0.3), smoothness_adaptive),
    "cram": (flat.cram(0.3, sparsity=(0.5, 0.5)), cram),
    "cram, sparse gradient": (flat.cram(0.3, sparsity=(0.5, 0.5), sparse_grad=True), cram_sparse),
    "stale_cram": (flat.stale_cram(0.3, sparsity=(0.5, 0.5), every=2), stale_cram),
    "saq": (flat.saq(0.3, bits=4), saq),
    "saq, latent": (flat.saq(0.3, bits=4, perturb="latent"), saq_latent),
}


@pytest.mark.parametrize(("rule", "formula"), BRUTE.values(), ids=BRUTE)
def test_five_steps_equal_the_formula_in_numpy(rule, formula):
    np.testing.assert_allclose(by_torch(rule), by_numpy(formula), rtol=1e-9, atol=1e-10)


def test_adaptive_sam_takes_some_steps_and_leaves_others():
    """Or the brute force above would show nothing."""
    taken = by_numpy(adaptive_sam)
    np_plain = by_numpy(lambda w, gradient, step, memory: gradient(w))
    assert not np.allclose(taken, np_plain)
    assert not np.allclose(taken, by_numpy(lambda w, gradient, step, memory: gradient(w + 0.3 * unit(gradient(w)))))
