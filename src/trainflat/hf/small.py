"""A shrunk transformers model as a folder: configuration, shape, weights, tokenizer and a card; read back in one call."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from trainflat import compress
from trainflat.compress.small import SHAPE
from trainflat.hf.checkpoints import first_line, quiet
from trainflat.hf.needs import need

__all__ = ["is_small", "load", "save"]

CARD = """---
library_name: trainflat
base_model: {base}
---

# {name}, shrunk

{notes}{layers} layers, {hidden} hidden dimensions, {parameters:,} parameters. Heads by layer: {heads}; FFN neurons: {neurons}.

The tensors are smaller than `config.json` says (`{shape}` has their shape), so `from_pretrained` refuses this folder:

```python
from trainflat import hf

model, tokenizer = hf.load("path/to/this/folder")
```
"""


def save(folder: str | Path, model: nn.Module, tokenizer: Any = None, *, notes: str = "") -> None:
    """Write a shrunk transformers model: as ``save_pretrained`` does, with its shape beside it, and never a pickle.

    Args:
        folder: Made if it is not there.
        model: What `trainflat.compress.shrink` returned, trained on or not.
        tokenizer: Its tokenizer, if the folder is to be used alone.
        notes: What the card says first: the task, how it was trained, what was measured.

    Raises:
        ValueError: If the model was not shrunk.
        TypeError: If it is not of transformers.
    """
    shape = compress.shape_of(model)
    if not hasattr(getattr(model, "config", None), "save_pretrained"):
        raise TypeError(f"{type(model).__name__} is not a transformers model; write it with compress.save_small")
    folder = Path(folder)
    compress.save_small(folder, model)
    config: Any = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with quiet():
        config.save_pretrained(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    base = getattr(config, "_name_or_path", "") or ""
    card = CARD.format(
        base=base if base and not Path(base).is_absolute() else "unknown",
        name=type(model).__name__,
        notes=f"{notes.strip()}\n\n" if notes else "",
        layers=len(shape.heads),
        hidden=shape.hidden,
        parameters=sum(p.numel() for p in model.parameters()),
        heads=", ".join(map(str, shape.heads)),
        neurons=", ".join(map(str, shape.neurons)),
        shape=SHAPE,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


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
    model = compress.load_small(folder, lambda: made(config))
    return model, _tokenizer(transformers, folder)


def _tokenizer(transformers: Any, folder: Path) -> Any:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    try:
        with quiet():
            return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from error
