"""Which parameters leave their place: by type of module and by where it stands, never by name.

A pruned weight needs no choice here: its gradient is zero under a mask, so that it never moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps

from torch import nn

from trainflat.types import Params

__all__ = ["Where", "head", "last_layers", "matrices", "norm_layers", "some"]

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Where = Callable[[nn.Module, Params], set[str]]
"""``(model, params) -> names``: the parameters that move."""


def norm_layers(model: nn.Module, params: Params) -> set[str]:
    """The parameters of normalisation layers: torch's own, and those that any module whose class is called something with
    ``Norm`` has itself, not in modules inside it (a ``PreNorm`` block holds a whole layer)."""
    norms = (m for m in model.modules() if "Norm" in type(m).__name__)
    return _chosen(params, (p for m in norms for p in m.parameters(recurse=False)), "norm layers")


def last_layers(count: int) -> Where:
    """The last ``count`` layers of the model and what comes after them; 0 is the head alone.

    The layers are the longest ``nn.ModuleList`` or ``nn.Sequential`` of modules of one type (a transformer's), or else all
    modules with parameters of their own, in the order in which they were made.
    """
    if count < 0:
        raise ValueError(f"count is a number of layers and must be at least 0, got {count}")

    def where(model: nn.Module, params: Params) -> set[str]:
        modules = list(model.modules())
        lists = [list(m) for m in modules if isinstance(m, (nn.ModuleList, nn.Sequential))]
        stacks = [layers for layers in lists if len(layers) > 1 and len({type(layer) for layer in layers}) == 1]
        layers = max(stacks, key=len, default=None) or [m for m in modules if list(m.parameters(recurse=False))]
        if count >= len(layers):
            return set(params)
        inside = {id(m) for layer in layers for m in layer.modules()}
        end = max(i for i, m in enumerate(modules) if id(m) in inside)
        after = [m for m in modules[end + 1 :] if id(m) not in inside]
        ends = [*layers[len(layers) - count :], *after]
        return _chosen(params, (p for m in ends for p in m.parameters()), f"parameters in its last {count} layers")

    return where


def matrices(model: nn.Module, params: Params) -> set[str]:
    """The weights of linear and convolutional layers: what is pruned and quantized. Embeddings, norms, biases are not.

    GPT-2's ``Conv1D`` of transformers is a linear layer, too; an output layer that shares its weights with an embedding is one.
    A weight that a parametrization makes anew in every pass, as weight_norm does, is none: it is no parameter.
    """
    modules = list(model.modules())
    embeddings = {id(_weight(m)) for m in modules if isinstance(m, nn.Embedding)}
    weights = {id(_weight(m)) for m in modules if _is_matrix(m)} - embeddings
    return {name for name, p in params.items() if id(p) in weights}


def some(where: Where) -> Where:
    """The same choice, which says so if it chooses nothing that is trained.

    Raises:
        TypeError: If it does not give names.
        ValueError: If none of them is one of a trainable parameter.
    """

    @wraps(where)
    def chosen(model: nn.Module, params: Params) -> set[str]:
        names = where(model, params)
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"`where` gives the set of the names of the parameters that move; this one gave {names!r}")
        given = list(names)
        if found := params.keys() & given:
            return found
        gave = f"{given[0]!r} and {len(given) - 1} more" if given else "no name"
        raise ValueError(
            f"`where` chose nothing to move: it gave {gave}, and the trainable parameters are named like "
            f"{next(iter(params))!r}; use plain to move none"
        )

    return chosen


def head(model: nn.Module) -> set[int]:
    """The ids of the parameters of the model's head, which a task of its own puts on an encoder that others share.

    Where a transformers model is inside (one whose ``base_model_prefix`` names its encoder) all that is outside that encoder, as
    `trainflat.hf` has it: BERT's pooler is in it, RoBERTa's two layers are head. An encoder of theirs alone has none. Of any
    other model the last linear or convolutional layer, in the order in which they were made.
    """
    for owner in model.modules():
        encoder = getattr(owner, getattr(owner, "base_model_prefix", "") or "", None)
        if isinstance(encoder, nn.Module):
            inside = set(encoder.modules())
            outside = (m for m in model.modules() if m not in inside)
            return {id(p) for m in outside for p in m.parameters(recurse=False)}
    if hasattr(getattr(model, "module", model), "base_model_prefix"):
        return set()
    last = [m for m in model.modules() if _is_matrix(m)][-1:]
    return {id(p) for m in last for p in m.parameters()}


def _is_matrix(module: nn.Module) -> bool:
    """Whether it is a linear or convolutional layer; transformers is not imported to know its own."""
    kind = type(module)
    return isinstance(module, MATRICES) or (kind.__name__, kind.__module__) == ("Conv1D", "transformers.pytorch_utils")


def _weight(module: nn.Module) -> nn.Parameter | None:
    """Its weight if that is a parameter; one that is computed is not asked for, since that may change the model."""
    return module._parameters.get("weight")


def _chosen(params: Params, chosen: Iterable[nn.Parameter], what: str) -> set[str]:
    ids = {id(p) for p in chosen}
    names = {name for name, p in params.items() if id(p) in ids}
    if not names:
        raise ValueError(f"there is nothing to move: this model has no {what} among its trainable parameters; use sam")
    return names
