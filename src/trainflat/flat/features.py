"""What a layer says of the data: its features, how many directions they really use, and how alike two models see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainflat.flat.geometry import measuring
from trainflat.train.batches import examples, finite, pair, to_device
from trainflat.train.compiled import uncompiled
from trainflat.types import Batch

__all__ = ["Features", "cka", "effective_rank", "feature_rank", "features"]

Features = Float[Tensor, " ..."]
"""One row for each example, one column for each feature; any other shape is told in a sentence."""


def features(
    model: nn.Module,
    batches: Iterable[Batch],
    layer: str,
    *,
    side: Literal["output", "input"] = "output",
    tokens: Literal["mean", "first"] = "mean",
) -> Features:
    """What goes out of a named module (or into it) for every example of the batches: ``examples features``, on the CPU.

    Of a sequence, ``batch seq features``, one vector is kept: the mean over its tokens, which are those where the batch's
    ``attention_mask`` is not 0 if it has one, or that of the first token ([CLS]). Three axes are taken for a sequence: of a
    ``Conv1d``'s output, ``batch channels length``, the mean is over the channels. All else is flattened, ``batch -1``, as
    Andriushchenko et al. 2023 do with images. Of several tensors the first counts; of a module that is called several times
    in a pass, the last call.

    Args:
        model: In evaluation mode and without gradients meanwhile; modes and the random stream are put back.
        batches: Pairs ``(inputs, labels)``.
        layer: A name as in ``model.named_modules()``; "" is the model itself, so its logits.
        side: Which side of the module. Default: what goes out. The input of the head is what the encoder made of the data.
        tokens: Which vector of a sequence. Default: the mean, which is there for every model.

    Raises:
        LookupError: If there is no such module, with the near miss.
        ValueError: If it is not used in the forward pass, its features are not one row for each example or their number
            changes from batch to batch (flattened sequences), inputs and labels begin with axes of different length, or there are
            no batches or no end of them.
        TypeError: If a batch is no pair.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> found = features(model, [(torch.ones(4, 2), torch.zeros(4))], "1")
        >>> found.shape, bool((found >= 0).all())
        (torch.Size([4, 3]), True)
    """
    if side not in ("output", "input") or tokens not in ("mean", "first"):
        raise ValueError(f'side is "output" or "input" and tokens "mean" or "first", got {side!r} and {tokens!r}')
    module = _module(model, layer)
    seen: list[Any] = []
    if side == "output":
        hook = module.register_forward_hook(lambda module, args, output: seen.append(output))
    else:
        first = lambda module, args, named: seen.append([*args, *named.values()])
        hook = module.register_forward_pre_hook(first, with_kwargs=True)
    device = next((p.device for p in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    found: list[Tensor] = []
    try:
        with measuring(model), uncompiled():
            for batch in finite(batches):
                seen.clear()
                inputs, labels = pair(to_device(batch, device))
                _check_axes(inputs, labels)
                model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
                if not seen:
                    raise ValueError(
                        f"{layer!r} is no part of the forward pass, so it has no features; name another layer"
                    )
                found.append(_rows(_tensor(seen[-1]), inputs, tokens).cpu())
                _check(found, examples(batch), layer)
    finally:
        hook.remove()
    if not found:
        raise ValueError("there is nothing to take features of: no batches were given")
    return torch.cat(found)


def feature_rank(x: Features, tolerance: float = 0.01) -> int:
    """How many principal components hold 99 % of the features' variance: the least k with s_1^2 + ... + s_k^2 >= 0.99 sum s^2.

    Andriushchenko et al. 2023, "Sharpness-aware minimization leads to low-rank features", section 3, arXiv:2305.16292. s are
    the singular values of the features with the mean over examples taken from each, as principal components are; their code
    takes from each example the mean over its own features instead.

    Args:
        x: ``examples features``.
        tolerance: The share of the variance that is left out, in (0, 1). Default: 0.01, as theirs.

    Raises:
        TypeError, ValueError: If it is no tensor or no finite matrix, or the tolerance is out of range.

    Example:
        >>> x = torch.tensor([[3.0, 0.1], [-3.0, 0.1], [3.0, -0.1], [-3.0, -0.1]])      # variances as 900 to 1
        >>> feature_rank(x), feature_rank(x, tolerance=0.001), feature_rank(torch.ones(4, 2))
        (1, 2, 0)
    """
    if not 0 < tolerance < 1:
        raise ValueError(
            f"tolerance is the share of the variance that is left out and must be in (0, 1), got {tolerance}"
        )
    held = torch.linalg.svdvals(_centred(x)).square().cumsum(0)
    return int((held < (1 - tolerance) * held[-1]).sum()) + 1 if held[-1] > 0 else 0


def effective_rank(x: Features) -> float:
    """exp(-sum p_i log p_i) with p = s / sum s: how many directions the features use, without a threshold; from 1 to all.

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality", EUSIPCO. s are the singular values, here of
    the centred features as in `feature_rank`. 0 if nothing varies.

    Example:
        >>> round(effective_rank(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])), 6)    # a square
        2.0
    """
    s = torch.linalg.svdvals(_centred(x))
    p = s / s.sum()
    return float(torch.special.entr(p).sum().exp()) if s.sum() > 0 else 0.0


def cka(x: Features, y: Features) -> float:
    """Linear centred kernel alignment, |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms, columns centred: from 0 to 1 (the same).

    Kornblith et al. 2019, eq. (3)-(4) with linear kernels, arXiv:1905.00414: HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with their
    estimator of it, biased for few examples (with fewer examples than features it nears 1 whatever the features are). It
    does not change under an orthogonal map of either, one factor on all features, or a shift; it does under other maps.

    The sums are over p x q matrices of features or over n x n matrices of examples, whichever are the fewer products.

    Args:
        x, y: ``examples features`` of the same examples in the same order; the features may differ in number.

    Returns:
        nan if one of the two is the same for all examples: then there is no direction to compare.

    Raises:
        TypeError, ValueError: If they are no tensors, or no finite matrices of the same number of examples.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])
        >>> turned = 3 * x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> round(cka(x, turned), 6), round(cka(torch.eye(3)[:, :1], torch.eye(3)[:, 1:2]), 6)        # correlation -1/2, squared
        (1.0, 0.25)
    """
    x, y = _centred(x), _centred(y)
    if len(x) != len(y):
        raise ValueError(f"the two are features of {len(x)} and {len(y)} examples; give those of the same examples")
    (n, p), q = x.shape, y.shape[1]
    if n * (p + q) < p * p + p * q + q * q:
        of_x, of_y = x @ x.T, y @ y.T
        cross, own = (of_x * of_y).sum(), of_x.norm() * of_y.norm()
    else:
        cross, own = (y.T @ x).norm() ** 2, (x.T @ x).norm() * (y.T @ y).norm()
    return min(float(cross / own), 1.0) if own > 0 else math.nan  # rounding may exceed 1


def _centred(x: Any) -> Tensor:
    """In float64, the mean over examples taken from each feature; exactly zero where a feature is the same for all."""
    if not isinstance(x, Tensor):
        raise TypeError(f"features are a tensor, as torch.as_tensor makes of an array; got a {type(x).__name__}")
    if x.ndim != 2 or not len(x) or not x.isfinite().all():
        raise ValueError(f"features are a finite matrix, one row for each example; got the shape {tuple(x.shape)}")
    x = x.double() - x[:1].double()
    return x - x.mean(0)


def _module(model: nn.Module, layer: str) -> nn.Module:
    known = dict(model.named_modules())
    if layer not in known:
        near = get_close_matches(layer, known, 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(list(known)[1:9])} …"
        raise LookupError(f"the model has no layer {layer!r}; {hint}")
    return known[layer]


def _tensor(output: Any) -> Tensor:
    """The first tensor of what a module was given, or gave."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise ValueError(f"there is no tensor in what the layer works on: a {type(output).__name__}")


