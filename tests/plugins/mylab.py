"""A user's own module, as a plug-in: a task and a rule, with nothing registered anywhere."""

from __future__ import annotations

import torch
from torch import nn

from trainflat import train


class Blobs:
    """Four Gaussian clouds and a small net with dropout: trains in milliseconds."""

    name = "blobs"
    head = ("2.",)
    note = "256 points in four clouds"

    def __init__(self, batch_size: int, explode_at: int | None):
        draw = torch.Generator().manual_seed(0)
        self.labels = torch.arange(256) % 4
        centres = torch.randn(4, 8, generator=draw) * 2
        self.points = centres[self.labels] + torch.randn(256, 8, generator=draw)
        self.batch_size, self.explode_at, self.calls = batch_size, explode_at, 0
        self.steps_per_epoch = -(-192 // batch_size)

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2)), nn.Identity(), nn.Linear(32, 4)
            )

    def objective(self, model: nn.Module, batch) -> torch.Tensor:
        self.calls += 1
        loss = train.cross_entropy(model, batch)
        return loss * float("nan") if self.calls == self.explode_at else loss

    def batches(self, seed: int) -> train.Stream:
        return train.Stream(192, self.batch_size, lambda i: (self.points[i], self.labels[i]), seed=seed)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        held_out = [(self.points[192:], self.labels[192:])]
        return train.evaluate(model, held_out, lambda z, y: {"accuracy": float((z.argmax(-1) == y).mean())})

    def held_out_batches(self, first: int | None = None):
        last = 192 + (first or 64)
        return [(self.points[192:last], self.labels[192:last])]

    def prunable(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and not name.startswith(self.head)

    def inputs(self, size: int = 32) -> torch.Tensor:
        return self.points[192 : 192 + size]


def blobs(*, batch_size: int = 16, explode_at: int | None = None) -> Blobs:
    """The task; ``explode_at`` makes that call of the objective return NaN."""
    return Blobs(batch_size, explode_at)


def noisy(sigma: float = 0.01):
    """The gradient at a randomly perturbed point: a user's own rule."""

    def rule(closure, params, t):
        was = {name: p.detach().clone() for name, p in params.items()}
        with torch.no_grad():
            for p in params.values():
                p.add_(torch.randn_like(p), alpha=sigma)
        loss = closure()
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(was[name])
        return loss

    return rule
