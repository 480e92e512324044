"""The losses of single examples, which the loop's closure gives to rules that ask: their mean, gradient, cost and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainflat import tasks, train
from trainflat.testing.problem import problem
from trainflat.train.closure import Backward, losses_of

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # sums of roundings of 1e-16 in another order


def closure_over(net, *batches, objective=train.cross_entropy, precision="fp32"):
    return Backward(net, objective, list(batches), precision, [])


def expected(net, x, y, weights):
    """The gradient of the weighted mean over single examples, one after the other."""
    found = None
    for i, weight in enumerate(weights):
        own = torch.autograd.grad(
            weight * train.cross_entropy(net, (x[i : i + 1], y[i : i + 1])), list(net.parameters())
        )
        found = own if found is None else [a + b for a, b in zip(found, own, strict=True)]
    return [g / len(weights) for g in found]


@pytest.mark.parametrize("cuts", [[32], [8, 8, 8, 8], [20, 12]])
def test_the_mean_of_the_losses_is_the_loss_and_so_is_its_gradient(cuts):
    net, (x, y) = problem(torch.float64)
    batches = list(zip(x.split(cuts), y.split(cuts), strict=True))
    closure, found = closure_over(net, *batches), []
    for run in (closure, lambda: closure.losses(torch.ones(32)).mean()):
        net.zero_grad()
        found.append([run(), *(p.grad for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(closure.losses().mean(), found[0][0], **CLOSE)
    assert closure.count == 32


def test_weighted_losses_have_the_gradient_of_the_weighted_mean():
    net, (x, y) = problem(torch.float64)
    weights = torch.rand(32)
    losses = closure_over(net, (x[:20], y[:20]), (x[20:], y[20:])).losses(weights)
    size = torch.tensor([32 / 2 / 20] * 20 + [32 / 2 / 12] * 12, dtype=torch.float64)  # the mean of two means
    torch.testing.assert_close(losses, size * nn.functional.cross_entropy(net(x), y, reduction="none"), **CLOSE)
    for p, g in zip(net.parameters(), expected(net, x, y, (weights * size).tolist()), strict=True):
        torch.testing.assert_close(p.grad, g, **CLOSE)


def test_an_example_of_weight_zero_is_not_run_and_a_forward_pass_alone_counts_a_third():
    net, (x, y) = problem()
    seen = []

    def objective(model, batch):
        seen.append(len(batch[1]))
        return train.cross_entropy(model, batch)

    closure = closure_over(net, (x[:16], y[:16]), ({"input": x[16:]}, y[16:]), objective=objective)
    weights = torch.zeros(32)
    weights[[3, 17, 30]] = 1.0
    losses = closure.losses(weights)
    assert seen == [1, 2]
    assert losses.nonzero().flatten().tolist() == [3, 17, 30]
    assert closure.shares == [pytest.approx(3 / 32)]
    weights[3] = 0.0
    closure.losses(weights)
    assert seen[2:] == [2]  # nothing of the first micro-batch
    for p in net.parameters():
        p.grad = None
    assert not closure.losses().requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert closure.shares[-1] == pytest.approx(1 / 3)


def test_pieces_tell_their_examples_apart_too():
    net, (x, y) = problem(torch.float64)
    closure = closure_over(net, (x[:20], y[:20]), (x[20:], y[20:]))
    found = [piece.losses(torch.ones(piece.count)).mean() for piece in closure.pieces(5)]
    torch.testing.assert_close(sum(found), closure(), **CLOSE)


def test_in_bfloat16_the_losses_are_the_passes_own():
    net, batch = problem()
    closure = closure_over(net, batch, precision="bf16")
    torch.testing.assert_close(closure.losses().mean(), closure(), rtol=1e-6, atol=0)


def test_tasks_penalties_and_regression_have_losses_of_single_examples():
    task = tasks.digits()
    model, batch = task.model(seed=0).eval(), next(iter(task.batches(seed=0)))
    losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    torch.testing.assert_close(losses_of(task.objective, model, batch), losses)
    penalty = train.l1(task.objective, strength=0.1)
    torch.testing.assert_close(losses_of(penalty, model, batch).mean(), penalty(model, batch))
    line, points = nn.Linear(3, 1), (torch.randn(5, 3), torch.randn(5))
    squares = (line(points[0])[:, 0] - points[1]) ** 2
    torch.testing.assert_close(losses_of(train.mean_squared_error, line, points), squares)


def test_an_l1_penalty_on_nothing_is_told():
    net, batch = problem()
    penalty = train.l1(train.cross_entropy, strength=0.1, where=lambda name, p: name == "wieght")
    with pytest.raises(ValueError, match="`where` selects no parameter"):
        penalty(net, batch)


def test_after_an_error_an_objective_is_a_mean_again():
    net, batch = problem()
    with pytest.raises(ValueError, match="stop"):
        losses_of(lambda model, batch: (_ for _ in ()).throw(ValueError("stop")), net, batch)
    assert train.cross_entropy(net, batch).ndim == 0
