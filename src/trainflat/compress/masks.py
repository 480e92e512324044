"""Which weights are alive: a Mask is an immutable mapping from parameter name to a bool tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainflat.train.weights import upheld

__all__ = ["Mask"]

_ROOM = 1 << 20  # weights whose mask is widened at a time
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Mask(Mapping[str, Bool[Tensor, " ..."]]):
    """``{name: bool tensor}``, True = alive. Nothing is wrapped: state-dict keys and the forward pass stay as they were.

    Raises:
        TypeError: If it is given no mapping, or something else than boolean tensors.
        ValueError: If there is no tensor at all.

    Example:
        >>> mask = Mask({"weight": torch.tensor([[True, False, True, True]])})
        >>> mask.sparsity, mask.density
        (0.25, 0.75)
        >>> model = nn.Linear(4, 1)
        >>> with mask.on(model):
        ...     model(torch.ones(1, 4)).sum().backward()
        >>> model.weight[0, 1].item(), model.weight.grad
        (0.0, tensor([[1., 0., 1., 1.]]))
    """

    def __init__(self, alive: Mapping[str, Tensor]):
        if not isinstance(alive, Mapping):
            raise TypeError(
                f"a mask is made of {{name: bool tensor}}, got {type(alive).__name__}; Mask.dense(model, where) makes a model's"
            )
        for name, tensor in alive.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"the mask of {name!r} must be a bool tensor, got {type(tensor).__name__}")
            _check_plain(name, tensor)
            if tensor.dtype != torch.bool:
                raise TypeError(f"the mask of {name!r} must be bool, got {tensor.dtype}")
        if not alive:
            raise ValueError("a mask needs at least one tensor; does `where` select any parameter of this model?")
        self._alive = dict(alive)

    @classmethod
    def dense(cls, model: nn.Module, where: Callable[[str, nn.Parameter], bool]) -> Mask:
        """Everything alive, over the parameters that ``where(name, parameter)`` selects: the prunable set."""
        return cls(
            {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if where(name, p)}
        )

    def __getitem__(self, name: str) -> Bool[Tensor, " ..."]:
        return self._alive[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._alive)

    def __len__(self) -> int:
        return len(self._alive)

    def __repr__(self) -> str:
        return f"Mask({len(self)} tensors, {self.size:,} weights, {self.sparsity:.1%} pruned)"

    @property
    def size(self) -> int:
        """Weights under the mask, dead or alive."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def alive(self) -> int:
        """Weights that live."""
        return sum(int(np.count_nonzero(t.numpy())) if t.device.type == "cpu" else int(t.sum()) for t in self.values())

    @property
    def sparsity(self) -> float:
        """Share of the masked weights that is pruned, in [0, 1]; weights outside the mask don't count."""
        return 1 - self.density

    @property
    def density(self) -> float:
        """Share of the masked weights that lives: 1 - sparsity; 1 if there are none."""
        return self.alive / self.size if self.size else 1.0

    def sparsity_in(self, model: nn.Module) -> float:
        """Pruned weights as a share of all the model's parameters, in [0, 1]."""
        return (self.size - self.alive) / sum(p.numel() for p in model.parameters())

    def __and__(self, other: Mask) -> Mask:
        """Alive in both."""
        self._check_same(other)
        return Mask({name: tensor & other[name] for name, tensor in self.items()})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Mask)
            and self.keys() == other.keys()
            and all(torch.equal(tensor, other[name]) for name, tensor in self.items())
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content, too large to hash

    def overlap(self, other: Mask) -> float:
        """Intersection over union of the alive weights, in [0, 1]; 1 for equal masks, two empty ones included."""
        self._check_same(other)
        both = sum(int((tensor & other[name]).sum()) for name, tensor in self.items())
        either = sum(int((tensor | other[name]).sum()) for name, tensor in self.items())
        return both / either if either else 1.0

    def apply_to(self, model: nn.Module) -> None:
        """Set the pruned weights of the model to zero, once."""
        _zero_all(self._pairs(model))

    @contextmanager
    def on(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[nn.Module]:
        """While open, the pruned weights are zero and so are their gradients, in every backward pass.

        Since each gradient is masked as it arrives, a sharpness-aware perturbation stays inside the ticket as well. An
        optimizer that starts afresh and gives each weight a step of its own, as SGD and Adam do, then leaves pruned weights at
        exactly zero. One that already has momentum would move them, and so would one that mixes the weights of a matrix or of
        all, as Muon and LBFGS do, so give it here: the entries of its state that belong to pruned weights are set to zero, and
        after each of its steps the weights themselves. What `train.restore` puts into the model meanwhile is pruned as well.

        Raises:
            TypeError: If a parameter is sharded, as by FSDP; in the backward pass, if a gradient is sparse.
            ValueError: If the model has no such parameter, or of another shape.
        """
        pairs = self._pairs(model)
        self.apply_to(model)
        room = torch.empty(_ROOM, dtype=torch.int32)
        hooks = [
            _after_gradient(p, lambda p, alive=alive: _zero(p.grad, alive, room))
            for p, alive in pairs
            if p.is_floating_point() or p.is_complex()  # integers are never trained
        ]
        if optimizer is not None:
            _forget(optimizer, pairs)
            steps = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the one that does
            hooks.append(steps.register_step_post_hook(lambda *_: _zero_all(pairs, room)))
        try:
            with upheld(model, self.apply_to):
                yield model
        finally:
            for hook in hooks:
                hook.remove()

    def _check_same(self, other: Mask) -> None:
        if differ := sorted(self.keys() ^ other.keys()):
            raise ValueError(f"the two masks are of different models: {differ[0]!r} is in only one of them")
        for name, tensor in self.items():
            if tensor.shape != other[name].shape:
                shapes = f"{tuple(tensor.shape)} and {tuple(other[name].shape)}"
                raise ValueError(f"the two masks are of different models: {name!r} has shapes {shapes}")

    def _pairs(self, model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        parameters = dict(model.named_parameters())
        for name, tensor in self.items():
            if name not in parameters:
                raise ValueError(f"the mask is of another model: this one has no parameter {name!r}")
            _check_plain(name, parameters[name])
            if parameters[name].shape != tensor.shape:
                shapes = tuple(tensor.shape), tuple(parameters[name].shape)
                raise ValueError(f"the mask of {name!r} has shape {shapes[0]}, the parameter {shapes[1]}")
        return [(parameters[name], tensor.to(parameters[name].device)) for name, tensor in self.items()]


def _check_plain(name: str, tensor: Tensor) -> None:
    if type(tensor.data) is not Tensor:
        kind = type(tensor.data).__name__
        raise TypeError(
            f"{name} is a {kind}; a mask is of plain tensors, not of sharded ones: train under it with DistributedDataParallel"
        )


def _after_gradient(parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Calls the hook after every gradient; a frozen parameter, to which torch gives neither now, may be let go later."""
    requires = parameter.requires_grad
    parameter.requires_grad_(True)
    try:
        return parameter.register_post_accumulate_grad_hook(hook)
    finally:
        parameter.requires_grad_(requires)


@torch.no_grad()
def _zero_all(pairs: list[tuple[nn.Parameter, Tensor]], room: Tensor | None = None) -> None:
    for parameter, alive in pairs:
        _zero(parameter, alive, room)


def _zero(tensor: Shaped[Tensor, "*shape"] | None, alive: Bool[Tensor, "*shape"], room: Tensor | None = None) -> None:
    """Zero in place what is not alive.

    The numbers are taken as integers of their size and multiplied by 0 or 1: exact for every bit pattern, NaN included,
    and on a CPU five to ten times as fast as ``masked_fill_``, which branches at every weight. With ``room`` to widen a
    piece of the mask to such integers first it takes a third to a half of that again.
    """
    if tensor is None:
        return
    if tensor.is_sparse:
        raise TypeError(
            "a gradient is sparse, as that of nn.Embedding(sparse=True), and a mask is of plain ones: make the embedding with "
            "sparse=False"
        )
    if tensor.requires_grad and torch.is_grad_enabled():  # a gradient with a graph behind it, for second derivatives
        tensor.masked_fill_(~alive, 0)
        return
    bits = tensor.view(_INTEGERS[tensor.element_size()])
    if room is None or bits.device != room.device or bits.dtype != room.dtype or not bits.is_contiguous():
        bits.mul_(alive)
        return
    pieces = (flat.reshape(-1).split(len(room)) for flat in (bits, alive))
    for numbers, keep in zip(*pieces, strict=True):
        numbers.mul_(room[: len(numbers)].copy_(keep))


def _forget(optimizer: torch.optim.Optimizer, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, alive in pairs:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                _zero(value, alive)
