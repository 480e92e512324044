"""Which slices of which tensors are a head, a neuron, a layer or a hidden dimension: the `Structure` of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Structure", "Sublayer", "alive", "check_fit", "module"]

FAMILIES = ("attention", "head", "ffn", "intermediate", "hidden")
"""What can be removed: the attention of a layer, a head, the FFN of a layer, one of its neurons, a hidden dimension."""


@dataclass(frozen=True)
class Sublayer:
    """The attention or the FFN of one layer: ``units`` heads of ``width`` rows each, or neurons of one. `of` reads it.

    Attributes:
        reads: Linear layers from the hidden dimensions to the units: query, key, value; or the FFN's first.
        writes: The linear layer from the units back to the hidden dimensions.
        norm: The sub-layer's LayerNorm.
        units, width: Number of heads or neurons, and how many rows of each reading layer are one.
        per_pair, per_unit, per_dimension: Parameters for each pair of a unit and a hidden dimension (matrices), each unit
            (biases of ``reads``), each hidden dimension (bias of ``writes``, norm).
        counters: Attributes that hold the number of units, and what they count of each (1, or its rows).
        absent: Stand-ins for the sub-layer's modules once it is removed, see `trainflat.compress.standins`.
    """

    reads: tuple[str, ...]
    writes: str
    norm: str
    units: int
    width: int
    per_pair: int
    per_unit: int
    per_dimension: int
    counters: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        reads: Sequence[str],
        writes: str,
        norm: str,
        units: int | None = None,
        counters: Mapping[str, int] | None = None,
        absent: Mapping[str, str] | None = None,
    ) -> Sublayer:
        """Read widths and counts from the modules of these names; ``units`` is the number of heads, None: every row is one.

        Raises:
            LookupError: If a name is no module of the model, or one of the wrong kind.
        """
        inner = [module(model, name, nn.Linear) for name in reads]
        outer, after = module(model, writes, nn.Linear), module(model, norm, nn.LayerNorm)
        rows, hidden = outer.in_features, outer.out_features
        number = rows if units is None else units
        return cls(
            reads=tuple(reads),
            writes=writes,
            norm=norm,
            units=number,
            width=rows // number,
            per_pair=sum(linear.weight.numel() for linear in (*inner, outer)) // (number * hidden),
            per_unit=sum(linear.bias.numel() for linear in inner if linear.bias is not None) // number,
            per_dimension=sum(p.numel() for p in (outer.bias, *after.parameters()) if p is not None) // hidden,
            counters=counters or {},
            absent=absent or {},
        )


@dataclass(frozen=True)
class Structure:
    """The removable parts of an encoder, by the names of its modules. `structure` reads one from a model.

    Attributes:
        hidden: Number of hidden dimensions: the width of the residual stream.
        layers: The layers' modules, from the first to the last.
        attention, ffn: Their sub-layers.
        embeddings: Tables and linear layers whose sum is the first hidden state.
        entry: The module that returns this sum.
        entry_norm: The LayerNorm between the sum and the first layer, if there is one inside ``entry``.
        readers: Linear layers outside of the encoder's layers that read the hidden dimensions: pooler or classifier.
        last_norm: The LayerNorm after the last layer, if there is one.
        pre_norm: Whether the norms stand before the sub-layers (x + f(norm(x))) or after the sum (norm(x + f(x))).

    Raises:
        ValueError: If the layers differ in their number of heads or neurons.
    """

    hidden: int
    layers: tuple[str, ...]
    attention: tuple[Sublayer, ...]
    ffn: tuple[Sublayer, ...]
    embeddings: tuple[str, ...]
    entry: str
    entry_norm: str | None = None
    readers: tuple[str, ...] = ()
    last_norm: str | None = None
    pre_norm: bool = False

    def __post_init__(self) -> None:
        if not len(self.layers) == len(self.attention) == len(self.ffn) >= 1:
            raise ValueError(
                "a structure needs one attention and one FFN for each of its layers, and at least one layer"
            )
        for what, parts in (("heads", self.attention), ("neurons", self.ffn)):
            if len(sizes := {part.units for part in parts}) > 1:
                raise ValueError(
                    f"all layers must have as many {what}, got {sorted(sizes)}; gates go on before shrinking"
                )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """How many gates of each family there are: one for each unit, by layer."""
        depth = len(self.layers)
        heads, neurons = self.attention[0].units, self.ffn[0].units
        shapes = ((depth,), (depth, heads), (depth,), (depth, neurons), (self.hidden,))
        return dict(zip(FAMILIES, shapes, strict=True))

    def open(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """All gates wide open: ones."""
        return {family: torch.ones(shape, device=device) for family, shape in self.shapes.items()}

    def checked(self, z: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The gates ``z`` as they are, if their names and shapes are this structure's; a family may be missing.

        Raises:
            TypeError: If they are no tensors by name.
            ValueError: If a family is unknown, or of another shape.
        """
        if not isinstance(z, Mapping):
            raise TypeError(f"gates are {{family: tensor}}, such as gates.deterministic(); got {type(z).__name__}")
        if unknown := [family for family in z if family not in FAMILIES]:
            raise ValueError(f"families are some of {', '.join(FAMILIES)}, got {unknown[0]!r}")
        for family, gate in z.items():
            if not isinstance(gate, Tensor):
                raise TypeError(f"the gates {family!r} must be a tensor, got {type(gate).__name__}")
            if tuple(gate.shape) != self.shapes[family]:
                raise ValueError(
                    f"the gates {family!r} have shape {tuple(gate.shape)}, this structure needs {self.shapes[family]}"
                )
        return z


