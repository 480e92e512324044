"""Where a model errs: what it takes for what, and the texts on which it and the large model differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from trainflat.reports.front.offers import model, named
from trainflat.reports.rows import Results, Row

__all__ = ["Mistakes", "cut", "html", "mistakes"]

MOST = 10  # texts
LONG = 240  # letters of one
MATRIX = "Rows are the true labels, columns what the model says; the shade is the share of its row."


@dataclass(frozen=True)
class Mistakes:
    """What the rows of one model say about its errors.

    Attributes:
        key: Task, arm, variant, sparsity.
        name: "cofi 60 % from SAM".
        seeds: Those that were counted.
        labels: What there is to tell apart.
        counts: A row for each true label, a column for each answer; of all seeds together.
        texts: ``text``, ``label``, ``large``, ``small``, ``shift``, the largest shift first, each text once.
    """

    key: tuple[str, str, str, float]
    name: str
    seeds: tuple[Any, ...]
    labels: tuple[str, ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()
    texts: tuple[Mapping[str, Any], ...] = ()


def mistakes(data: Results, task: str) -> list[Mistakes]:
    """One for each model of a task whose rows carry ``confusion`` or ``disagreements``; those of its seeds are put together.

    Raises:
        ValueError: If a confusion matrix is not square, or two seeds of one model have other labels.

    Example:
        >>> from trainflat.reports import results
        >>> from trainflat.reports.front import example_front
        >>> found = mistakes(results(example_front.rows()), "reviews")[0]
        >>> found.name, found.labels, [text["shift"] for text in found.texts]
        ('cofi 60 % from Adam', ('negative', 'positive'), [0.93, 0.88, 0.71, 0.64])
    """
    of: dict[tuple[str, str, str, float], list[Row]] = {}
    for row in data.rows:
        if data.task(row) == task and (row.get("confusion") or row.get("disagreements")):
            of.setdefault(model(data, row), []).append(row)
    return [_together(key, found) for key, found in of.items()]


def html(data: Results, task: str, chosen: Mapping[str, Any] | None = None) -> str:
    """Folded up, one for each model, the chosen one first and open; empty if no row says anything."""
    chosen = chosen or {}
    same = lambda found: (
        found.key[:3] == tuple(chosen.get(name) for name in ("task", "arm", "variant"))
        and abs(found.key[3] - float(chosen.get("sparsity") or 0)) < 1e-4
    )
    listed = sorted(mistakes(data, task), key=same, reverse=True)
    return "".join(
        f'<details class="mistakes"{" open" if same(found) else ""}><summary>Where {escape(found.name)} errs</summary>'
        f'<div class="panels">{_matrix(found)}{_texts(found)}</div></details>'
        for found in listed
    )


def cut(text: Any, most: int = LONG) -> str:
    """A text on one line, no longer than ``most`` letters; what is left out shows as an ellipsis.

    >>> cut("one\\n two  three", most=9)
    'one two…'
    """
    line = " ".join(str(text)[: 20 * most].split())
    if len(line) <= most:
        return line
    head = line[: most - 1]
    return f"{(head.rpartition(' ')[0] if ' ' in head and line[most - 1] != ' ' else head).rstrip()}…"


def _together(key: tuple[str, str, str, float], rows: Sequence[Row]) -> Mistakes:
    matrices = [row["confusion"] for row in rows if row.get("confusion")]
    labels = tuple(map(str, matrices[0]["labels"])) if matrices else ()
    counts = [[0] * len(labels) for _ in labels]
    name = named(*key[1:])
    for matrix in matrices:
        lines = matrix["counts"]
        if tuple(map(str, matrix["labels"])) != labels or [len(line) for line in lines] != [len(labels)] * len(labels):
            raise ValueError(
                f"the confusion matrices of {name} do not fit together: each needs the labels {', '.join(labels)}, and a row "
                f"and a column for each; got the labels {', '.join(map(str, matrix['labels']))} and {len(lines)} rows"
            )
        counts = [[a + b for a, b in zip(*both, strict=True)] for both in zip(counts, lines, strict=True)]
    told: dict[str, Mapping[str, Any]] = {}
    for text in sorted((t for row in rows for t in row.get("disagreements") or ()), key=_shift, reverse=True):
        told.setdefault(str(text.get("text")), text)
    seeds = tuple(dict.fromkeys(row["seed"] for row in rows))
    return Mistakes(key, name, seeds, labels, tuple(map(tuple, counts)), tuple(told.values())[:MOST])


def _shift(text: Mapping[str, Any]) -> float:
    return float(text.get("shift") or 0.0)


def _matrix(found: Mistakes) -> str:
    """The confusion matrix as a table whose cells are shaded."""
    if not found.labels:
        return ""
    head = "".join(f'<th scope="col" dir="auto">{escape(cut(label, 24))}</th>' for label in found.labels)
    cells = ["".join(_cell(n, line, i == j) for j, n in enumerate(line)) for i, line in enumerate(found.counts)]
    body = "".join(
        f'<tr><th scope="row" dir="auto">{escape(cut(label, 24))}</th>{line}</tr>'
        for label, line in zip(found.labels, cells, strict=True)
    )
    seeds = f"{len(found.seeds)} seed{'s together' if len(found.seeds) > 1 else ''}"
    return (
        f'<figure class="table confusion"><figcaption>What it takes for what <small>examples, {seeds}</small></figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix of {escape(found.name)}"><table><thead><tr>'
        f'<th scope="col" class="name">true ↓ said →</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="note">{MATRIX}</p></figure>'
    )


def _cell(count: int, line: Sequence[int], right: bool) -> str:
    share = count / sum(line) if sum(line) else 0.0
    kind = "right" if right else "wrong"
    return f'<td class="{kind}" style="--share:{100 * share:.0f}%">{count:,} <small>{100 * share:.0f} %</small></td>'


def _texts(found: Mistakes) -> str:
    """The texts, each with what is true and what both models say."""
    if not found.texts:
        return ""
    items = "".join(
        f'<li><q dir="auto">{escape(cut(text.get("text")))}</q><small>{_said(text)}</small></li>'
        for text in found.texts
    )
    return (
        '<figure class="texts"><figcaption>Where small and large differ most '
        f"<small>the largest shift first</small></figcaption><ol>{items}</ol></figure>"
    )


def _said(text: Mapping[str, Any]) -> str:
    told = [f"{name} <b>{escape(cut(text[of], 40))}</b>" for name, of in NAMES.items() if text.get(of) is not None]
    return " · ".join([*told, *([f"shift {_shift(text):.2f}"] if text.get("shift") is not None else [])])


NAMES = {"true": "label", "large": "large", "small": "small"}
