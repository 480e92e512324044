"""SQuAD's rows, read and checked: questions about contexts, with the answers that annotators marked in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainflat.hf import sources

__all__ = ["SIZES", "TITLE", "Questions", "files", "guessed_starts", "read"]

TITLE = "SQuAD v1.1"
HUB, CONFIG = "rajpurkar/squad", "plain_text"
REVISION = "7b6d24c440a36b6815f21b70d25016731768db1f"  # pinned: the same rows for everybody, known without asking
SIZES = {"train": 87599, "validation": 10570}  # Rajpurkar et al. 2016, arXiv:1606.05250, version 1.1
COLUMNS = ("title", "context", "question", "answers")
SERVES = f"A folder with squad/{{{','.join(SIZES)}}}.parquet serves: name it with --data or TRAINFLAT_DATA"


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of a split in the file's order; a context that several of them share is held once."""

    contexts: list[str]
    context: np.ndarray  # int64: which context each question is about
    texts: list[str]
    answers: list[list[str]]  # at least one for each question, each of them a piece of the context
    starts: list[list[int]]  # the character of the context where each answer begins
    titles: list[str]  # the article of each question
    official: int  # questions of the published split

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Questions:
        """Some of the questions; all contexts stay."""
        texts, answers, starts, titles = (
            [column[i] for i in indices] for column in (self.texts, self.answers, self.starts, self.titles)
        )
        return Questions(self.contexts, self.context[indices], texts, answers, starts, titles, self.official)


def files(data: str | None = None) -> dict[str, Path] | None:
    """The Parquet file of each split, or None if the hub is to be asked.

    Raises:
        FileNotFoundError: If a file is missing, or the hub is needed and does not answer.
    """
    root = sources.folder(data)
    if root is None:
        sources.check_hub(TITLE, HUB, CONFIG, REVISION, serves=SERVES)
        return None
    return sources.files(root, "squad", SIZES, TITLE)


def read(data: str | None = None) -> dict[str, Questions]:
    """Both splits of SQuAD v1.1, train first.

    Args:
        data: A folder with ``squad/<split>.parquet``. Default: the environment's ``TRAINFLAT_DATA``, else the hub's
            ``rajpurkar/squad`` at a pinned revision.

    Raises:
        FileNotFoundError: As `files`.
        ValueError: If a file is corrupt, has no rows, lacks a column or a text, has a question without an answer (as
            SQuAD v2 has), or an answer that does not stand in the context where it is said to begin.
    """
    found = files(data)
    if found is None:
        tables = sources.from_hub(HUB, CONFIG, REVISION, SIZES, serves=SERVES)
        return {split: _checked(tables[split], SIZES[split], f"{HUB} {split}") for split in SIZES}
    return {split: _checked(sources.parquet(path), SIZES[split], str(path)) for split, path in found.items()}


def guessed_starts(data: str | None = None) -> int:
    """Training answers whose place is a guess: the first of several, where the source did not say which.

    Counted in ``squad/notes/train_notes.parquet``, a file of those who put a data folder together from other sources
    than the official one; 0 where there is none. Only training sees the places; the metrics use texts alone.
    """
    root = sources.folder(data)
    notes = None if root is None else root / "squad" / "notes" / "train_notes.parquet"
    if notes is None or not notes.is_file():
        return 0
    column = sources.parquet(notes, ["answer_start_source"]).column(0).combine_chunks()
    return column.flatten().to_pylist().count("first_of_several")


def _checked(table: Any, published: int, where: str) -> Questions:
    lacking = [name for name in COLUMNS if name not in table.column_names]
    if lacking:
        raise ValueError(f"{where} has no column {lacking[0]!r}; {TITLE} needs {', '.join(COLUMNS)}")
    if table.num_rows == 0:
        raise ValueError(f"{where} has no rows")
    contexts = table.column("context").combine_chunks().dictionary_encode()
    questions, titles = table.column("question").to_pylist(), table.column("title").to_pylist()
    kept = contexts.dictionary.to_pylist()
    for name, column in {"context": kept, "question": questions, "title": titles}.items():
        row = next((i for i, text in enumerate(column) if not isinstance(text, str)), None)
        if row is not None:
            raise ValueError(f"{where}: column {name!r} has {column[row]!r}, not a text")
    if contexts.null_count:
        raise ValueError(f"{where}: column 'context' has None, not a text")
    answers, starts = _answers(table.column("answers").combine_chunks(), where)
    found = Questions(kept, contexts.indices.to_numpy().astype(np.int64), questions, answers, starts, titles, published)
    _check_answers(found, where)
    return found


def _answers(column: Any, where: str) -> tuple[list[list[str]], list[list[int]]]:
    try:
        return column.field("text").to_pylist(), column.field("answer_start").to_pylist()
    except (AttributeError, KeyError):
        raise ValueError(f"{where}: column 'answers' is {column.type}, not a struct of text and answer_start") from None


def _check_answers(found: Questions, where: str) -> None:
    for row, (context, texts, starts) in enumerate(zip(found.context, found.answers, found.starts, strict=True)):
        if not texts:
            raise ValueError(
                f"{where} row {row} has no answer; {TITLE} has at least one for every question (v2, which has not, is "
                f"another task)"
            )
        if len(texts) != len(starts or ()):
            raise ValueError(f"{where} row {row} has {len(texts)} answers and {len(starts or ())} places for them")
        for text, start in zip(texts, starts, strict=True):
            if not text or start is None or start < 0 or not found.contexts[context].startswith(text, start):
                there = "" if start is None or start < 0 else found.contexts[context][start : start + len(text or "?")]
                raise ValueError(
                    f"{where} row {row}: at its answer_start {start} the context reads {there!r}, not the answer {text!r}; "
                    f"starts count characters, not bytes or tokens"
                )
