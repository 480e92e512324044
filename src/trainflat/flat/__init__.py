"""Train flat: rules that decide where the gradient is taken, and averages that decide which iterate is kept."""

from trainflat.flat.averages import ema, last, swa
from trainflat.flat.gradients import asam, plain, sam

__all__ = ["asam", "ema", "last", "plain", "sam", "swa"]
