"""The plane through three points, and the loss on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.flat.landscape import losses
from trainflat.testing.problem import problem, untouched


def three(size: int = 50) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=draw, dtype=torch.float64) for _ in range(3)]


def test_the_axes_are_of_length_one_at_right_angles_and_distances_are_kept():
    points = three()
    found = flat.plane(*points)
    assert found.across.norm().item() == pytest.approx(1, rel=1e-12)
    assert found.upwards.norm().item() == pytest.approx(1, rel=1e-12)
    assert found.across @ found.upwards == pytest.approx(0, abs=1e-12)
    for i in range(3):
        torch.testing.assert_close(found.at(*found.points[i]), points[i])
        for j in range(i):
            drawn = torch.tensor(found.points[i]) - torch.tensor(found.points[j])
            assert drawn.norm().item() == pytest.approx((points[i] - points[j]).norm().item(), rel=1e-6)
    assert found.points[1][1] == 0
    assert found.points[2][1] > 0


def test_the_points_are_not_written():
    points = three()
    copies = [point.clone() for point in points]
    flat.plane(*points).at(1.0, 1.0)
    assert all(torch.equal(*pair) for pair in zip(points, copies, strict=True))


def test_the_grid_has_the_margin_around_all_three():
    found = flat.plane(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 4.0]))
    xs, ys = found.lines(size=20, margin=0.2)
    assert (len(xs), len(ys)) == (20, 20)
    assert (xs[0], xs[-1]) == pytest.approx((-1.6, 2.6))  # 0.2 of 3 on both sides
    assert (ys[0], ys[-1]) == pytest.approx((-0.8, 4.8))
    assert flat.plane(*three()).lines(size=2, margin=0.0)[0][0] == 0


def test_the_loss_at_the_three_points_is_that_of_the_checkpoints():
    net, batch = problem(torch.float64)
    loss = flat.Loss(net, train.cross_entropy, [batch])
    states, values = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        nn.init.normal_(net[0].weight)
        nn.init.normal_(net[4].weight)
        states.append(loss.flat(train.snapshot(net)))
        values.append(loss.value())
    found = flat.plane(*states)
    with untouched(net, "drawing a plane"):
        at_points = [losses(loss, found, [x], [y])[0][0] for x, y in found.points]
    assert at_points == pytest.approx(values, rel=1e-9)
    assert len(set(at_points)) == 3


def test_a_quadratic_bowl_is_drawn_as_it_is():
    class Bowl(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

    origin, second, third = torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0])
    loss = flat.Loss(Bowl(), lambda model, batch: (model.w**2).sum(), [(None, torch.zeros(1))])
    found = losses(loss, flat.plane(origin, second, third), [0.0, 1.0], [0.0, 2.0, 3.0])
    assert found == [[0, 1], [4, 5], [9, 10]]  # a row for each y: x^2 + y^2


def test_three_with_the_same_head_move_the_encoder_alone():
    points = three()
    for point in points:
        point[-10:] = points[0][-10:]
    found = flat.plane(*points)
    assert (found.across[-10:] == 0).all()
    assert (found.upwards[-10:] == 0).all()


@pytest.mark.parametrize("third", [2.0, 0.0, 1.0])
def test_points_on_one_line_are_refused(third):
    with pytest.raises(ValueError, match="lie on one line"):
        flat.plane(torch.zeros(3), torch.ones(3), third * torch.ones(3))
    with pytest.raises(ValueError, match="lie on one line"):
        flat.plane(torch.zeros(3), torch.zeros(3), torch.ones(3))


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 2 lines and a margin of at least 0, got 1 and 0.2"):
        flat.plane(*three()).lines(size=1)
