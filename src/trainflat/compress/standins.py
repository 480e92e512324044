"""What stands where a sub-layer was removed: modules without parameters that let the residual pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["STANDINS", "First", "Second", "Zero"]


class First(nn.Module):
    """Gives back the first thing it gets, in a pair with None if ``pair``: in place of a norm, or of BERT's whole attention.

    Example:
        >>> First()(1, 2), First(pair=True)(1, mask=None)
        (1, (1, None))
    """

    def __init__(self, pair: bool = False):
        super().__init__()
        self.pair = pair

    def forward(self, x: Any, *others: Any, **options: Any) -> Any:
        return (x, None) if self.pair else x


class Second(nn.Module):
    """Gives back the second: in place of BERT's output module, which gets the FFN's activations and the residual."""

    def forward(self, activations: Any, residual: Any) -> Any:
        return residual


class Zero(nn.Module):
    """Gives a single zero, which the residual is then added to; in a pair with None if ``pair``."""

    def __init__(self, pair: bool = False):
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Any:
        zero = x.new_zeros(1)
        return (zero, None) if self.pair else zero


STANDINS = {
    "first": First,
    "first, nothing": lambda: First(pair=True),
    "second": Second,
    "zero": Zero,
    "zero, nothing": lambda: Zero(pair=True),
}
