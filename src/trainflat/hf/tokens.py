"""Texts as token ids: encoded once, kept flat in memory and on disk, and put together into padded batches."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int32, Int64, Shaped, UInt8
from torch import Tensor

from trainflat.cache import cache_folder, keep
from trainflat.hf.needs import need

__all__ = ["Encoded", "encode"]

VERSION = 1  # of the cached file
CHUNK = 10_000  # texts that are tokenised at once


@dataclass
class Encoded:
    """Token ids of all examples one after another; example i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " _"]  # one more than there are examples
    types: UInt8[np.ndarray, " tokens"] | None  # which text of a pair a token is from; None where the model takes none
    padding: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    def batch(self, indices: Sequence[int] | Int[np.ndarray, " batch"]) -> dict[str, Int64[Tensor, "batch seq"]]:
        """These examples as the model's keyword arguments, padded on the right to the longest of them.

        >>> two = Encoded(np.array([7, 8, 9], np.int32), np.array([0, 2, 3]), None, padding=0).batch([1, 0])
        >>> two["input_ids"].tolist(), two["attention_mask"].tolist()
        ([[9, 0], [7, 8]], [[1, 0], [1, 1]])
        """
        chosen = np.asarray(indices)
        starts = self.offsets[chosen]
        lengths = self.offsets[chosen + 1] - starts
        places = np.arange(lengths.max())
        inside = places < lengths[:, None]
        source = np.where(inside, starts[:, None] + places, 0)
        out = {"input_ids": torch.from_numpy(np.where(inside, self.ids[source], self.padding).astype(np.int64))}
        if self.types is not None:
            out["token_type_ids"] = torch.from_numpy(np.where(inside, self.types[source], 0).astype(np.int64))
        out["attention_mask"] = torch.from_numpy(inside.astype(np.int64))
        return out


def encode(tokenizer: Any, texts: Sequence[Sequence[str]], *, max_length: int, identity: str) -> Encoded:
    """Encode texts, or pairs of texts, cut to ``max_length`` tokens; from the cache if that was done before.

    The cache file is named by the texts, the tokenizer and the length, so it cannot be stale; one that is broken
    is made again.

    Args:
        tokenizer: A transformers tokenizer.
        texts: One sequence for each text column.
        max_length: Tokens of an example, special ones included; the longer text of a pair is cut first.
        identity: What the tokenizer is: the digest of its files.
    """
    path = cache_folder() / "tokens" / f"{_key(tokenizer, texts, max_length, identity)}.safetensors"
    padding = tokenizer.pad_token_id or 0
    cached = _from_cache(path, len(texts[0]), padding)
    if cached is not None:
        return cached
    pairs = "token_type_ids" in tokenizer.model_input_names
    ids, types, lengths = array("i"), array("B"), []
    for start in range(0, len(texts[0]), CHUNK):  # what the tokenizer returns takes kilobytes for a text
        output = tokenizer(
            *(list(column[start : start + CHUNK]) for column in texts),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=pairs,
        )
        ids.frombytes(_flat(output["input_ids"], np.int32).tobytes())
        lengths += [len(row) for row in output["input_ids"]]
        if pairs:
            types.frombytes(_flat(output["token_type_ids"], np.uint8).tobytes())
    encoded = Encoded(
        ids=np.frombuffer(ids, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        types=np.frombuffer(types, np.uint8) if pairs else None,
        padding=padding,
    )
    arrays = {"ids": encoded.ids, "offsets": encoded.offsets}
    if encoded.types is not None:
        arrays["types"] = encoded.types
    keep(path, lambda part: need("safetensors.numpy").save_file(arrays, part))
    return encoded


def _flat(rows: list[list[int]], dtype: Any) -> Shaped[np.ndarray, " tokens"]:
    return np.concatenate([np.asarray(row, dtype=dtype) for row in rows])


def _key(tokenizer: Any, texts: Sequence[Sequence[str]], max_length: int, identity: str) -> str:
    versions = [need(name).__version__ for name in ("transformers", "tokenizers")]
    name = hashlib.sha256(json.dumps([VERSION, type(tokenizer).__name__, versions, max_length, identity]).encode())
    for column in texts:  # as json.dumps writes the whole column
        for start in range(0, len(column), CHUNK):
            part = json.dumps(list(column[start : start + CHUNK]))
            name.update((("[" if start == 0 else ", ") + part[1:-1]).encode())
        name.update(b"]")
    return name.hexdigest()[:40]


def _from_cache(path: Path, size: int, padding: int) -> Encoded | None:
    if not path.is_file():
        return None
    try:
        arrays = need("safetensors.numpy").load_file(path)
        ids, offsets, types = arrays["ids"], arrays["offsets"], arrays.get("types")
    except (OSError, KeyError, ValueError, need("safetensors").SafetensorError):
        return None
    sound = len(offsets) == size + 1 and offsets[0] == 0 and offsets[-1] == len(ids) and (np.diff(offsets) > 0).all()
    return Encoded(ids, offsets, types, padding) if sound else None
