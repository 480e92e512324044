"""How well labels and scores are predicted: what GLUE's tasks and your own table have in common."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from trainflat.hf.needs import need

__all__ = ["check_finite", "classification", "correlations", "regression"]


def classification(logits: Float[np.ndarray, "batch classes"], labels: Int[np.ndarray, " batch"]) -> dict[str, float]:
    """Accuracy; macro F1, the plain mean of the classes' F1, which a rare class moves as much as a frequent one; and of
    two classes F1 of the second, as GLUE has it for MRPC and QQP (Wang et al. 2019, arXiv:1804.07461).

    Macro F1 as scikit-learn and Opitz and Burst 2019, arXiv:1911.03347, eq. (1); over the classes that occur or are said.

    Raises:
        ValueError: If a logit is not a finite number.

    Example:
        >>> classification(np.eye(2)[[0, 1, 1, 1]], np.array([0, 0, 1, 1]))         # F1: (2/3 + 4/5) / 2 and 4/5
        {'accuracy': 0.75, 'macro_f1': 0.733..., 'f1': 0.8}
    """
    check_finite(logits)
    scores, said = need("sklearn.metrics"), logits.argmax(axis=-1)
    found = {
        "accuracy": float(scores.accuracy_score(labels, said)),
        "macro_f1": float(scores.f1_score(labels, said, average="macro", zero_division=0.0)),
    }
    if logits.shape[1] == 2:
        found["f1"] = float(scores.f1_score(labels, said, zero_division=0.0))
    return found


def regression(predicted: Real[np.ndarray, " batch"], scores: Real[np.ndarray, " batch"]) -> dict[str, float]:
    """Pearson's correlation first, as STS-B is scored (Cer et al. 2017, arXiv:1708.00055): in [-1, 1] whatever the unit;
    Spearman's; then what it does not see, the errors: their root mean square and mean size, in the unit of the scores.

    Raises:
        ValueError: If a prediction is not a finite number.

    Example:
        >>> regression(np.array([1.0, 2.0, 6.0]), np.array([0.0, 2.0, 4.0]))
        {'pearson': 0.944..., 'spearman': 1.0, 'rmse': 1.290..., 'mae': 1.0}
    """
    check_finite(predicted)
    away = predicted.astype(np.float64) - scores.astype(np.float64)
    errors = {"rmse": float(np.sqrt(np.mean(away**2))), "mae": float(np.mean(np.abs(away)))}
    return {**correlations(predicted.astype(np.float64), scores.astype(np.float64)), **errors}


def correlations(predicted: Real[np.ndarray, " batch"], scores: Real[np.ndarray, " batch"]) -> dict[str, float]:
    """Pearson's and Spearman's correlation. A constant correlates with nothing: 0."""
    stats = need("scipy.stats")
    if np.ptp(predicted) == 0 or np.ptp(scores) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(predicted, scores).statistic),
        "spearman": float(stats.spearmanr(predicted, scores).statistic),
    }


def check_finite(outputs: Shaped[np.ndarray, "batch ..."]) -> None:
    """Refuse to score a model that has diverged.

    Raises:
        ValueError: If an output is not a finite number.
    """
    lost = int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
    if lost:
        raise ValueError(f"the model's output is not finite for {lost} of {len(outputs)} examples; it has diverged")