def check_fit(model: nn.Module, structure: Structure) -> None:
    """Whether a structure is this model's, as far as the sizes of its sub-layers tell.

    Raises:
        TypeError: If one of the two is something else.
        LookupError: If the model has no such sub-layer.
        ValueError: If a sub-layer has another size.
    """
    if not isinstance(structure, Structure):
        raise TypeError(f"a structure is what compress.structure(model) returns, got {type(structure).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"gates go on a model, got {type(model).__name__}")
    for part in (*structure.attention, *structure.ffn):
        writes, sizes = module(model, part.writes), (part.units * part.width, structure.hidden)
        here = getattr(writes, "in_features", sizes[0]), getattr(writes, "out_features", sizes[1])
        if here != sizes:
            raise ValueError(
                f"the structure is of another model: its {part.writes!r} maps {sizes[0]} to {sizes[1]}, here it maps {here[0]} "
                f"to {here[1]}"
            )


def alive(z: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which layers have an attention and which an FFN, given how far each gate is open.

    A sub-layer without a living unit is dead whatever its own gate says: with its units its bias and its norm go, too,
    and the residual passes as it is. (The reference implementation kept the bias under the mask and lost it when shrunk.)

    Example:
        >>> z = {"attention": torch.tensor([1.0, 1.0, 0.0]), "head": torch.tensor([[0.0, 0.5], [0, 0], [1, 1]])}
        >>> alive({**z, "ffn": torch.ones(1), "intermediate": torch.zeros(1, 3)})
        (tensor([ True, False, False]), tensor([False]))
    """
    return (z["attention"] > 0) & (z["head"] > 0).any(-1), (z["ffn"] > 0) & (z["intermediate"] > 0).any(-1)


def module(model: nn.Module, name: str, kind: type[nn.Module] = nn.Module) -> Any:
    """The module of this name, which must be of this kind.

    Raises:
        LookupError: If there is none, or of another kind; says which kind was expected.
    """
    try:
        found = model.get_submodule(name)
    except AttributeError:
        raise LookupError(f"{type(model).__name__} has no module {name!r}, where a {kind.__name__} belongs") from None
    if not isinstance(found, kind):
        raise LookupError(f"{name!r} is a {type(found).__name__}, where a {kind.__name__} belongs")
    return found
