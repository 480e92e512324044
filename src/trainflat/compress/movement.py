"""Movement pruning: a weight lives if it moves away from zero while the model learns, however large it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from trainflat.compress.masks import Mask
from trainflat.compress.prune import prune
from trainflat.train.compiled import uncompiled
from trainflat.train.schedules import at, cubic
from trainflat.types import Batch, Objective, Schedule

__all__ = ["Movement", "ramp"]

TAU = 0.1


class Movement(nn.Module):
    """An objective with one learnt score S for each prunable weight W; the model computes with W * M(S).

    Sanh et al. 2020, arXiv:2005.07683. M is not differentiable, so its gradient is passed straight through: dL/dS = dL/dW' * W
    and dL/dW = dL/dW' * M, with W' = W * M. A score thus gathers -lr * W * dL/dW': it rises while its weight moves from zero.
    ``"hard"``: M keeps the largest scores, exactly as many as the sparsity says. ``"soft"``: M keeps where sigmoid(S) > tau,
    and the objective grows by strength * mean sigmoid(S), so how many are kept is learnt. That mean is over all scores alike; the
    authors' code averages the matrices' means, and keeps 0.5 % of each matrix whatever its scores: here one may lose all.

    Open it with ``on(model)``, train its ``groups()`` beside the model, call `advance` before every step. A weight may come back:
    nothing is set to zero before `mask` is applied. Readers of Na et al. 2022 asked what SAM should perturb: by default the
    weights alone, since scores are no parameters of the model; with ``on(model, perturb="scores")`` both, in one ball.

    Args:
        objective: What the model minimises.
        model: The model; its prunable parameters get scores of 0.
        where: Which parameters, ``task.prunable``.
        kind: ``"hard"`` or ``"soft"``.
        sparsity: Of ``"hard"``: the share that is pruned, in [0, 1), a number or a schedule (see `ramp`).
        strength: Of ``"soft"``: lambda, >= 0, a number or a schedule. Default: 400, as the authors' scripts for SQuAD.
        tau: Of ``"soft"``: in [0, 1), a number or a schedule. Default: 0.1, Sanh et al.; their scripts raise it with lambda.
        scope: Whether ``"hard"`` ranks each ``"tensor"`` by itself (Sanh et al., the default) or all together ("global").
        lr: Of the scores. Default: 0.01, Sanh et al.

    Raises:
        ValueError: If a value is outside its range, or nothing is prunable.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.1, 3.0]]))       # the small one has to grow, the large one to shrink
        >>> held = Movement(lambda m, x: (m(x)[:, 0] - x[:, 0]).square().sum() / 2, model, sparsity=0.5)
        >>> sgd = torch.optim.SGD([{"params": model.parameters()}, *held.groups()], lr=0.05)
        >>> held.mask()["weight"]                                         # all scores are equal: the first weight goes
        tensor([[False,  True]])
        >>> with held.on(model):
        ...     for _ in range(5):
        ...         held(model, torch.eye(2)).backward(); sgd.step(); sgd.zero_grad()
        >>> held.mask()["weight"], bool(model.weight[0, 0] < model.weight[0, 1])     # though it is still the smaller one
        (tensor([[ True, False]]), True)
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        where: Callable[[str, nn.Parameter], bool] = lambda name, parameter: True,
        *,
        kind: Literal["hard", "soft"] = "hard",
        sparsity: float | Schedule = 0.9,
        strength: float | Schedule = 400.0,
        tau: float | Schedule = TAU,
        scope: Literal["global", "tensor"] = "tensor",
        lr: float = 0.01,
    ):
        super().__init__()
        if kind not in ("hard", "soft"):
            raise ValueError(f"kind must be 'hard' or 'soft', got {kind!r}")
        if scope not in ("global", "tensor"):
            raise ValueError(f"scope must be 'global' or 'tensor', got {scope!r}")
        chosen = {name: p for name, p in model.named_parameters() if where(name, p)}
        if not chosen:
            raise ValueError("no parameter is prunable, so there is nothing to score")
        self.objective, self.kind, self.lr = objective, kind, lr
        self.scope: Literal["global", "tensor"] = scope
        self._schedules = {"sparsity": sparsity, "strength": strength, "tau": tau}
        self._names = {name: _key(name) for name in chosen}
        self.scores = nn.ParameterDict({_key(name): torch.zeros_like(p) for name, p in chosen.items()})
        self.advance(0.0)

    def advance(self, t: float) -> None:
        """Before the step at progress ``t``: its sparsity, or its strength and tau."""
        self.sparsity, self.strength, self.tau = (at(value, t) for value in self._schedules.values())
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {self.sparsity} at t = {t:.3f}")
        if self.strength < 0:
            raise ValueError(f"strength must be at least 0, got {self.strength} at t = {t:.3f}")
        if not 0 <= self.tau < 1:
            raise ValueError(f"tau is compared with a sigmoid and must be in [0, 1), got {self.tau} at t = {t:.3f}")

    def reached(self) -> bool:
        """Whether the sparsity (or the strength) is the last one."""
        name = "sparsity" if self.kind == "hard" else "strength"
        return getattr(self, name) >= at(self._schedules[name], 1.0)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The objective, and what soft scores cost."""
        loss = self.objective(model, batch)
        if self.kind == "hard":
            return loss
        count = sum(score.numel() for score in self.scores.values())
        return loss + self.strength * torch.stack([torch.sigmoid(s).sum() for s in self.scores.values()]).sum() / count

    @torch.no_grad()
    def mask(self) -> Mask:
        """Which weights live now: the mask to prune with in the end."""
        scores = {name: self.scores[key].detach() for name, key in self._names.items()}
        if self.kind == "soft":
            return Mask({name: torch.sigmoid(score) > self.tau for name, score in scores.items()})
        if any(score.device.type != "cpu" for score in scores.values()):
            return _prune_there(scores, self.sparsity, self.scope)
        whole = Mask({name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()})
        return prune(scores, self.sparsity, within=whole, scope=self.scope)

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's group of the scores, without weight decay; the schedule of the weights is theirs as well."""
        return [{"params": list(self.scores.parameters()), "lr": self.lr, "weight_decay": 0.0}]

    @contextmanager
    def on(self, model: nn.Module, *, perturb: Literal["weights", "scores"] = "weights") -> Iterator[nn.Module]:
        """While open, every forward pass of the model uses W * M(S), in training and in evaluation.

        Nothing is wrapped. ``perturb="scores"`` makes the scores parameters of the model meanwhile, so that a rule such as SAM
        moves them with the weights, and clipping counts them. A copy of the model that is made meanwhile is under the same mask
        for as long. Compiled models run uncompiled meanwhile.

        Raises:
            ValueError: If ``perturb`` is neither word.
            RuntimeError: While open, if a layer runs outside of the model's forward pass, as activation checkpointing has it.
        """
        if perturb not in ("weights", "scores"):
            raise ValueError(f"perturb must be 'weights' or 'scores', got {perturb!r}")
        places = {name: _places(model, name) for name in self._names}

        def enter(called: nn.Module, *_: Any) -> None:
            for name, alive in self.mask().items() if handles else ():  # a copy may outlive them
                own, score = called.get_parameter(name), self.scores[self._names[name]]
                through = alive.to(own.dtype) + (score - score.detach())  # exactly M, with the gradient of S
                masked = own * through
                for home, attribute in places[name] if called is model else _places(called, name):
                    home._parameters[attribute] = masked  # pyright: ignore[reportArgumentType]
                    kept.append((home, attribute, own))

        def leave(*_: Any) -> None:
            while kept:
                home, attribute, own = kept.pop()
                home._parameters[attribute] = own

        def outside(home: nn.Module, *_: Any) -> None:
            if handles and not kept and torch.is_grad_enabled() and not isinstance(home, ParametrizationList):
                raise RuntimeError(
                    f"a {type(home).__name__} ran outside of the model's own forward pass, where it is without its mask: call "
                    "the model itself, and train it without activation checkpointing, which runs layers again on the way back"
                )

        kept: list[tuple[nn.Module, str, nn.Parameter]] = []
        handles = [
            model.register_forward_pre_hook(enter),
            model.register_forward_hook(leave, always_call=True),
        ]
        homes = {id(home): home for found in places.values() for home, _ in found}
        handles += [home.register_forward_pre_hook(outside) for home in homes.values()]
        guests = {f"score/{key}": score for key, score in self.scores.items()} if perturb == "scores" else {}
        for name, score in guests.items():
            model.register_parameter(name, score)
        try:
            with uncompiled():
                yield model
        finally:
            leave()
            while handles:
                handles.pop().remove()
            for name in guests:
                delattr(model, name)