def _rows(found: Tensor, inputs: Any, tokens: str) -> Tensor:
    """One vector for each example, in float32 or wider."""
    found = found.to(torch.promote_types(found.dtype, torch.float32))
    if found.ndim != 3:
        return found.flatten(1) if found.ndim > 1 else found[:, None]
    if tokens == "first":
        return found[:, 0]
    present = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if present is None:
        return found.mean(1)
    if present.shape != found.shape[:2]:
        raise ValueError(
            f"the layer's features have the shape {tuple(found.shape)} and attention_mask {tuple(present.shape)}, so which are "
            'of padding is not known; use tokens="first" or another layer'
        )
    weight = (present[:, :, None] != 0).to(found.dtype)
    return (found * weight).sum(1) / weight.sum(1)


def _check_axes(inputs: Any, labels: Any) -> None:
    if isinstance(labels, Tensor) and labels.ndim and len(labels) != examples(inputs):
        raise ValueError(
            f"the inputs of a batch begin with {examples(inputs)} and its labels with {len(labels)}: the first axis of both is "
            "that of the examples, as it is for torch's recurrent layers and encoders with batch_first=True"
        )


def _check(found: list[Tensor], count: int, layer: str) -> None:
    if len(found[-1]) != count or found[-1].shape[1] != found[0].shape[1]:
        raise ValueError(
            f"{layer!r} gives {tuple(found[-1].shape)} for a batch of {count} examples, and {found[0].shape[1]} features in the "
            "first batch; it takes a layer with one row of as many features for each example"
        )
