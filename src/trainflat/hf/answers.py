"""Answers to questions about a text: found from start and end logits, and scored as SQuAD v1.1 officially is."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

__all__ = ["Answer", "Window", "exact_match", "f1", "n_best", "normalise", "score", "spans"]

Key = TypeVar("Key")
PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
MAX_TOKENS, N_BEST = 30, 20  # of an answer; the defaults of BERT's run_squad.py


class Window(NamedTuple):
    """What a model says about the context tokens of one window, and which characters of the context each of them is."""

    start_logits: np.ndarray
    end_logits: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Answer(NamedTuple):
    """A piece of the context, ``context[start:end]``, and the sum of its two logits."""

    score: float
    start: int
    end: int


def spans(
    start_logits: np.ndarray, end_logits: np.ndarray, *, max_tokens: int = MAX_TOKENS, n_best: int = N_BEST
) -> list[tuple[float, int, int]]:
    """The best spans of tokens: (score, first, last), best first, of equal ones the earlier and then the shorter first.

    score(i, j) = start_i + end_j over all i <= j < i + max_tokens, Devlin et al. 2019, section 4.2, arXiv:1810.04805.
    Every such span is considered; the scripts of BERT and of transformers pair the 20 best starts with the 20 best ends
    and find nothing where no such pair is a span. A token whose logit is -inf is in none.

    Args:
        start_logits, end_logits: Of the tokens that an answer may have, and of no others.
        max_tokens: Length of an answer. Default: 30, as BERT's script.
        n_best: How many. Default: 20, as BERT's script.

    Raises:
        ValueError: If a logit is NaN.

    Example:
        >>> spans(np.array([0.0, 4.0, 1.0]), np.array([5.0, 0.0, 2.0]), n_best=3)    # an end before its start is none
        [(6.0, 1, 2), (5.0, 0, 0), (4.0, 1, 1)]
    """
    count = len(start_logits)
    width = min(max_tokens, count)
    if width == 0:
        return []
    ends = np.full(count + width - 1, -np.inf)
    ends[:count] = end_logits
    table = start_logits.astype(np.float64)[:, None] + np.lib.stride_tricks.sliding_window_view(ends, width)
    scores = table.ravel()  # entry i * width + d is the span from token i to token i + d
    if np.isnan(scores).any():
        raise ValueError("a start or end logit is not a number; the model has diverged")
    least = np.partition(scores, -n_best)[-n_best] if n_best < len(scores) else -np.inf
    chosen = np.flatnonzero((scores >= least) & (scores > -np.inf))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:n_best]
    first, more = np.divmod(chosen, width)
    return list(zip(scores[chosen].tolist(), first.tolist(), (first + more).tolist(), strict=True))


def n_best(windows: Iterable[Window], *, max_tokens: int = MAX_TOKENS, size: int = N_BEST) -> list[Answer]:
    """The best answers to a question over all windows of its context, best first; each piece of text once.

    Scores of different windows are compared as they are, as BERT's script does. (That script lets an answer begin only
    in the window where its first token has most context around it; transformers' ``run_qa.py`` and this do not.)

    Args:
        windows: Of one question, with the logits of context tokens only: an answer cannot lie outside the context.
        max_tokens, size: As `spans`.

    Raises:
        ValueError: If a logit is NaN.

    Example:
        >>> words = np.array([0, 4, 8]), np.array([3, 7, 12])                            # of "the cat sat."
        >>> n_best([Window(np.array([0.0, 3, 0]), np.array([0.0, 1, 2]), *words)], size=2)
        [Answer(score=5.0, start=4, end=12), Answer(score=4.0, start=4, end=7)]
    """
    best: dict[tuple[int, int], float] = {}
    for window in windows:
        for points, first, last in spans(window.start_logits, window.end_logits, max_tokens=max_tokens, n_best=size):
            place = int(window.starts[first]), int(window.ends[last])
            if place[0] < place[1]:
                best[place] = max(points, best.get(place, -np.inf))
    ranked = sorted(best.items(), key=lambda entry: -entry[1])[:size]
    return [Answer(points, *place) for place, points in ranked]


def normalise(text: str) -> str:
    """What SQuAD compares: lower case, no punctuation, no articles, single blanks.

    In this order, as the official script (Rajpurkar et al. 2016, section 6.1, arXiv:1606.05250; evaluate-v1.1.py):
    punctuation is ASCII's and is taken out without a gap, so "the-end" is one word and keeps its article.

    Example:
        >>> normalise(" The  U.S.A., an Island"), normalise("the-end"), normalise("A.")
        ('usa island', 'theend', '')
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 if both are the same after `normalise`, else 0.

    Example:
        >>> exact_match("The Denver Broncos.", "denver broncos"), exact_match("Broncos", "denver broncos")
        (1.0, 0.0)
    """
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """2 P R / (P + R) over the words that both have, counted as often as they occur in both; 0 if they share none.

    P is their share of the prediction's words, R of the answer's, after `normalise`. Two empty texts share no word: 0
    (as in the official script of v1.1; v2's gives 1).

    Example:
        >>> f1("the Denver Broncos team", "Broncos")                                          # P = 1/3, R = 1
        0.5
    """
    said, expected = normalise(prediction).split(), normalise(answer).split()
    shared = (Counter(said) & Counter(expected)).total()
    return 2 * shared / (len(said) + len(expected)) if shared else 0.0


def score(predictions: Mapping[Key, str], answers: Mapping[Key, Sequence[str]]) -> dict[str, float]:
    """SQuAD v1.1's official metrics, in [0, 1]: for each question the best over its answers, then the mean over questions.

    A question without a prediction counts 0.

    Raises:
        ValueError: If there are no questions, or a prediction is for a question that is not among them.

    Example:
        >>> score({1: "the cat", 2: "dog"}, {1: ["cats", "a cat"], 2: ["a dog that ran"], 3: ["mat"], 4: ["tree"]})
        {'f1': 0.375, 'exact_match': 0.25}
    """
    if not answers:
        raise ValueError("there are no questions to score")
    strange = next((key for key in predictions if key not in answers), None)
    if strange is not None:
        raise ValueError(f"there is a prediction for {strange!r}, which is none of the {len(answers):,} questions")

    def mean(metric: Callable[[str, str], float]) -> float:
        best = (max(metric(text, answer) for answer in answers[key]) for key, text in predictions.items())
        return float(sum(best) / len(answers))

    return {"f1": mean(f1), "exact_match": mean(exact_match)}
