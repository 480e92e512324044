"""Train flat: rules that decide where the gradient is taken."""

from trainflat.flat.gradients import asam, plain, sam

__all__ = ["asam", "plain", "sam"]
