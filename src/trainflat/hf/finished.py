"""A finished transformers model from its folder, with the head that it was saved with: nothing drawn, nothing guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainflat.hf import checkpoints, models, small
from trainflat.hf.needs import need

__all__ = ["example", "load", "longest", "tokenizer"]


def load(folder: str | Path) -> tuple[nn.Module, Any]:
    """The model in evaluation mode, float32 or in int8, and its tokenizer: of `trainflat.hf.small.save`, or ``save_pretrained``.

    Raises:
        FileNotFoundError: If the folder is no checkpoint, or has no tokenizer.
        ValueError: If its files cannot be read, lack weights of the model, or are an encoder without a head.
    """
    folder = Path(folder).expanduser()
    if small.is_small(folder):
        model, words = small.load(folder)
        if getattr(model, "dtype", torch.float32) != torch.float32:
            model = model.float()  # it was served in another type
    else:
        model, words = _pretrained(checkpoints.locate(str(folder))), small._tokenizer(need("transformers"), folder)
    if words is None:
        raise FileNotFoundError(
            f"{folder} has no tokenizer, so texts mean nothing to it; write it there: tokenizer.save_pretrained({str(folder)!r})"
        )
    return model, words


def tokenizer(model: str) -> Any:
    """Of a checkpoint; see `trainflat.hf.models.tokenizer`."""
    return models.tokenizer(model)


def longest(model: nn.Module, words: Any) -> int:
    """How many tokens the model takes: what the tokenizer says, or the places that have an embedding; 512 if nothing says."""
    places: list[int] = [
        inner.num_embeddings - (0 if inner.padding_idx is None else inner.padding_idx + 1)
        for name, inner in model.named_modules()
        if isinstance(inner, nn.Embedding) and name.endswith("position_embeddings")
    ]
    said = getattr(words, "model_max_length", None)
    if isinstance(said, int) and said < 1_000_000:  # transformers' word for "nobody knows" is 1e30
        places.append(said)
    return min(places, default=512)


def example(model: nn.Module, words: Any, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Tokens drawn at random, none of them padding: what a pass takes depends on how many there are, not on which."""
    draw = torch.Generator().manual_seed(0)
    known = int(getattr(model, "config").vocab_size)  # noqa: B009
    made = {
        "input_ids": torch.randint(min(5, known - 1), known, (batch, length), generator=draw),
        "attention_mask": torch.ones(batch, length, dtype=torch.long),
        "token_type_ids": torch.zeros(batch, length, dtype=torch.long),
    }
    return {name: made[name] for name in words.model_input_names if name in made}


def _pretrained(folder: Path) -> nn.Module:
    transformers = need("transformers")
    config = models._config(folder)
    name = (config.architectures or ["none"])[0]
    made = getattr(transformers, name, None)
    if not (isinstance(made, type) and issubclass(made, transformers.PreTrainedModel)):
        raise ValueError(f"{folder / 'config.json'} names the model {name!r}, which transformers does not have")
    if "For" not in name:
        raise ValueError(f"{folder} holds {name}, an encoder without a head, which answers nothing; fine-tune it first")
    try:
        with checkpoints.quiet(), torch.random.fork_rng(devices=[]):
            model, report = made.from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        raise ValueError(f"the checkpoint in {folder} cannot be read: {checkpoints.first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"the checkpoint in {folder} has no values for {len(missing)} of the model's tensors, such as {missing[0]}"
        )
    return model.eval()
