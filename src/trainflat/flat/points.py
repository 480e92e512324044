"""To which point near the place that they reach the weights go: their smallest pruned, or all of them quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainflat.flat.choices import Choice, chance, check, model_of
from trainflat.flat.places import head, matrices
from trainflat.types import Params

__all__ = ["Dense", "Pruned", "Quantized", "compressed"]

Dense = Sequence[str] | Literal["head"]
"""What is never pruned: the beginnings of parameters' names, or `trainflat.flat.places.head`."""

SAMPLE = 1 << 20  # weights that a threshold is found from
WRAPPERS = ("module.", "_orig_mod.")  # of DDP and torch.compile


class Pruned(Choice):
    """The matrices without their smallest weights, all ranked together; the share is drawn from a range for each step.

    The range is [low, low + (high - low) min(1, t / grow)], t the share of the training that is over; all of it if grow is 0.
    The threshold is the quantile of at most 2^20 weights, evenly spaced: exact for smaller models, to about 0.1 % for others;
    weights of the threshold's very size go together, so in bfloat16 it may be some tenths of a percent more.
    With ``sparse_grad`` the last pass says nothing of those that it finds at zero.
    """

    remembers = True

    def __init__(
        self,
        low: float,
        high: float,
        dense: Dense = (),
        seed: int = 0,
        sparse_grad: bool = False,
        grow: float = 0.0,
    ):
        super().__init__()
        check("a sparsity", low, 0, 1)
        check("a sparsity", high, low, 1)
        check("grow", grow, 0, 1)
        if isinstance(dense, str) and dense != "head":
            raise ValueError(
                "dense is 'head' or lists beginnings of parameters' names, such as ['classifier']; "
                f"got the text {dense!r}"
            )
        self.low, self.high, self.seed, self.sparse_grad, self.grow = low, high, seed, sparse_grad, grow
        self.dense = dense if isinstance(dense, str) else tuple(dense)

    def chosen(self, names: set[str], model: nn.Module, params: Params) -> set[str]:
        """Those of the names that are changed; of a wrapped or compiled model they count without what the wrapper puts in front.

        Raises:
            ValueError: If no parameter of the model has a name that begins with one of those in ``dense``.
        """
        if self.dense == "head":
            ids = head(model)
        else:
            known = [(_bare(name), id(p)) for name, p in model.named_parameters(remove_duplicate=False)]
            if lost := [begins for begins in self.dense if not any(name.startswith(begins) for name, _ in known)]:
                raise ValueError(
                    f"no parameter's name begins with {lost[0]!r}, which is to stay dense; names are like {known[-1][0]!r}"
                )
            ids = {i for name, i in known if name.startswith(tuple(self.dense))}
        return {name for name in names if id(params[name]) not in ids}

    def __call__(self, tensors: Mapping[str, Tensor], t: float, step: int) -> None:
        """Change the tensors in place."""
        grown = min(1.0, t / self.grow) if self.grow else 1.0
        sparsity = self.low + (self.high - self.low) * grown * chance("sparsity", self.seed, step)
        size = sum(x.numel() for x in tensors.values())
        stride = -(-size // SAMPLE)
        sample = torch.cat([_wide(x.flatten()[::stride].abs()).cpu() for x in tensors.values()])
        kill = round(sparsity * len(sample))
        if kill:
            threshold = float(torch.kthvalue(sample, kill).values)
            for x in tensors.values():
                torch.hardshrink(x, threshold, out=x)


def _bare(name: str) -> str:
    """
    >>> _bare("_orig_mod.module.classifier.weight"), _bare("classifier.weight")
    ('classifier.weight', 'classifier.weight')
    """
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class Quantized(Choice):
    """The matrices rounded to so many bits, one symmetric grid a row: q = round(w / s), s = max|w| / (2^(bits-1) - 1).

    So the largest weight lies on the grid. (torch's int8 kernels divide by 127.5, between two of its points: then a rounding
    error of 1e-16 decides to which of them it goes, and four micro-batches would not equal the large batch.)
    """

    def __init__(self, bits: int):
        super().__init__()
        check("bits", bits, 2, 16)
        self.bits, self.sparse_grad = bits, False

    def chosen(self, names: set[str], model: nn.Module, params: Params) -> set[str]:
        return names

    def __call__(self, tensors: Mapping[str, Tensor], t: float, step: int) -> None:
        for x in (x for x in tensors.values() if x.numel()):
            scale = x.flatten(1).abs().amax(1).view(-1, *[1] * (x.ndim - 1)) / (2 ** (self.bits - 1) - 1)
            scale.masked_fill_(scale == 0, 1)
            x.div_(scale).round_().mul_(scale)


def compressed(point: Pruned | Quantized, closure: Any, params: Params) -> set[str]:
    """The names of the parameters that a point compresses.

    Raises:
        TypeError: If the closure does not say whose it is.
        ValueError: If there is none.
    """
    model = model_of(closure, "a rule chooses what is compressed")
    found = matrices(model, params)
    names = point.chosen(found, model, params)
    if not names:
        why = (
            "all its linear and convolutional layers are to stay dense, or are not trained; stale_sam compresses none"
            if found
            else "this model has no linear or convolutional layer to train (one whose weight is made anew in every pass, as by "
            "weight_norm, is none)"
        )
        raise ValueError(f"there is nothing to compress: {why}")
    return names
