"""The loss over a whole data set as a function of the weights: what every measure of flatness asks, and all that it asks.

A point, a gradient and a direction are flat vectors: the trainable parameters one after the other, as the model names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from trainflat.flat.choices import as_gradient
from trainflat.flat.moving import check_plain
from trainflat.flat.twice import twice_differentiable
from trainflat.train.batches import examples, finite, to_device
from trainflat.train.closure import loss_of
from trainflat.train.evaluate import evaluating
from trainflat.train.loop import NonFiniteLoss
from trainflat.types import Batch, Objective

__all__ = ["Loss", "Vector", "check_loss", "dot", "norm"]

Vector = Float[Tensor, " weights"]
"""A point, a gradient or a direction in weight space."""


class Loss:
    """f(w) = 1/N sum_i loss_i(w) over all N examples given, of a model in evaluation mode, with its derivatives.

    Measuring leaves no trace: weights (whose memory is never written), gradients, modes and the random stream are
    afterwards what they were. Beside the weights there is at most one vector of their size in here, and what a batch takes.

    Args:
        model: Where its weights are is where the loss is measured; what is not trainable stays.
        objective: ``(model, batch) -> loss``, the *mean* over the batch's examples.
        batches: Pairs ``(inputs, labels)``, or what else the objective takes; kept, since each pass goes over all of them. Each
            counts by its examples.
        mask: ``{name: bool tensor}``, as a `trainflat.compress.Mask` is. Coordinates that are False are frozen: gradients
            and curvature are zero there. Default: what a mask that is now on the model (``with mask.on(model):``) has
            pruned, else none. A model that merely has zeros moves them.
        after: Called after every pass over the data; may raise in order to stop.

    Raises:
        TypeError: If a weight is sharded or complex.
        ValueError: If there is nothing trainable, there are no batches or no end of them, or the mask does not fit the model.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> loss = Loss(model, lambda model, batch: (model(batch[0]) ** 2).mean(), [(torch.ones(4, 1), torch.zeros(4))])
        >>> loss
        Loss(of a Linear, 1 weights, over 4 examples)
        >>> loss.value(), loss.gradient()[1], loss.hessian_times(torch.ones(1))          # w^2 at w = 3
        (9.0, tensor([6.]), tensor([2.]))
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Iterable[Batch],
        *,
        mask: Mapping[str, Bool[Tensor, " ..."]] | None = None,
        after: Callable[[], None] = lambda: None,
    ):
        self.model, self.objective, self.batches, self.after = model, objective, list(finite(batches)), after
        self.params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.params:
            raise ValueError("there is nothing to move: no parameter of the model requires a gradient")
        if not self.batches:
            raise ValueError("there is nothing to measure the loss on: no batches were given")
        if len(kinds := {f"{p.dtype} on {p.device}": name for name, p in self.params.items()}) > 1:
            some = ", ".join(f"{name!r} is {kind}" for kind, name in kinds.items())
            raise ValueError(
                f"all trainable weights must be of one type on one device to be one vector, but {some}: measure a copy, "
                "copy.deepcopy(model).float(), or freeze those that are not to move"
            )
        check_plain(self.params)
        first = next(iter(self.params.values()))
        self.dtype, self.device = first.dtype, first.device
        self.sizes = [p.numel() for p in self.params.values()]
        self.examples = sum(map(examples, self.batches))
        self.alive = self._alive(_on(self.params) if mask is None else mask)

    def __repr__(self) -> str:
        frozen = "" if self.alive is None else f", {self.size - self.live:,} of them frozen"
        return f"Loss(of a {type(self.model).__name__}, {self.size:,} weights{frozen}, over {self.examples:,} examples)"

    @property
    def size(self) -> int:
        """Coordinates, frozen ones included."""
        return sum(self.sizes)

    @property
    def live(self) -> int:
        """Coordinates that may move."""
        return self.size if self.alive is None else int(self.alive.sum())

    def weights(self) -> Vector:
        """A copy of the weights as one vector."""
        return torch.cat([p.detach().reshape(-1) for p in self.params.values()])

    def flat(self, state: Mapping[str, Tensor]) -> Vector:
        """The same of a `trainflat.train.snapshot` of such a model.

        Raises:
            ValueError: If it is of another model.
        """
        for name, p in self.params.items():
            if name not in state or state[name].shape != p.shape:
                has = f"of shape {tuple(state[name].shape)}" if name in state else "none"
                raise ValueError(
                    f"this state is of another model: there is a weight {name!r} of shape {tuple(p.shape)} here, and {has} there"
                )
        return torch.cat([state[name].detach().reshape(-1).to(self.device, self.dtype) for name in self.params])

    def pieces(self, vector: Shaped[Tensor, " weights"]) -> Iterator[tuple[Tensor, nn.Parameter]]:
        """Each parameter with its piece of a vector, shaped as it: a view."""
        for piece, p in zip(vector.split(self.sizes), self.params.values(), strict=True):
            yield piece.view_as(p), p

    def freeze(self, vector: Vector) -> Vector:
        """Zero the frozen coordinates of a vector, in place."""
        return vector if self.alive is None else vector.mul_(self.alive)

    @contextmanager
    def at(self, point: Vector) -> Iterator[None]:
        """Meanwhile the model's weights are those of the vector; their own memory is not written."""
        own = [p.data for p in self.params.values()]
        try:
            for piece, p in self.pieces(point):
                p.data = piece
            torch.clear_autocast_cache()  # it keeps what it cast by the parameter, not by its value
            yield
        finally:
            for p, data in zip(self.params.values(), own, strict=True):
                p.data = data
            torch.clear_autocast_cache()

    def value(self) -> float:
        """f at the model's weights.

        Raises:
            NonFiniteLoss: If it is not finite.
        """
        with self._untouched(), torch.no_grad():
            return self._sum(share * loss_of(self.objective, self.model, batch) for batch, share in self._shares())

    def gradient(self) -> tuple[float, Vector]:
        """f and its gradient, zero in frozen coordinates. A parameter that the loss does not depend on has gradient zero.

        Raises:
            NonFiniteLoss: If f is not finite.
            ValueError: If it does not depend on the weights.
        """

        def backward() -> Iterator[Tensor]:
            for batch, share in self._shares():
                loss = share * self._with_graph(batch)
                loss.backward()
                yield loss.detach()

        with self._untouched(), _grad_mode(), self._gathered() as gathered:
            value = self._sum(backward())
        return value, self.freeze(gathered)

    def hessian_times(self, vector: Vector) -> Vector:
        """H v, the second derivatives of f times a vector, between live coordinates only: P H P v with P the projection on them.

        Pearlmutter 1994, "Fast exact multiplication by the Hessian": the gradient of g'v, about the time of two gradients
        more. Where torch's fast kernels have no second derivative, or a wrong one, plain ones run: see `trainflat.flat.twice`.

        Raises:
            NonFiniteLoss, ValueError: As `gradient`.
        """

        def twice(direction: Vector) -> Iterator[Tensor]:
            for batch, share in self._shares():
                loss = share * self._with_graph(batch)
                params = list(self.params.values())
                first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
                pairs = [(g, v) for g, (v, _) in zip(first, self.pieces(direction), strict=True) if g.requires_grad]
                if pairs:
                    torch.autograd.backward([g for g, _ in pairs], [v for _, v in pairs])
                yield loss.detach()

        with self._untouched(), _grad_mode(), twice_differentiable(), self._gathered() as gathered:
            self._sum(twice(self.freeze(vector.clone())))
        return self.freeze(gathered)

    def _alive(self, mask: Mapping[str, Bool[Tensor, " ..."]]) -> Bool[Tensor, " weights"] | None:
        """The mask over all coordinates; None if nothing is frozen."""
        for name, tensor in mask.items():
            p = self.params.get(name)
            if p is None or p.shape != tensor.shape:
                has = "no such trainable parameter" if p is None else f"the shape {tuple(p.shape)} there"
                raise ValueError(f"the mask has {name!r} of shape {tuple(tensor.shape)}, but the model has {has}")
        if all(bool(tensor.all()) for tensor in mask.values()):
            return None
        alive = torch.ones(self.size, dtype=torch.bool, device=self.device)
        for (piece, _), name in zip(self.pieces(alive), self.params, strict=True):
            if name in mask:
                piece.copy_(mask[name])
        return alive

    def _with_graph(self, batch: Batch) -> Tensor:
        loss = loss_of(self.objective, self.model, batch)
        if not loss.requires_grad:
            raise ValueError(
                "the objective gives a loss that does not depend on the weights as far as torch can tell: it may come from "
                "another model, or from detach(), .item() or no_grad() inside the objective"
            )
        return loss

    def _shares(self) -> Iterator[tuple[Batch, float]]:
        for batch in self.batches:
            yield to_device(batch, self.device), examples(batch) / self.examples

    def _sum(self, losses: Iterable[Tensor]) -> float:
        value = float(torch.stack([loss.double() for loss in losses]).sum())
        if not math.isfinite(value):
            raise NonFiniteLoss(f"the mean loss over {self.examples} examples is {value}: the model has diverged")
        self.after()
        return value

    @contextmanager
    def _gathered(self) -> Iterator[Vector]:
        """Every backward pass meanwhile adds to this one vector: the gradients are views of it."""
        gathered = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for piece, p in self.pieces(gathered):
            p.grad = piece
        yield gathered

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Evaluation mode, and gradients, modes and the random stream put back."""
        learnt = self.objective.parameters() if isinstance(self.objective, nn.Module) else ()
        trained = [*self.params.values(), *learnt]
        gradients = [p.grad for p in trained]
        for p in trained:
            p.grad = None  # what was there is kept as it is, and not added to
        try:
            with evaluating(self.model), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                yield
        finally:
            for p, gradient in zip(trained, gradients, strict=True):
                p.grad = gradient


@contextmanager
def _grad_mode() -> Iterator[None]:
    """Derivatives are there, also where the caller only evaluates."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _on(params: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The mask that hooks hold on the model: what they leave of a gradient of ones. Otherwise they would zero rows of the
    Hessian and not its columns, and what is then measured would be no symmetric matrix."""
    held = {name: p for name, p in params.items() if getattr(p, "_post_accumulate_grad_hooks", None)}
    return {name: as_gradient(p, torch.ones_like(p.detach())) != 0 for name, p in held.items()}


def check_loss(loss: Loss) -> None:
    """Raise the TypeError of what is not a `Loss`, such as the model alone."""
    if not isinstance(loss, Loss):
        raise TypeError(
            "this measures a loss as a function of the weights, flat.Loss(model, objective, batches) with held-out batches; got "
            f"a {type(loss).__name__}"
        )


def dot(one: Vector, other: Vector) -> float:
    """The inner product of two vectors, in float32 or wider."""
    wide = torch.promote_types(one.dtype, torch.float32)
    return float(torch.dot(one.to(wide), other.to(wide)))


def norm(vector: Vector) -> float:
    """The length of a vector, in float32 or wider."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.promote_types(vector.dtype, torch.float32)))
