"""The loop: one generator, its schedules and objectives, and resume that is exact to the bit."""

from trainflat.train.batches import Stream
from trainflat.train.evaluate import evaluate, predict
from trainflat.train.loop import NonFiniteLoss, Step, fit, loop
from trainflat.train.objectives import cross_entropy, each_example, l1, logits, mean_squared_error
from trainflat.train.schedules import constant, cosine, cubic, linear, steps
from trainflat.train.seeds import derive
from trainflat.train.state import load_state, save_state
from trainflat.train.weights import load_weights, restore, save_weights, snapshot

__all__ = [
    "NonFiniteLoss",
    "Step",
    "Stream",
    "constant",
    "cosine",
    "cross_entropy",
    "cubic",
    "derive",
    "each_example",
    "evaluate",
    "fit",
    "l1",
    "linear",
    "load_state",
    "load_weights",
    "logits",
    "loop",
    "mean_squared_error",
    "predict",
    "restore",
    "save_state",
    "save_weights",
    "snapshot",
    "steps",
]
