"""Gates at work: hooks that multiply what heads, neurons, layers and hidden dimensions say by how far each is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainflat.compress.units import Structure, Sublayer, alive, check_fit, module
from trainflat.train.compiled import uncompiled

__all__ = ["gated", "under", "without_gates"]

Openness = Mapping[str, Tensor]


def gated(model: nn.Module, structure: Structure, draw: Callable[[], Openness]) -> AbstractContextManager[nn.Module]:
    """While open, every forward pass of ``model`` draws gates and runs through them; nothing is wrapped, no key changes.

    As in CoFi (Xia et al. 2022, arXiv:2204.00408): a head's gate multiplies its context, a neuron's its activation, a
    layer's the output of its sub-layer, bias included, a hidden dimension's the embeddings and every sub-layer's and norm's
    output; a LayerNorm runs over the living dimensions only. Where nothing of a sub-layer lives, its norm is left out as well
    and the residual passes as it is. With all gates at 1 the outputs are the model's own, bit for bit. A copy of the model that
    is made meanwhile runs through the gates for as long. Compiled models run uncompiled meanwhile, since they know of no gates.

    Args:
        model: The model that will be called; its own forward draws the gates.
        draw: Returns ``{family: tensor}`` on the model's device, a family that is missing being wide open. Called once for
            each forward pass, so that in training every pass has gates of its own.

    Raises:
        TypeError, LookupError, ValueError: If the structure is another model's; in the forward pass, if the gates are another
            structure's.

    Example:
        >>> from trainflat.compress.dialects import structure
        >>> from trainflat.tasks import zoo
        >>> model = zoo.vit_small().eval()
        >>> found, x = structure(model), torch.ones(1, 8, 8)
        >>> shut = {**found.open(), "hidden": torch.zeros(64)}
        >>> with gated(model, found, lambda: shut):              # nothing reaches the pooler: only its bias, 0, is left
        ...     bool((model(x) == model.classifier.bias).all())
        True
    """
    return under(model, structure, lambda called: draw())


@contextmanager
def under(model: nn.Module, structure: Structure, draw: Callable[[nn.Module], Openness]) -> Iterator[nn.Module]:
    """As `gated`; ``draw`` is told which module is called, the model or a copy of it."""
    check_fit(model, structure)
    current = _Current(structure, next(model.parameters()).device)
    handles = []

    def gate(hook: Callable) -> Callable:
        def marked(*given: Any) -> Any:
            return hook(*given) if handles else None  # a copy may outlive the gates

        marked.gate = True  # pyright: ignore[reportFunctionMemberAccess]
        return marked

    def before(name: str, change: Callable[[Tensor], Tensor]) -> None:
        handles.append(
            module(model, name).register_forward_pre_hook(gate(lambda _, args: (change(args[0]), *args[1:])))
        )

    def after(name: str, change: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        handles.append(
            module(model, name).register_forward_hook(gate(lambda at, args, output: change(at, args[0], output)))
        )

    def sublayer(part: Sublayer, family: str, i: int) -> None:
        before(part.writes, lambda x: x * current.units[family][i].to(x.dtype))
        after(part.writes, lambda at, x, y: y * current.outputs[family][i].to(y.dtype))
        lives = None if structure.pre_norm else lambda: current.alive[family][i]
        after(part.norm, lambda at, x, y: current.normalised(at, x, lives).to(y.dtype))

    try:
        handles.append(model.register_forward_pre_hook(gate(lambda called, _: current.set(draw(called)))))
        if structure.entry_norm:
            after(
                structure.entry_norm,
                lambda at, x, y: current.normalised(at, x * current.hidden.to(x.dtype)).to(y.dtype),
            )
        else:
            after(structure.entry, lambda at, x, y: y * current.hidden.to(y.dtype))
        for i, (attention, ffn) in enumerate(zip(structure.attention, structure.ffn, strict=True)):
            sublayer(attention, "attention", i)
            sublayer(ffn, "ffn", i)
        if structure.last_norm:
            after(structure.last_norm, lambda at, x, y: current.normalised(at, x).to(y.dtype))
        with uncompiled():
            yield model
    finally:
        while handles:
            handles.pop().remove()


def without_gates(model: nn.Module) -> nn.Module:
    """Remove the gates from a copy that was made while they were on."""
    for inner in model.modules():
        for hooks in (inner._forward_hooks, inner._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if hasattr(hook, "gate")]:
                del hooks[key]
    return model


class _Current:
    """The gates of one forward pass, and what all layers have in common computed once."""

    def __init__(self, structure: Structure, device: torch.device):
        self.structure, self.open = structure, structure.open(device)

    def set(self, z: Openness) -> None:
        z = {**self.open, **self.structure.checked(z)}
        heads, neurons = z["head"], z["intermediate"]
        attention, ffn = alive(z)
        self.alive = {"attention": attention, "ffn": ffn}
        self.units = {
            "attention": heads.repeat_interleave(self.structure.attention[0].width, dim=-1),
            "ffn": neurons.repeat_interleave(self.structure.ffn[0].width, dim=-1),
        }
        self.hidden = z["hidden"]
        self.outputs = {name: (z[name] * self.alive[name])[:, None] * self.hidden for name in ("attention", "ffn")}
        lives = self.hidden > 0
        self.count = lives.sum().clamp(min=1).to(self.hidden.dtype)
        self.stretch = (len(lives) / self.count).sqrt()
        self.fill = ~lives * self.stretch

    def normalised(self, norm: nn.Module, x: Tensor, lives: Callable[[], Tensor] | None = None) -> Tensor:
        """LayerNorm over the living dimensions, times the hidden gates; x itself where ``lives()`` is false.

        x is zero at dead dimensions. Filled with the mean of the living ones and stretched by c = sqrt(all / living), all
        dimensions together have the mean c m and the variance of the living ones alone, so torch's fused LayerNorm over
        all gives c (x - m) / sqrt(v + eps). No index, and so no look at the numbers from the host.
        """
        assert isinstance(norm, nn.LayerNorm)
        wide = torch.promote_types(x.dtype, self.hidden.dtype)
        x = x.to(wide)
        mean = x.sum(-1, keepdim=True) / self.count
        filled = torch.addcmul(x * self.stretch, mean, self.fill.to(wide))
        weight, bias = norm.weight * (self.hidden / self.stretch), norm.bias * self.hidden
        y = functional.layer_norm(filled, norm.normalized_shape, weight, bias, norm.eps)
        return y if lives is None else torch.where(lives(), y, x)
