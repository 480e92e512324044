"""Which structures live: learnable hard-concrete gates on heads, neurons, layers and hidden dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from trainflat.compress import concrete
from trainflat.compress.gating import under
from trainflat.compress.sizes import Counting, sparsity
from trainflat.compress.units import FAMILIES, Structure, alive
from trainflat.train.seeds import derive

__all__ = ["Gates"]

OPEN, SPREAD = 10.0, 0.01  # CoFi's initial log-alphas: N(10, 0.01^2), those of neurons N(logit(1 - rate), 0.01^2)


class Gates(nn.Module):
    """Hard-concrete gates for five families of structures, after CoFi (Xia et al. 2022, arXiv:2204.00408).

    One log-alpha for each attention layer, head, FFN layer, FFN neuron and hidden dimension; a head lives if its own gate
    and its layer's are open. In training every forward pass samples them, in evaluation they are what `deterministic` says.
    Train ``gates.parameters()`` beside the model's (CoFi: AdamW, lr 0.01) and call `clamp` after every step.

    Args:
        structure: Of the model: ``compress.structure(model)``.
        families: Which to have; the others stay open. Default: all five.
        drop: Probability with which a neuron's concrete number starts in the lower half. Default: 0.5, CoFi's droprate_init.
        seed: Draws the initial log-alphas.

    Raises:
        TypeError: If the structure is something else, such as the model.
        ValueError: If a family is unknown or there is none, or ``drop`` is not in (0, 1).

    Example:
        >>> from trainflat.compress import shrink, structure
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small().eval()
        >>> gates = Gates(structure(model), families=["head", "ffn"])
        >>> with torch.no_grad():
        ...     _ = gates.log_alpha["head"][0, :3].fill_(-9.0)              # three of the four heads of layer 0
        >>> with gates.on(model):
        ...     masked = model(torch.ones(1, 8, 8))
        >>> small = shrink(model, gates.structure, gates.deterministic())
        >>> bool(torch.allclose(small(torch.ones(1, 8, 8)), masked, atol=1e-5)), small.layers[0].attention.heads
        (True, 1)
    """

    def __init__(self, structure: Structure, *, families: Sequence[str] = FAMILIES, drop: float = 0.5, seed: int = 0):
        super().__init__()
        if not isinstance(structure, Structure):
            raise TypeError(f"a structure is what compress.structure(model) returns, got {type(structure).__name__}")
        if unknown := [name for name in families if name not in FAMILIES] or not families:
            raise ValueError(f"families are some of {', '.join(FAMILIES)}, got {unknown if families else 'none'}")
        if not 0 < drop < 1:
            raise ValueError(f"drop is a probability and must be in (0, 1), got {drop}")
        generator = torch.Generator().manual_seed(derive("gates", seed))
        self.structure = structure
        self.alive: tuple[Tensor, Tensor] | None = None
        self.log_alpha = nn.ParameterDict()
        for family in (name for name in FAMILIES if name in families):
            mean = math.log(1 - drop) - math.log(drop) if family == "intermediate" else OPEN
            start = mean + SPREAD * torch.randn(structure.shapes[family], generator=generator)
            self.log_alpha[family] = nn.Parameter(start)

    def sample(self) -> dict[str, Tensor]:
        """Gates drawn from the global random stream, with a gradient for the log-alphas; all five families."""
        return self._complete({family: concrete.sample(alpha) for family, alpha in self.log_alpha.items()})

    def probability(self) -> dict[str, Tensor]:
        """P(z > 0) of every gate, with a gradient."""
        return self._complete({family: concrete.open_probability(alpha) for family, alpha in self.log_alpha.items()})

    def deterministic(self) -> dict[str, Tensor]:
        """The gates of evaluation: soft, in each group as many zeros as a sample has on average, the smallest first.

        Groups are the heads of a layer, the neurons of a layer, all hidden dimensions; a layer's own gate is a group of one.
        Of the hidden dimensions at least one stays.
        """
        with torch.no_grad():
            found = {}
            for family, alpha in self.log_alpha.items():
                groups = alpha[:, None] if family in ("attention", "ffn") else alpha
                found[family] = concrete.expected(groups, least=int(family == "hidden")).reshape(alpha.shape)
            return self._complete(found)

    def sparsity(self, counting: Counting = "exact") -> Tensor:
        """The expected share of the layers' parameters that is pruned, with a gradient; see `trainflat.compress.sizes`."""
        return sparsity(self.structure, self.probability(), counting)

    @torch.no_grad()
    def clamp(self) -> None:
        """Put the log-alphas back into [ln 0.01, ln 100], where their gradient is alive: after every step of their optimizer."""
        for alpha in self.log_alpha.values():
            alpha.clamp_(*concrete.CLAMP)

    def on(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """While open, the model runs through the gates: sampled where it trains, deterministic where it is evaluated.

        Nothing is wrapped and no state-dict key changes; see `trainflat.compress.gating.gated`. A SAM rule whose passes
        replay dropout replays the gates as well. ``alive`` then says which layers had an attention and an FFN in the last pass.

        Raises:
            TypeError, LookupError, ValueError: If it is not a model of this structure.
        """

        def draw(called: nn.Module) -> dict[str, Tensor]:
            z = self.sample() if called.training else self.deterministic()
            self.alive = alive(z)
            return z

        return under(model, self.structure, draw)

    def _complete(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        device = next(iter(found.values())).device
        dtype = next(iter(found.values())).dtype
        missing = {name: shape for name, shape in self.structure.shapes.items() if name not in found}
        return {**found, **{name: torch.ones(shape, device=device, dtype=dtype) for name, shape in missing.items()}}
