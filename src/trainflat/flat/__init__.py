"""Train flat: where the gradient is taken, which iterate is kept, and measures of how flat it is there."""

from trainflat.flat.averages import ema, last, swa
from trainflat.flat.by_example import delta_sam, dp_sat, esam
from trainflat.flat.cheap import (
    adaptive_sam,
    interval,
    late,
    looksam,
    momentum_sam,
    noise,
    quarter_batch,
    stale_sam,
    stochastic,
)
from trainflat.flat.compose import compose
from trainflat.flat.compressed import cram, saq, stale_cram
from trainflat.flat.default import default
from trainflat.flat.features import cka, effective_rank, feature_rank, features
from trainflat.flat.geometry import barrier
from trainflat.flat.gradients import asam, plain, sam
from trainflat.flat.hessian import spectrum, top_eigenvalue, trace
from trainflat.flat.landscape import plane
from trainflat.flat.losses import Loss
from trainflat.flat.sharpness import ascent_sharpness, sharpness
from trainflat.flat.variants import (
    adasap,
    bilateral_sam,
    friendly_sam,
    gsam,
    last_layers,
    m_sam,
    sam_on,
    smoothness_adaptive,
)

__all__ = [
    "Loss",
    "adaptive_sam",
    "adasap",
    "asam",
    "ascent_sharpness",
    "barrier",
    "bilateral_sam",
    "cka",
    "compose",
    "cram",
    "default",
    "delta_sam",
    "dp_sat",
    "effective_rank",
    "ema",
    "esam",
    "feature_rank",
    "features",
    "friendly_sam",
    "gsam",
    "interval",
    "last",
    "last_layers",
    "late",
    "looksam",
    "m_sam",
    "momentum_sam",
    "noise",
    "plain",
    "plane",
    "quarter_batch",
    "sam",
    "sam_on",
    "saq",
    "sharpness",
    "smoothness_adaptive",
    "spectrum",
    "stale_cram",
    "stale_sam",
    "stochastic",
    "swa",
    "top_eigenvalue",
    "trace",
]
