"""The loss in the plane through three points of weight space: are two minima in one basin, and how wide is it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from trainflat.flat.losses import Loss, Vector, dot, norm

__all__ = ["Plane", "losses", "plane"]


@dataclass(frozen=True, eq=False)
class Plane:
    """origin + x * across + y * upwards, axes of length 1 at right angles: distances in it are those of weight space.

    Attributes:
        points: Coordinates (x, y) of the three points that it goes through; the first is the origin.
    """

    origin: Vector = field(repr=False)
    across: Vector = field(repr=False)
    upwards: Vector = field(repr=False)
    points: tuple[tuple[float, float], ...]

    def at(self, x: float, y: float) -> Vector:
        """The weights at a point of the plane."""
        return torch.add(self.origin, self.across, alpha=x).add_(self.upwards, alpha=y)

    def lines(self, *, size: int = 20, margin: float = 0.2) -> tuple[list[float], list[float]]:
        """The x and the y of a grid around the three points.

        Args:
            size: Lines in each direction, >= 2. Default: 20, as Mehta et al.
            margin: What is added on every side, as a share of the width and of the height. Default: 0.2, as Mehta et al.
        """
        if size < 2 or margin < 0:
            raise ValueError(f"a grid needs at least 2 lines and a margin of at least 0, got {size} and {margin}")
        sides = []
        for values in zip(*self.points, strict=True):
            room = margin * (max(values) - min(values))
            sides.append(np.linspace(min(values) - room, max(values) + room, size).tolist())
        return sides[0], sides[1]


def plane(first: Vector, second: Vector, third: Vector) -> Plane:
    """The plane through three points: x from the first to the second, y at right angles to it towards the third (Gram-Schmidt).

    Mehta et al. 2023, arXiv:2112.09153, their code; figure 6 of Na et al. 2022 is the plane of initial, Adam's and SAM's
    weights. Give all three the same head and the axes lie in the encoder alone: the head stays where it is everywhere.

    Args:
        first, second, third: Vectors, as of `Loss.weights` or `Loss.flat`.

    Raises:
        ValueError: If they lie on one line.

    Example:
        >>> found = plane(torch.tensor([1.0, 1.0]), torch.tensor([4.0, 1.0]), torch.tensor([2.0, 3.0]))
        >>> found
        Plane(points=((0.0, 0.0), (3.0, 0.0), (1.0, 2.0)))
        >>> found.at(1.0, 2.0)
        tensor([2., 3.])
    """
    across, upwards = second - first, third - first
    width, length = norm(across), norm(upwards)
    across.div_(width or 1.0)
    x = dot(across, upwards)
    upwards.add_(across, alpha=-x)
    height = norm(upwards)
    if not width or height <= 1e-5 * max(width, length):
        raise ValueError("the three points lie on one line, so many planes go through them; give three that do not")
    upwards.div_(height)
    return Plane(first, across, upwards, ((0.0, 0.0), (width, 0.0), (x, height)))


def losses(loss: Loss, plane: Plane, xs: Sequence[float], ys: Sequence[float]) -> list[list[float]]:
    """The loss at every crossing of the lines, one row for each y."""
    found = []
    for y in ys:
        found.append([])
        for x in xs:
            with loss.at(plane.at(x, y)):
                found[-1].append(loss.value())
    return found
