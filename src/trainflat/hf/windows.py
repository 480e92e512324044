"""Questions and contexts as windows of tokens: long contexts in overlapping parts, each with its question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainflat.hf.pieces import Pieces

__all__ = ["Frame", "Windows", "frame", "slide"]

MAX_QUESTION = 64  # tokens; BERT's run_squad.py


@dataclass(frozen=True, eq=False)
class Frame:
    """What a tokenizer puts before, between and after two texts, and the token types of the five parts."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: list[int] | None  # None where the model takes none
    padding: int

    @property
    def tokens(self) -> int:
        """How many it adds."""
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of all questions, question after question; a window has its question's tokens and some of the context's."""

    questions: Pieces
    contexts: Pieces
    frame: Frame
    asked: np.ndarray  # int64: the question of each window
    cut: np.ndarray  # int64: tokens of each window's question, the rest of a very long one is left out
    first: np.ndarray  # int64: the context tokens of each window are [first:last] of all contexts' tokens
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.asked)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window, special ones included."""
        return self.frame.tokens + self.cut + self.last - self.first

    @cached_property
    def inside(self) -> np.ndarray:
        """Position in the window of its first context token."""
        return len(self.frame.before) + self.cut + len(self.frame.between)

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """These windows as the model's keyword arguments, padded on the right to the longest of them."""
        shape = len(indices), int(self.lengths[indices].max())
        ids, mask = np.full(shape, self.frame.padding), np.zeros(shape, np.int64)
        types = np.zeros(shape, np.int64)
        for row, window in enumerate(indices):
            parts = self._parts(int(window))
            length = self.lengths[window]
            ids[row, :length] = np.concatenate(parts)
            mask[row, :length] = 1
            if self.frame.types is not None:
                types[row, :length] = np.repeat(self.frame.types, [len(part) for part in parts])
        out = {"input_ids": torch.from_numpy(ids)}
        if self.frame.types is not None:
            out["token_type_ids"] = torch.from_numpy(types)
        return {**out, "attention_mask": torch.from_numpy(mask)}

    def labels(self, context: np.ndarray, characters: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Positions (first, last) of each window's answer, int64 of shape ``windows 2``; (0, 0), [CLS], where it is not whole.

        The first token is that with the answer's first character, or the next one if the tokenizer drops that character;
        the last likewise, as in transformers' ``run_qa.py``. Windows without the answer teach a model to say so, as in
        BERT's script.

        Args:
            context: The context of each question.
            characters, ends: The first character of each question's answer and the one after its last.
        """
        base = _base(self.contexts)
        shift = np.repeat(base, self.contexts.lengths)
        first = np.searchsorted(self.contexts.ends + shift, base[context] + characters, side="right")
        last = np.searchsorted(self.contexts.starts + shift, base[context] + ends, side="left") - 1
        first, last = first[self.asked], last[self.asked]
        whole = (self.first <= first) & (first <= last) & (last < self.last)
        found = np.stack([first, last], axis=1) - (self.first - self.inside)[:, None]
        return np.where(whole[:, None], found, 0)

    def _parts(self, window: int) -> list[Any]:
        question = self.questions.offsets[self.asked[window]]
        return [
            self.frame.before,
            self.questions.ids[question : question + self.cut[window]],
            self.frame.between,
            self.contexts.ids[self.first[window] : self.last[window]],
            self.frame.after,
        ]


def slide(
    questions: Pieces, contexts: Pieces, context: np.ndarray, frame: Frame, *, max_length: int, stride: int
) -> Windows:
    """Cut contexts into windows that each begin ``stride`` tokens after the one before, until one reaches the end.

    The sliding windows of Devlin et al. 2019 (``doc_stride`` of run_squad.py) and of Chen et al. 2020: the stride is how
    far a window *moves*. (The ``stride`` of a transformers tokenizer, and so of its run_qa.py, is how far two windows
    *overlap*: with room for R context tokens that is R - stride.) A stride above R moves by R, so no token is lost.

    Args:
        questions, contexts: Tokens.
        context: The context of each question.
        frame: What the tokenizer adds.
        max_length: Tokens of a window at most, special ones included.
        stride: >= 1, in tokens.

    Raises:
        ValueError: If the stride is below 1, or windows are too short for anything but special tokens.
    """
    room = max_length - frame.tokens
    if stride < 1:
        raise ValueError(f"stride {stride} is below 1: it is how many tokens a window begins after the one before")
    if room < 2:
        raise ValueError(
            f"max_length {max_length} leaves no room for a question and a context beside {frame.tokens} tokens"
        )
    cut = np.minimum(questions.lengths, min(MAX_QUESTION, room // 2))
    room = room - cut
    begin, length = contexts.offsets[context], contexts.lengths[context]
    step = np.minimum(room, stride)
    counts = 1 + np.maximum(0, -(-(length - room) // step))
    asked = np.repeat(np.arange(len(context)), counts)
    within = np.arange(len(asked)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = begin[asked] + within * step[asked]
    last = np.minimum(first + room[asked], (begin + length)[asked])
    return Windows(questions, contexts, frame, asked, cut[asked], first, last)


def frame(tokenizer: Any) -> Frame:
    """What a tokenizer adds to a pair of texts.

    Raises:
        ValueError: If it does not know where its tokens are from, or does not begin with a token of its own.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} does not say where its tokens stand in the text; a fast one does")
    pairs = "token_type_ids" in tokenizer.model_input_names
    output = tokenizer("a", "a", return_token_type_ids=True)
    ids, types, texts = output["input_ids"], output["token_type_ids"], output.sequence_ids(0)
    if not texts or texts[0] is not None:
        raise ValueError(
            f"{type(tokenizer).__name__} begins with no token such as [CLS], which stands for windows without the answer"
        )
    one, two = texts.index(0), texts.index(1)
    bounds = [0, one, one + texts.count(0), two, two + texts.count(1), len(texts)]
    parts = [slice(*pair) for pair in pairwise(bounds)]
    kinds = [(types[part] or [0])[0] for part in parts] if pairs else None
    return Frame(ids[parts[0]], ids[parts[2]], ids[parts[4]], kinds, tokenizer.pad_token_id or 0)


def _base(texts: Pieces) -> np.ndarray:
    """A number for each text, so that characters plus it increase over all texts."""
    longest = np.zeros(len(texts.lengths), np.int64)
    some = texts.lengths > 0
    longest[some] = texts.ends[texts.offsets[1:][some] - 1]
    return np.concatenate([[0], np.cumsum(longest[:-1] + 1)])
