"""The work of most benchmarks: BERT-base for classification, random weights, and a batch of 8 x 128 tokens."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

__all__ = ["batch", "bert", "encoder_matrices", "prunable"]


def bert(small: bool = False) -> nn.Module:
    """BERT-base without dropout; small: two layers of 128, for trying a benchmark out."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    thin = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = transformers.BertConfig(**still, **({**thin, "vocab_size": 1000} if small else {}))
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def batch(small: bool = False) -> tuple[dict[str, Tensor], Tensor]:
    """Random tokens without padding: every candidate does the same work."""
    size, length = (2, 16) if small else (8, 128)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, (size, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.arange(size) % 2


def prunable(name: str, parameter: nn.Parameter) -> bool:
    """The matrices that Chen et al. 2020 prune: every linear layer of the encoder, and the pooler; 73 in BERT-base."""
    return parameter.ndim == 2 and ("encoder" in name or "pooler" in name)


def encoder_matrices(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The same as pairs of module and parameter name, the form that ``torch.nn.utils.prune`` takes."""
    chosen = [name for name, p in model.named_parameters() if prunable(name, p)]
    return [(model.get_submodule(name.removesuffix(".weight")), "weight") for name in chosen]
