"""Parameters that are elsewhere for one pass, and come back bit for bit; random streams that are played again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainflat.types import Params

__all__ = ["at", "check_plain", "random_state", "rooms", "set_random_state", "turn_back", "without_zeros"]


def check_plain(params: Params) -> None:
    """Raise the TypeError of a parameter that has no place of its own among real numbers: a sharded or a complex one."""
    for name, w in params.items():
        if type(w.data) is not Tensor or w.is_complex():
            kind = "complex" if w.is_complex() else f"a {type(w.data).__name__}"
            raise TypeError(
                f"{name} is {kind}; to move weights, or to measure around them, takes plain tensors of real numbers, neither "
                "sharded (as by FSDP; DistributedDataParallel's are plain) nor complex. flat.plain() trains any"
            )


def rooms(params: Params, kept: dict[str, Tensor]) -> list[Tensor]:
    """A tensor like each parameter, from ``kept`` or new and then kept there, so that no step has to allocate it.

    Raises:
        TypeError: If a parameter is not a plain tensor of real numbers.
    """
    check_plain(params)
    for name, w in params.items():
        room = kept.get(name)
        if room is None or room.shape != w.shape or room.dtype != w.dtype or room.device != w.device:
            kept[name] = torch.empty_like(w, requires_grad=False)
    return [kept[name] for name in params]


@contextmanager
def at(params: Params, moved: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets parameters be where they are ``moved`` to meanwhile. The weights' own memory is never written, so they come back
    bit for bit (w + e - e is not w in floating point), and nothing has to be copied back. What autocast keeps of them in
    low precision, by the parameter and not by its value, is forgotten at both ends."""
    own = {name: params[name].data for name in moved}
    try:
        for name, there in moved.items():
            params[name].data = there
        torch.clear_autocast_cache()
        yield
    finally:
        for name, here in own.items():
            params[name].data = here
        torch.clear_autocast_cache()


@torch.no_grad()
def turn_back(params: Params, moved: Mapping[str, Tensor]) -> None:
    """From each point ``moved`` to, as far on the other side of the weights: w - (there - w), in its place."""
    for name, there in moved.items():
        there.sub_(params[name]).neg_().add_(params[name])


@contextmanager
def without_zeros(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """What a backward pass says meanwhile of a weight that is exactly zero is left out of its gradient."""
    hooks = [p.register_hook(lambda gradient, p=p: gradient * (p.detach() != 0)) for p in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def random_state(params: Params) -> tuple[Tensor, dict[torch.device, Tensor]]:
    devices = {p.device for p in params.values() if p.device.type == "cuda"}
    return torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}


def set_random_state(streams: tuple[Tensor, dict[torch.device, Tensor]]) -> None:
    torch.set_rng_state(streams[0])
    for device, state in streams[1].items():
        torch.cuda.set_rng_state(state, device)
