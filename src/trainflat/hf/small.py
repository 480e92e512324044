"""A finished transformers model as a folder, shrunk, in int8 or whole: configuration, shape, weights, tokenizer, card."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainflat import compress
from trainflat.compress.small import SHAPE, WEIGHTS, load_tensors, save_tensors
from trainflat.hf.checkpoints import first_line, quiet
from trainflat.hf.needs import need
from trainflat.train.files import read

__all__ = ["is_small", "load", "save"]

CARD = """---
library_name: trainflat
base_model: {base}
---

# {name}, {what}

{notes}{sizes}

{warning}```python
import torch
from trainflat import hf

model, tokenizer = hf.load("path/to/this/folder")
with torch.no_grad():
    logits = model(**tokenizer({texts}, padding=True, truncation=True, return_tensors="pt")).logits
print({answer})
```
"""

TEXTS = '["a text", "another one"]'
PAIRS = f"""{TEXTS}, ["its pair", "the other's pair"]"""
LABEL = "[model.config.id2label[int(i)] for i in logits.argmax(-1)]"
SCORE = "(logits[:, 0] * model.config.score_deviation + model.config.score_mean).tolist()"
SMALLER = (
    f"The tensors are not those that `config.json` says (`{SHAPE}` has their shape and grid), so `from_pretrained` refuses "
    "this folder:\n\n"
)
GRIDS = {
    "dynamic_int8": "Linear layers in int8 ({granularity}), activations quantized as they come",
    "static_int8": "Linear layers in int8 ({granularity}), activations on grids that were calibrated beforehand",
    "weight_only": "Weights of linear layers in int{bits}, a scale for every {group_size}; they are multiplied as floats",
}


def save(folder: str | Path, model: nn.Module, tokenizer: Any = None, *, notes: str = "", pairs: bool = False) -> None:
    """Write a transformers model as it is, head included, with its shape and grid beside it, and never a pickle.

    Args:
        folder: Made if it is not there.
        model: What `trainflat.compress.shrink` returned, trained on or not; what `trainflat.compress.dynamic_int8`,
            ``static_int8`` or ``weight_only`` makes of that or of a whole model; or a whole one.
        tokenizer: Its tokenizer, if the folder is to be used alone.
        notes: What the card says first: the task, how it was trained, what was measured.
        pairs: Whether it reads two texts at a time, as the card's lines then do.

    Raises:
        TypeError: If it is not of transformers.
    """
    if not hasattr(getattr(model, "config", None), "save_pretrained"):
        raise TypeError(f"{type(model).__name__} is not a transformers model; write it with compress.save_small")
    shape, grid = getattr(model, "trainflat_shape", None), compress.grid(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    small: dict[str, Any] = shape.as_dict() if shape else {} if grid else {"whole": True}
    if grid:
        compress.save_quantized(folder / WEIGHTS, model)
        small |= {"int8": grid["granularity"]} if "granularity" in grid else {"weight_only": grid["bits"]}
    else:
        save_tensors(folder / WEIGHTS, model)
    (folder / SHAPE).write_text(json.dumps(small) + "\n", encoding="utf-8")
    config: Any = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with quiet():
        config.save_pretrained(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    (folder / "README.md").write_text(_card(model, config, shape, grid, notes, pairs), encoding="utf-8")


def _card(
    model: nn.Module, config: Any, shape: compress.Shape | None, grid: dict[str, Any] | None, notes: str, pairs: bool
) -> str:
    base = getattr(config, "_name_or_path", "") or ""
    bits = (grid or {}).get("bits", 8)
    counted = sum(tensor.numel() for tensor in compress.plain_tensors(model).values())
    sizes = f"{counted:,} numbers in its tensors"
    if shape:
        heads, neurons = ", ".join(map(str, shape.heads)), ", ".join(map(str, shape.neurons))
        sizes += f", {len(shape.heads)} layers, {shape.hidden} hidden dimensions. Heads by layer: {heads}; FFN neurons: {neurons}"
    if grid:
        sizes += f". {GRIDS[grid['name']].format(**grid).replace('_', ' ')}"
    return CARD.format(
        base=base if base and not Path(base).is_absolute() else "unknown",
        name=type(model).__name__,
        texts=PAIRS if pairs else TEXTS,
        answer=SCORE if hasattr(config, "score_mean") else LABEL,
        what=" and ".join(["shrunk"] * bool(shape) + [f"in int{bits}"] * bool(grid)) or "fine-tuned",
        warning=SMALLER if shape or grid else "",
        notes=f"{notes.strip()}\n\n" if notes else "",
        sizes=f"{sizes}.",
    )


def is_small(model: str | Path) -> bool:
    """Whether this names a folder that `save` wrote."""
    return (Path(model).expanduser() / SHAPE).is_file()


def load(folder: str | Path) -> tuple[nn.Module, Any]:
    """The model in evaluation mode, with the head that it was saved with, and its tokenizer (None if there is none).

    Raises:
        FileNotFoundError: If the folder has no shrunk model.
        ValueError: If a file is damaged, or names a model that transformers does not have.
    """
    folder = Path(folder).expanduser()
    if not is_small(folder):
        raise FileNotFoundError(f"{folder} has no {SHAPE}, so it holds no shrunk model")
    transformers = need("transformers")
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {first_line(error)}") from error
    name = (config.architectures or ["none"])[0]
    made = getattr(transformers, name, None)
    if not (isinstance(made, type) and issubclass(made, transformers.PreTrainedModel)):
        raise ValueError(f"{folder / 'config.json'} names the model {name!r}, which transformers does not have")
    small = _said(folder)
    gridded = "int8" in small or "weight_only" in small
    if not gridded and "whole" not in small:
        return compress.load_small(folder, lambda: made(config)), _tokenizer(transformers, folder)
    model = made(config).eval()
    if "hidden" in small:
        compress.carve(model, compress.structure(model), compress.Shape.of(small))
    if gridded:
        model = compress.load_quantized(folder / WEIGHTS, model.to(_floats(folder / WEIGHTS, model)))
    else:
        load_tensors(folder / WEIGHTS, model)
    return model, _tokenizer(transformers, folder)


def _floats(path: Path, model: nn.Module) -> torch.dtype:
    """The float type of what a file keeps in floats."""
    tensors, _ = read(path)
    kept = (tensors[name].dtype for name, _ in model.named_parameters() if name in tensors)
    return next((dtype for dtype in kept if dtype.is_floating_point), torch.float32)


def _said(folder: Path) -> dict[str, Any]:
    """What ``small.json`` says."""
    try:
        return dict(json.loads((folder / SHAPE).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / SHAPE} is damaged: {error}") from error


def _tokenizer(transformers: Any, folder: Path) -> Any:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from error
