"""Which rows are scored and not trained on: of your table drawn by the seed, of a published data set always the same ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped

from trainflat.hf.needs import need
from trainflat.train.seeds import derive

__all__ = ["hold_out", "of_every_class", "of_whole_articles", "stratified", "units"]

MANY = 10_000  # groups; so many need no balancing, which would take minutes
DECILES = 10  # strata of scores, where whole groups are drawn

Rows = Bool[np.ndarray, " examples"]
Strata = Shaped[np.ndarray, " examples"]  # class numbers, or scores


def hold_out(
    labels: Strata, together: Int[np.ndarray, " examples"], share: float, *, seed: int, whole_groups: bool = False
) -> Rows:
    """Which rows of a table are held out: stratified, with duplicates and groups on one side.

    Args:
        labels: Class numbers (int64), or scores (float32).
        together: A number for each row; rows with the same number are never on two sides. See `units`.
        share: Of the rows, in (0, 0.5].
        seed: Draws which.
        whole_groups: Whether these are groups of different size and mixed labels, of which there may be few: then
            scikit-learn's ``StratifiedGroupKFold`` balances them and the share is as near as whole groups come. Otherwise
            they are duplicates, or more than 10,000 groups, and `stratified` draws of them.

    Raises:
        ValueError: If all rows belong together, or either side would have fewer than two different labels.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"holdout must be above 0 and at most 0.5, a share of the rows; got {share}")
    count = int(together.max()) + 1
    if count == 1:
        raise ValueError(f"all {len(labels):,} rows belong together (one group, or one text), so no split can be made")
    if whole_groups and count <= MANY:
        out = _balanced(labels, together, share, seed)
    else:
        first = np.unique(together, return_index=True)[1]
        out = stratified(labels[first], share, seed)[together]
    for side, name in ((out, "validate on"), (~out, "train on")):
        if len(np.unique(labels[side])) < 2:
            raise ValueError(
                f"{len(labels):,} rows are too few for a split: with a holdout of {share:g} there are {side.sum()} to {name}, "
                f"and not two different labels among them; give more rows, a larger holdout (up to 0.5), or a validation file"
            )
    return out


def stratified(labels: Strata, share: float, seed: int) -> Rows:
    """Every (1 / share)-th row in the order of the labels, rows with the same label shuffled: systematic sampling.

    So ``round(share * n)`` rows are taken, of every class its share of the class to less than 1 up or down, and of scores
    every quantile alike. No two neighbours are taken at a share up to a half, so every class keeps a row; that of a class
    with only one is never taken. Cochran 1977, Sampling Techniques, chapter 8.

    Example:
        >>> labels = np.repeat([0, 1, 2], [60, 39, 1])
        >>> out = stratified(labels, 0.1, seed=0)
        >>> np.bincount(labels[out], minlength=3)
        array([6, 4, 0])
    """
    draw = np.random.default_rng(derive("split", seed))
    candidates = np.arange(len(labels))
    if labels.dtype.kind in "iu":
        _classes, number, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        candidates = np.flatnonzero(sizes[number] > 1)
    shuffled = draw.permutation(candidates)
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = np.floor(share * np.arange(len(ordered) + 1) + 0.5)
    out = np.zeros(len(labels), dtype=bool)
    out[ordered[np.diff(steps) > 0]] = True
    return out


def units(
    keys: Shaped[np.ndarray, " examples"], groups: Int[np.ndarray, " examples"] | None = None
) -> Int[np.ndarray, " examples"]:
    """A number for each row, the same for rows with the same text or the same group, also where that is by way of others.

    Example:
        >>> units(np.array([7, 8, 7, 9]), np.array([0, 1, 1, 2]))      # rows 0 and 2 by text, 1 and 2 by group
        array([0, 0, 0, 1], dtype=int32)
    """
    text = np.unique(keys, return_inverse=True)[1].astype(np.int32)
    if groups is None:
        return text
    group = np.unique(groups, return_inverse=True)[1] + int(text.max()) + 1
    sparse, graph = need("scipy.sparse"), need("scipy.sparse.csgraph")
    size = int(group.max()) + 1
    edges = sparse.coo_matrix((np.ones(len(text), dtype=np.int8), (text, group)), shape=(size, size))
    return np.unique(graph.connected_components(edges, directed=False)[1][text], return_inverse=True)[1].astype(
        np.int32
    )


def of_every_class(labels: Strata, share: float) -> Rows:
    """The share of every class (of every rounded score) of a published data set: the same rows for every seed.

    Raises:
        ValueError: If nothing would be left on either side.

    Example:
        >>> labels = np.repeat([0, 1], [60, 40])
        >>> np.bincount(labels[of_every_class(labels, 0.1)])
        array([6, 4])
    """
    draw = np.random.default_rng(derive("holdout", len(labels)))
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(np.rint(labels)):
        rows = draw.permutation(np.flatnonzero(np.rint(labels) == label))
        out[rows[: round(share * len(rows))]] = True
    if out.all() or not out.any():
        raise ValueError(
            f"holdout {share} of {len(labels)} rows leaves nothing to {'train on' if out.all() else 'score'}"
        )
    return out


def of_whole_articles(titles: Sequence[str], share: float) -> Rows:
    """All questions of some articles, as near to the share as whole articles come: the same ones for every seed.

    Raises:
        ValueError: If that takes all of them.

    Example:
        >>> of_whole_articles(["Oxygen", "Oxygen", "Warsaw", "Warsaw"], 0.5).tolist()
        [True, True, False, False]
    """
    articles, article = np.unique(titles, return_inverse=True)
    drawn = np.random.default_rng(derive("holdout", len(titles))).permutation(len(articles))
    sizes = np.cumsum(np.bincount(article)[drawn])
    taken = drawn[: 1 + int(np.argmin(np.abs(sizes - share * len(titles))))]
    out = np.isin(article, taken)
    if out.all():
        raise ValueError(
            f"holdout {share} takes whole articles, and of the {len(articles)} there are that leaves nothing to train on"
        )
    return out


def _balanced(labels: Strata, together: Int[np.ndarray, " examples"], share: float, seed: int) -> Rows:
    """The fold of scikit-learn's that is nearest to the share."""
    strata = labels
    if labels.dtype.kind == "f":
        strata = np.searchsorted(np.quantile(labels, np.arange(1, DECILES) / DECILES), labels)
    folds = min(round(1 / share), int(together.max()) + 1, int(np.unique(strata, return_counts=True)[1].max()))
    if folds < 2:
        return np.zeros(len(labels), dtype=bool)
    make = need("sklearn.model_selection").StratifiedGroupKFold
    maker = make(folds, shuffle=True, random_state=derive("split", seed) % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: some folds go without it
        held = [rows for _, rows in maker.split(strata, strata, together)]
    out = np.zeros(len(labels), dtype=bool)
    out[min(held, key=lambda rows: abs(len(rows) - share * len(labels)))] = True
    return out
