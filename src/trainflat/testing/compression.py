"""The laws of a Score and of a Quantizer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from trainflat.compress.masks import Mask
from trainflat.compress.prune import prune
from trainflat.testing.problem import Counted, law, problem, untouched
from trainflat.types import Quantizer, Score

__all__ = ["check_quantizer", "check_score"]


def check_score(score: Score) -> None:
    """Check a score (give options with ``functools.partial``). The laws: a tensor of the parameter's shape for every
    matrix, without NaN or graph; equal models have equal scores; the model, its gradients, its mode and the random
    stream stay as they were; and `prune` reaches the exact count with it.

    Raises:
        AssertionError: With the law that is broken.
        TypeError: If it is no function.

    Example:
        >>> from trainflat import compress
        >>> check_score(compress.magnitude)
    """
    _check_function(score, "compress.magnitude, a function from a model to a score for each of its weights")
    with torch.random.fork_rng(devices=[]):
        net, batch = problem()
        Counted(net, batch)()
        with untouched(net, "a score only looks"):
            scores = score(net)
        for name, parameter in net.named_parameters():
            if parameter.ndim < 2 and name not in scores:
                continue
            law(name in scores, f"every matrix has a score: {name!r} has none")
            law(scores[name].shape == parameter.shape, f"a score has the parameter's shape: that of {name!r} has not")
            law(not scores[name].isnan().any(), f"a score can be ranked: that of {name!r} holds NaN")
            law(not scores[name].requires_grad, f"a score carries no graph: that of {name!r} does")
        again = score(deepcopy(net))
        law(all(torch.equal(again[name], scores[name]) for name in scores), "equal models have equal scores")
        mask = Mask.dense(net, lambda name, p: p.ndim == 2)
        for sparsity in (0.1, 0.5, 0.9):
            dead = mask.size - prune(scores, sparsity, within=mask).alive
            law(dead == round(sparsity * mask.size), f"pruning to {sparsity} leaves exactly n - round(s n) weights")


def check_quantizer(quantizer: Quantizer, *, tolerance: float = 0.1) -> None:
    """Check a quantizer on a net of two ``nn.Linear``. The laws: the model given stays as it was and what comes back is
    another; its outputs have the same shape, are finite and the same each time, and lie within ``tolerance`` of the
    model's (L2 norm of the difference relative to the output's; default: ten times what int8 takes).

    Raises:
        AssertionError: With the law that is broken.
        TypeError: If it is no function.
    """
    _check_function(quantizer, "compress.dynamic_int8, a function from a model to a smaller one")
    with torch.random.fork_rng(devices=[]):
        net, (inputs, _) = problem()
        net.eval()
        with torch.no_grad():
            expected = net(inputs)
            with untouched(net, "a quantizer makes another model"):
                small = quantizer(net)
                outputs = small(inputs)
            law(small is not net, "a quantizer makes another model: it gave back the one it got")
            law(torch.equal(small(inputs), outputs), "a quantized model answers the same each time")
            law(torch.equal(quantizer(net)(inputs), outputs), "quantizing twice gives the same model")
        law(outputs.shape == expected.shape, f"outputs keep their shape: {tuple(outputs.shape)}")
        law(bool(outputs.isfinite().all()), "outputs are finite")
        error = float((outputs.float() - expected).norm() / expected.norm())
        law(error <= tolerance, f"outputs lie within {tolerance} of the model's: the error is {error:.3f}")


def _check_function(given: Any, wanted: str) -> None:
    """Raise the TypeError of what is none, such as what it gave."""
    if not callable(given) or isinstance(given, nn.Module):
        raise TypeError(f"this checks {wanted}; got {given!r}")
