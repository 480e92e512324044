"""One door to 8-bit kernels: whichever is right and fastest here; and torchao's for weights alone."""

from trainflat.int8.fused import torchao_weights
from trainflat.int8.processor import Processor, processor
from trainflat.int8.router import BACKENDS, Choice, Tried, choose

__all__ = ["BACKENDS", "Choice", "Processor", "Tried", "choose", "processor", "torchao_weights"]
