"""The plain ways to a smaller encoder, to compare with: the same share of every width, or fewer layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainflat.compress.shrink import Shape
from trainflat.compress.sizes import gates_of, size
from trainflat.compress.units import Structure, Sublayer, module

__all__ = ["narrow", "opened", "shallow"]


def narrow(structure: Structure, parameters: int) -> Shape:
    """The shape with the same share of hidden dimensions, heads and neurons in every layer that has so many parameters.

    The largest such share whose layers (as `trainflat.compress.sizes.size` counts them) are not larger; the rest is made
    up by neurons.

    Raises:
        ValueError: If even one of each is too many, or the whole has fewer.

    Example:
        >>> from trainflat import compress
        >>> from trainflat.tasks import zoo
        >>> parts = compress.structure(zoo.vit_small())
        >>> narrow(parts, 16_000)
        Shape(hidden=30, heads=(2, 2), neurons=(63, 63))
    """
    depth, heads, neurons = len(structure.layers), structure.attention[0].units, structure.ffn[0].units

    def shape(hidden: int, neurons: int) -> Shape:
        return Shape(hidden, (_part(hidden / structure.hidden, heads),) * depth, (neurons,) * depth)

    for hidden in range(structure.hidden, 0, -1):
        if found := _fill(
            structure, parameters, lambda n, h=hidden: shape(h, n), _part(hidden / structure.hidden, neurons)
        ):
            return found
    raise ValueError(f"no encoder of these {depth} layers has as few as {parameters} parameters in them")


def shallow(structure: Structure, parameters: int) -> Shape:
    """The shape with the lowest layers only, as many as it takes; in these, equal shares of heads and neurons are kept.

    Raises:
        ValueError: If one head and one neuron are too many, or the whole has fewer.

    Example:
        >>> from trainflat import compress
        >>> from trainflat.tasks import zoo
        >>> parts = compress.structure(zoo.vit_small())
        >>> shallow(parts, 33_472), shallow(parts, 16_000)                 # one of two layers; half of that one
        (Shape(hidden=64, heads=(4, 0), neurons=(128, 0)), Shape(hidden=64, heads=(2, 0), neurons=(56, 0)))
    """
    depth, heads, neurons = len(structure.layers), structure.attention[0].units, structure.ffn[0].units
    for layers in range(1, depth + 1):
        gone = (0,) * (depth - layers)
        whole = Shape(structure.hidden, (heads,) * layers + gone, (neurons,) * layers + gone)
        if (most := _count(structure, whole)) < parameters and layers < depth:
            continue
        share = min(1.0, parameters / most)
        for left in range(_part(share, heads), 0, -1):
            kept = (left,) * layers + gone
            fill = _fill(
                structure,
                parameters,
                lambda n, k=kept, g=gone: Shape(structure.hidden, k, (n,) * (len(k) - len(g)) + g),
                1,
            )
            if fill:
                return fill
    raise ValueError(f"no encoder of this width has as few as {parameters} parameters in its layers")


def opened(model: nn.Module, structure: Structure, shape: Shape) -> dict[str, Tensor]:
    """Gates for `trainflat.compress.shrink` that leave this shape: the heads, neurons and dimensions of the largest weights.

    A head's or neuron's weight is the L2 norm of its rows and columns, a hidden dimension's that of all that reads or writes
    it in the layers; of equal ones the first.

    Raises:
        ValueError: If the shape has more than the structure.
    """
    z = structure.open()
    z["hidden"] = _largest(_dimensions(model, structure), shape.hidden)
    for family, parts, counts in (
        ("head", structure.attention, shape.heads),
        ("intermediate", structure.ffn, shape.neurons),
    ):
        z[family] = torch.stack(
            [_largest(_units(model, part), count) for part, count in zip(parts, counts, strict=True)]
        )
    return z


def _part(share: float, whole: int) -> int:
    return max(1, round(share * whole))


def _count(structure: Structure, shape: Shape) -> int:
    """The parameters in the layers of this shape."""
    return round(float(size(structure, gates_of(structure, shape))))


def _fill(structure: Structure, parameters: int, shape: Callable[[int], Shape], least: int) -> Shape | None:
    """The shape with as many neurons as fit, at least so many; None if they don't."""
    room = structure.ffn[0].units
    one, two = _count(structure, shape(1)), _count(structure, shape(2)) if room > 1 else 0
    if (fits := min(room, 1 + (parameters - one) // max(two - one, 1))) < least or one > parameters:
        return None
    return shape(int(fits))


def _largest(weights: Tensor, count: int) -> Tensor:
    if count > len(weights):
        raise ValueError(f"{count} cannot be kept of {len(weights)}")
    kept = torch.zeros(len(weights))
    kept[weights.argsort(descending=True, stable=True)[:count]] = 1.0
    return kept


def _units(model: nn.Module, part: Sublayer) -> Tensor:
    squares = [module(model, name).weight.detach().square().sum(1) for name in part.reads]
    squares.append(module(model, part.writes).weight.detach().square().sum(0))
    return torch.stack(squares).sum(0).reshape(part.units, part.width).sum(1).cpu()


def _dimensions(model: nn.Module, structure: Structure) -> Tensor:
    total = torch.zeros(structure.hidden)
    for part in (*structure.attention, *structure.ffn):
        for name in part.reads:
            total += module(model, name).weight.detach().square().sum(0).cpu()
        total += module(model, part.writes).weight.detach().square().sum(1).cpu()
    return total
