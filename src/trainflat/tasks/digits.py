"""Real handwritten digits that scikit-learn carries, and a small vision transformer: the claim visible in seconds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trainflat.tasks.classification import Classification, Examples, check_options, split
from trainflat.tasks.zoo import vit_small

__all__ = ["digits"]


def digits(*, batch_size: int = 32, holdout: float = 0.0) -> Classification:
    """1,797 grey images of 8 x 8 pixels in ten classes: 1,297 to train on, 500 held out, and a vision transformer.

    The test part of Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), as scikit-learn
    carries it. The split is ours: fixed, stratified.

    Args:
        batch_size: Examples in a training batch.
        holdout: Share of the training images, in [0, 1), that is taken out of training, the same for every seed;
            `evaluate` then scores these and not the 500. For choosing hyper-parameters.

    Raises:
        ValueError: If ``holdout`` is outside [0, 1), or too small to take an image; if ``batch_size`` is below 1.

    Example:
        >>> task = digits()
        >>> len(task.training), len(task.heldout), task.steps_per_epoch
        (1297, 500, 41)
        >>> task.model(seed=0)(task.inputs(3)).shape
        torch.Size([3, 10])
    """
    check_options(batch_size=batch_size, holdout=holdout)
    images, labels = _images()
    training, heldout = split(labels, test=500 / len(labels), holdout=holdout, name="digits")
    examples = Examples(labels, lambda indices: images[list(indices)])
    scored = "test images" if holdout == 0 else "images taken from the training set"
    return Classification(
        name="digits",
        model_name="vit-small",
        note=f"scikit-learn's 8 x 8 digits in 10 classes: {len(training):,} images to train on, "
        f"{len(heldout):,} {scored}.",
        build=vit_small,
        training=examples.subset(training),
        heldout=examples.subset(heldout),
        batch_size=batch_size,
    )


@lru_cache
def _images() -> tuple[Tensor, Tensor]:
    """The images, ``1797 8 8`` in [0, 1], and their labels."""
    from sklearn.datasets import load_digits  # seconds of import that planning does without

    data: Any = load_digits()
    return torch.tensor(data["images"] / 16, dtype=torch.float32), torch.tensor(data["target"], dtype=torch.int64)


def _fingerprint(*, batch_size: int = 32, holdout: float = 0.0) -> str:
    """The data has one version; what is left to do while planning is to look at the options."""
    check_options(batch_size=batch_size, holdout=holdout)
    return "uci-optdigits-test-1797"


digits.fingerprint = _fingerprint  # pyright: ignore[reportFunctionMemberAccess]
digits.max_length = 0  # pyright: ignore[reportFunctionMemberAccess]  # not made of tokens
