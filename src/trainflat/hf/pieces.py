"""Texts of any length as tokens, with the characters that each token stands for: cut from the text once, then kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainflat.cache import cache_folder, keep
from trainflat.hf.needs import need

__all__ = ["Pieces", "pieces"]

VERSION = 1  # of the cached file


@dataclass(frozen=True, eq=False)
class Pieces:
    """Texts as tokens without special ones; text i is ``[offsets[i]:offsets[i + 1]]`` of the other arrays."""

    ids: np.ndarray  # int32
    starts: np.ndarray  # int32: the first character of each token in its text,
    ends: np.ndarray  # int32: and the one after its last
    offsets: np.ndarray  # int64, one more than there are texts

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text."""
        return np.diff(self.offsets)


def pieces(tokenizer: Any, texts: Sequence[str], *, identity: str) -> Pieces:
    """The tokens of texts and their characters; from the cache if that was done before.

    The cache file is named by the texts and the tokenizer, so it cannot be stale; one that is broken is made again.

    Args:
        tokenizer: A fast transformers tokenizer.
        texts: Not cut, however long.
        identity: What the tokenizer is: the digest of its files.
    """
    path = cache_folder() / "pieces" / f"{_key(tokenizer, texts, identity)}.safetensors"
    cached = _from_cache(path, len(texts))
    if cached is not None:
        return cached
    output = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,  # that a text is longer than the model's longest input is what windows are for
    )
    lengths = [len(ids) for ids in output["input_ids"]]
    ids = np.fromiter((token for row in output["input_ids"] for token in row), np.int32, sum(lengths))
    places = (place for row in output["offset_mapping"] for pair in row for place in pair)
    starts, ends = np.fromiter(places, np.int32, 2 * len(ids)).reshape(-1, 2).T
    found = Pieces(
        ids, np.ascontiguousarray(starts), np.ascontiguousarray(ends), np.cumsum([0, *lengths], dtype=np.int64)
    )
    arrays = {"ids": found.ids, "starts": found.starts, "ends": found.ends, "offsets": found.offsets}
    keep(path, lambda part: need("safetensors.numpy").save_file(arrays, part))
    return found


def _key(tokenizer: Any, texts: Sequence[str], identity: str) -> str:
    versions = [need(name).__version__ for name in ("transformers", "tokenizers")]
    name = hashlib.sha256(json.dumps([VERSION, type(tokenizer).__name__, versions, identity]).encode())
    name.update(json.dumps(texts).encode())
    return name.hexdigest()[:40]


def _from_cache(path: Path, size: int) -> Pieces | None:
    if not path.is_file():
        return None
    try:
        arrays = need("safetensors.numpy").load_file(path)
        found = Pieces(*(arrays[name] for name in ("ids", "starts", "ends", "offsets")))
    except (OSError, KeyError, ValueError, need("safetensors").SafetensorError):
        return None
    sound = len(found.offsets) == size + 1 and found.offsets[0] == 0 and (found.lengths >= 0).all()
    same = len(found.ids) == len(found.starts) == len(found.ends) == found.offsets[-1]
    return found if sound and same else None