def ramp(sparsity: float, *, begin: float = 0.1, end: float = 0.8) -> Schedule:
    """0 until ``begin``, then ``sparsity`` * (1 - (1 - u)^3) with u from 0 to 1 at ``end``, then ``sparsity``.

    Zhu & Gupta 2017, eq. (1), arXiv:1710.01878, with the pauses of Sanh et al. 2020: on SQuAD 5,400 steps before and twice as
    many after, of 55,000, from which the defaults come.

    Raises:
        ValueError: If the sparsity is outside [0, 1), or not 0 <= begin < end <= 1.

    Example:
        >>> [round(ramp(0.8)(t), 3) for t in (0.0, 0.1, 0.45, 0.8, 1.0)]
        [0.0, 0.0, 0.7, 0.8, 0.8]
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    if not 0 <= begin < end <= 1:
        raise ValueError(f"begin and end are shares of the run, begin before end; got {begin} and {end}")

    rise = cubic(0.0, sparsity)
    return lambda t: rise(min(max((t - begin) / (end - begin), 0.0), 1.0))


def _prune_there(scores: dict[str, Tensor], sparsity: float, scope: str) -> Mask:
    """The same weights as `prune`, by sorting where the scores are: a GPU would wait for the CPU in every pass."""
    if scope == "tensor":
        return Mask({name: _prune_there({name: score}, sparsity, "global")[name] for name, score in scores.items()})
    together = torch.cat([score.flatten() for score in scores.values()])
    alive = torch.ones_like(together, dtype=torch.bool)
    alive[together.argsort(stable=True)[: round(sparsity * len(together))]] = False
    parts = alive.split([score.numel() for score in scores.values()])
    return Mask({name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)})


def _key(name: str) -> str:
    """A parameter's name as that of a score: torch allows no dots there."""
    return name.replace(".", "/")


def _places(model: nn.Module, name: str) -> list[tuple[nn.Module, str]]:
    """Every module and attribute where the parameter is: a tied one has several."""
    wanted = model.get_parameter(name)
    return [(home, attribute) for home in model.modules() for attribute, p in home._parameters.items() if p is wanted]
