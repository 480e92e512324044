"""From gates to a smaller model: fold what is half open into the weights, cut what is shut out of the tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.compress.cut import Kept, cut
from trainflat.compress.gating import without_gates
from trainflat.compress.units import Structure, alive, check_fit, module

__all__ = ["Shape", "carve", "shape_of", "shrink"]


@dataclass(frozen=True)
class Shape:
    """What a shrunk encoder has: hidden dimensions, and heads and FFN neurons in each layer, 0 where none is left.

    Example:
        >>> Shape.of({"hidden": 8, "heads": [2, 0], "neurons": [5, 7]})
        Shape(hidden=8, heads=(2, 0), neurons=(5, 7))
    """

    hidden: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Shape:
        """From what JSON keeps of it.

        Raises:
            ValueError: If it is not three entries of whole numbers that are not negative.
        """
        try:
            shape = cls(int(plain["hidden"]), tuple(map(int, plain["heads"])), tuple(map(int, plain["neurons"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{plain!r} is no shape of a model: hidden, heads and neurons are needed") from error
        if min(shape.hidden - 1, *shape.heads, *shape.neurons) < 0 or len(shape.heads) != len(shape.neurons):
            raise ValueError(f"{shape} is no shape of a model")
        return shape

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers and lists, for JSON."""
        return asdict(self)


def shrink(model: nn.Module, structure: Structure, z: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the model that computes, without gates, what the model computes in evaluation under the gates ``z``.

    Half-open gates are multiplied into the matrices, biases and norms behind which they stand; heads, neurons and hidden
    dimensions that are shut are cut out of every tensor; a sub-layer of which nothing lives gives way to its residual.
    Modules and names stay the architecture's own. The model given, and its gates, stay as they are.

    Args:
        z: How far each gate is open, in [0, 1]: ``gates.deterministic()``, or any such numbers (magnitudes, a uniform cut); a
            family that is missing is wide open.

    Raises:
        TypeError: If an argument is something else, or a gate no tensor.
        ValueError: If no hidden dimension is left, a gate is negative or not finite, a family is unknown, or the gates are those
            of another structure or the structure that of another model (LookupError if it has other names).

    Example:
        >>> from trainflat import compress
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small()
        >>> half = {"hidden": (torch.arange(64) < 32).float(), "ffn": torch.tensor([1.0, 0.0])}
        >>> small = shrink(model, compress.structure(model), half)
        >>> shape_of(small)
        Shape(hidden=32, heads=(4, 4), neurons=(128, 0))
    """
    check_fit(model, structure)
    z = {**structure.open(), **{family: gate.detach().cpu() for family, gate in structure.checked(z).items()}}
    for family, gate in z.items():
        if not bool(((gate >= 0) & gate.isfinite()).all()):
            raise ValueError(f"the gates {family!r} hold NaN, infinity or a negative number; 0 is shut, 1 wide open")
    attention, ffn = alive(z)
    kept = Kept(
        hidden=z["hidden"].nonzero().flatten(),
        heads=tuple((gate * lives).nonzero().flatten() for gate, lives in zip(z["head"], attention)),
        neurons=tuple((gate * lives).nonzero().flatten() for gate, lives in zip(z["intermediate"], ffn)),
    )
    if not len(kept.hidden):
        raise ValueError("every hidden dimension is shut, so nothing would be left; keep at least one open")
    small = _copy(model)
    device = next(small.parameters()).device
    with torch.no_grad():
        cut(small, structure, kept)
        _fold(small, structure, {family: gate.to(device) for family, gate in z.items()}, kept)
        _own(small, model)
    return _shaped(small, kept)


def carve(model: nn.Module, structure: Structure, shape: Shape) -> nn.Module:
    """Cut a model in place to a shape, whatever its weights: a room for those of a shrunk model, meta tensors included.

    Raises:
        ValueError: If the shape does not fit into the structure.
    """
    room = Shape(structure.hidden, tuple(p.units for p in structure.attention), tuple(p.units for p in structure.ffn))
    fits = len(shape.heads) == len(room.heads) and all(
        small <= whole
        for small, whole in zip((shape.hidden, *shape.heads, *shape.neurons), (room.hidden, *room.heads, *room.neurons))
    )
    if not fits:
        raise ValueError(f"{shape} does not fit into {room}; is it of another architecture?")
    kept = Kept(
        torch.arange(shape.hidden), tuple(map(torch.arange, shape.heads)), tuple(map(torch.arange, shape.neurons))
    )
    with torch.no_grad():
        cut(model, structure, kept)
    return _shaped(model, kept)


def shape_of(model: nn.Module) -> Shape:
    """The shape of a model that was shrunk.

    Raises:
        ValueError: If it was not.
    """
    shape = getattr(model, "trainflat_shape", None)
    if not isinstance(shape, Shape):
        raise ValueError(f"this {type(model).__name__} was not made by shrink or load_small")
    return shape


def _copy(model: nn.Module) -> nn.Module:
    """A copy that shares every tensor: what is cut becomes a new one anyway, and the rest is copied after it."""
    tensors = [*model.parameters(), *model.buffers()]
    return without_gates(copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}))


def _own(small: nn.Module, model: nn.Module) -> None:
    """Copy the tensors that the two models still share."""
    shared = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    copies: dict[int, Any] = {}  # tied tensors stay tied
    for inner in small.modules():
        for key, tensor in [*inner.named_parameters(recurse=False), *inner.named_buffers(recurse=False)]:
            if id(tensor) in shared:
                setattr(inner, key, copy.deepcopy(tensor, copies))


def _fold(model: nn.Module, structure: Structure, z: Mapping[str, Tensor], kept: Kept) -> None:
    """Multiply every gate into the weights behind which it stands, in a model that is cut already."""
    hidden = z["hidden"][kept.hidden]
    for name in structure.embeddings:
        found = module(model, name)
        found.weight.mul_(hidden if isinstance(found, nn.Embedding) else hidden[:, None])
        if (bias := getattr(found, "bias", None)) is not None:
            bias.mul_(hidden)
    norms = [name for name in (structure.entry_norm, structure.last_norm) if name]
    for parts, layers, gates, units in (
        (structure.attention, z["attention"], z["head"], kept.heads),
        (structure.ffn, z["ffn"], z["intermediate"], kept.neurons),
    ):
        for part, layer, gate, stay in zip(parts, layers, gates, units):
            if not len(stay):
                continue
            norms.append(part.norm)
            writes = module(model, part.writes, nn.Linear)
            writes.weight.mul_((layer * hidden)[:, None]).mul_(gate[stay].repeat_interleave(part.width))
            if writes.bias is not None:
                writes.bias.mul_(layer * hidden)
    for name in norms:
        norm = module(model, name, nn.LayerNorm)
        norm.weight.mul_(hidden)
        norm.bias.mul_(hidden)


def _shaped(model: nn.Module, kept: Kept) -> nn.Module:
    """The model, which now knows its shape: a plain attribute, no key of the state dict."""
    shape = Shape(len(kept.hidden), tuple(map(len, kept.heads)), tuple(map(len, kept.neurons)))
    model.trainflat_shape = shape  # pyright: ignore[reportArgumentType]
    return model
