"""Train flat: where the gradient is taken, which iterate is kept, and measures of how flat it is there."""

from trainflat.flat.averages import ema, last, swa
from trainflat.flat.gradients import asam, plain, sam
from trainflat.flat.hessian import top_eigenvalue, trace
from trainflat.flat.landscape import plane
from trainflat.flat.losses import Loss
from trainflat.flat.sharpness import ascent_sharpness, sharpness

__all__ = [
    "Loss",
    "asam",
    "ascent_sharpness",
    "ema",
    "last",
    "plain",
    "plane",
    "sam",
    "sharpness",
    "swa",
    "top_eigenvalue",
    "trace",
]
