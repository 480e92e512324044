"""Cutting rows and columns out of linear layers, tables and norms, and whole sub-layers out of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainflat.compress.standins import STANDINS
from trainflat.compress.units import Structure, Sublayer, module

__all__ = ["Kept", "cut"]


@dataclass(frozen=True)
class Kept:
    """The indices of what stays: hidden dimensions, and heads and neurons of each layer."""

    hidden: Tensor
    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def cut(model: nn.Module, structure: Structure, kept: Kept) -> None:
    """Cut everything else out of the model, in place: its modules, names and sizes follow."""
    for name in structure.embeddings:
        _take(module(model, name), **{"columns" if _is_table(model, name) else "rows": kept.hidden})
    for name in (structure.entry_norm, structure.last_norm):
        if name:
            _take(module(model, name), rows=kept.hidden)
    for name in structure.readers:
        _take(module(model, name), columns=kept.hidden)
    for parts, units in ((structure.attention, kept.heads), (structure.ffn, kept.neurons)):
        for part, stay in zip(parts, units):
            _cut_sublayer(model, part, stay, kept.hidden)


def _cut_sublayer(model: nn.Module, part: Sublayer, stay: Tensor, hidden: Tensor) -> None:
    if not len(stay):
        for name, word in part.absent.items():
            model.set_submodule(name, STANDINS[word]())
        return
    rows = (stay[:, None] * part.width + torch.arange(part.width)).flatten()
    for name in part.reads:
        _take(module(model, name), rows=rows, columns=hidden)
    _take(module(model, part.writes), rows=hidden, columns=rows)
    _take(module(model, part.norm), rows=hidden)
    for name, each in part.counters.items():
        at, _, attribute = name.rpartition(".")
        setattr(module(model, at), attribute, each * len(stay))


def _is_table(model: nn.Module, name: str) -> bool:
    return isinstance(module(model, name), nn.Embedding)


def _take(found: nn.Module, *, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep these rows (outputs) and columns (inputs) of a linear layer, a table or a norm; its own sizes follow."""
    for key, parameter in list(found.named_parameters(recurse=False)):
        cuts = [
            (axis, index) for axis, index in ((0, rows), (1, columns)) if index is not None and axis < parameter.ndim
        ]
        kept = parameter.detach()
        for axis, index in cuts:
            kept = kept.index_select(axis, index.to(kept.device))
        if cuts:
            setattr(found, key, nn.Parameter(kept, requires_grad=parameter.requires_grad))
    if isinstance(found, nn.LayerNorm):
        found.normalized_shape = tuple(found.weight.shape)
    elif isinstance(found, nn.Embedding):
        found.embedding_dim = found.weight.shape[1]
    elif isinstance(found, nn.Linear):
        found.out_features, found.in_features = found.weight.shape
