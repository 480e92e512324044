"""Which weights matter: a score maps a model to one tensor per parameter; higher means keep."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainflat.train.seeds import derive

__all__ = ["magnitude", "random"]


def magnitude(model: nn.Module) -> dict[str, Float[Tensor, " ..."]]:
    """|w|. Han et al. 2015, arXiv:1506.02626; the criterion of the lottery tickets of Frankle & Carbin 2019 and Chen et al. 2020.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 2.0]]))
        >>> magnitude(layer)["weight"]
        tensor([[3., 2.]])
    """
    return {name: p.detach().abs() for name, p in model.named_parameters()}


def random(model: nn.Module, *, seed: int = 0) -> dict[str, Float[Tensor, " ..."]]:
    """Uniform in [0, 1), the same on every device: the control of every claim about a score. Decided by the seed and the name.

    Example:
        >>> a, b = random(nn.Linear(3, 2), seed=1), random(nn.Linear(3, 2), seed=1)
        >>> torch.equal(a["weight"], b["weight"])
        True
    """
    return {name: _uniform(name, p, seed) for name, p in model.named_parameters()}


def _uniform(name: str, parameter: Float[nn.Parameter, "*shape"], seed: int) -> Float[Tensor, "*shape"]:
    generator = torch.Generator().manual_seed(derive(f"score/{name}", seed))
    return torch.rand(parameter.shape, generator=generator).to(parameter.device)
