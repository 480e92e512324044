"""Where the gradient is taken. Each rule fills ``p.grad``; any ``torch.optim.Optimizer`` then steps.

A rule is called as ``rule(closure, params, t)``. The closure is PyTorch's own idea: it runs forward and backward (over all
micro-batches, if gradients are accumulated) and returns the loss. On return every parameter is bit for bit as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trainflat.train.schedules import at
from trainflat.types import Closure, Gradient, Params, Schedule

__all__ = ["asam", "plain", "sam"]

Dropout = Literal["fresh", "replay"]


def plain() -> Gradient:
    """The gradient at the weights themselves: ordinary training, one backward pass a step.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> plain()(closure, {"w": w}, 0.0), w.grad
        (tensor(1.), tensor([2.]))
    """
    return lambda closure, params, t: closure()


def sam(rho: float | Schedule = 0.05, *, eps: float = 1e-12, dropout: Dropout = "fresh") -> Gradient:
    """The gradient at the worst point of a ball around the weights: dL/dw at w + rho * g / (|g| + eps).

    Foret et al. 2021, eq. (2)-(3), arXiv:2010.01412; first-order maximiser, second-order term dropped as there. |g| is the
    L2 norm over all parameters together. Two backward passes on the same micro-batches. A gradient that a mask holds at
    zero moves nothing, so a pruned weight is never perturbed.

    Args:
        rho: Radius in weight space, >= 0, a number or a schedule; 0 is `plain`, random stream included.
            Default: 0.05, as Na et al. 2022 for BERT.
        eps: Added to |g|, outside the square root; a gradient of zero then moves nothing. Default: as in the authors' code.
        dropout: ``"fresh"`` draws new dropout masks in the second pass, as the common PyTorch implementation does and so
            most likely Na et al.; ``"replay"`` repeats the first pass's, as Foret et al.'s own code (one key for both
            passes), and leaves the random stream where one pass would.

    Raises:
        ValueError: If rho is negative at some step, or ``dropout`` is neither word.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> _ = sam(rho=0.5)(closure, {"w": w}, 0.0)
        >>> w.grad, w.data                                   # 2 (w + 0.5), and w is where it was
        (tensor([3.]), tensor([1.]))
    """

    def direction(weights: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, ""]:
        return _norm(gradients)

    return _ascend(rho, eps, dropout, direction)


def asam(rho: float | Schedule = 0.5, *, eta: float = 0.01, eps: float = 1e-12, dropout: Dropout = "fresh") -> Gradient:
    """SAM in a ball that scales with each weight: dL/dw at w + rho * T^2 g / (|T g| + eps), with T = |w| + eta.

    Kwon et al. 2021, algorithm 1, arXiv:2102.11600. Rescaling a layer and its successor inversely changes nothing (for
    eta = 0). A weight of exactly zero under a mask is not perturbed, since its gradient is zero.

    Args:
        rho: Radius in the scaled space, >= 0; 0 is `plain`. Default: 0.5, as Kwon et al. for CIFAR; ten times SAM's.
        eta: Keeps small weights movable, >= 0. Default: 0.01, as Kwon et al.
        eps: Added to |T g|.
        dropout: As for `sam`.

    Raises:
        ValueError: If rho is negative at some step, eta is negative, or ``dropout`` is neither word.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([2.0]))
        >>> def closure(): loss = (w**2).sum(); loss.backward(); return loss.detach()
        >>> _ = asam(rho=0.5, eta=0.0)(closure, {"w": w}, 0.0)
        >>> w.grad                                           # w moves by 0.5 * T = 1, so 2 (2 + 1)
        tensor([6.])
    """
    if eta < 0:
        raise ValueError(f"eta must be at least 0, got {eta}")

    def direction(weights: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, ""]:
        scale = torch._foreach_abs(weights)
        torch._foreach_add_(scale, eta)
        torch._foreach_mul_(gradients, scale)
        norm = _norm(gradients)  # |T g|
        torch._foreach_mul_(gradients, scale)  # T^2 g
        return norm

    return _ascend(rho, eps, dropout, direction)


def _ascend(
    rho: float | Schedule,
    eps: float,
    dropout: Dropout,
    direction: Callable[[list[Tensor], list[Tensor]], Float[Tensor, ""]],
) -> Gradient:
    """The common rule. ``direction(weights, gradients)`` turns the gradients into the ascent direction, in place, and
    returns the norm that its length is measured with."""
    if dropout not in ("fresh", "replay"):
        raise ValueError(f"dropout must be 'fresh' or 'replay', got {dropout!r}")
    if not callable(rho) and rho < 0:
        raise ValueError(f"rho must be at least 0, got {rho}")
    scratch: dict[str, Tensor] = {}  # the one extra copy of the weights, kept so that no step has to allocate it

    def rule(closure: Closure, params: Params, t: float) -> Float[Tensor, ""]:
        radius = at(rho, t)
        if radius < 0:
            raise ValueError(f"rho must be at least 0, got {radius} at t = {t:.3f}")
        if radius == 0:
            return closure()
        streams = _random_state(params) if dropout == "replay" else None
        loss = closure()
        reached = {name: p for name, p in params.items() if p.grad is not None}
        weights: list[Tensor] = list(reached.values())
        moved = _room(reached, scratch)
        with torch.no_grad():
            ascent = [p.grad for p in weights if p.grad is not None]
            norm = direction(weights, ascent)
            length = radius / (float(norm) + eps)
            for w, direct, there in zip(weights, ascent, moved, strict=True):
                torch.add(w, direct, alpha=length, out=there)  # reads and writes each number once: no foreach has it
        del ascent  # with it and the next line the first gradient's memory is free before the second one needs it
        for p in weights:
            p.grad = None
        if streams is not None:
            _set_random_state(streams)
        with _at(weights, moved):
            closure()
        return loss

    return rule


def _norm(tensors: list[Tensor]) -> Float[Tensor, ""]:
    """The L2 norm over all tensors together, in float32 or wider."""
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=wide)))


def _room(params: Params, scratch: dict[str, Tensor]) -> list[Tensor]:
    """A tensor like each weight, kept from step to step."""
    for name, w in params.items():
        if type(w.data) is not Tensor:
            raise TypeError(
                f"{name} is a {type(w.data).__name__}; an ascent step needs plain tensors, not sharded ones"
            )
        kept = scratch.get(name)
        if kept is None or kept.shape != w.shape or kept.dtype != w.dtype or kept.device != w.device:
            scratch[name] = torch.empty_like(w, requires_grad=False)
    return [scratch[name] for name in params]


@contextmanager
def _at(weights: list[Tensor], moved: list[Tensor]) -> Iterator[None]:
    """Lets the parameters be ``moved`` meanwhile. The weights' own memory is never written, so they come back bit for bit
    (w + e - e is not w in floating point), and nothing has to be copied back."""
    own = [w.data for w in weights]
    try:
        for w, there in zip(weights, moved, strict=True):
            w.data = there
        yield
    finally:
        for w, here in zip(weights, own, strict=True):
            w.data = here


def _random_state(params: Params) -> tuple[Tensor, dict[torch.device, Tensor]]:
    devices = {p.device for p in params.values() if p.device.type == "cuda"}
    return torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}


def _set_random_state(streams: tuple[Tensor, dict[torch.device, Tensor]]) -> None:
    torch.set_rng_state(streams[0])
    for device, state in streams[1].items():
        torch.cuda.set_rng_state(state, device)
