"""Then compress: masks, scores, pruning, tickets, grids, and what was really gained."""

from trainflat.compress.cost import Cost, cost
from trainflat.compress.integers import load_int8, save_int8
from trainflat.compress.masks import Mask
from trainflat.compress.prune import prune, rounds
from trainflat.compress.quantize import dynamic_int8
from trainflat.compress.scores import magnitude, random
from trainflat.compress.tickets import Ticket, load_mask, save_mask

__all__ = [
    "Cost",
    "Mask",
    "Ticket",
    "cost",
    "dynamic_int8",
    "load_int8",
    "load_mask",
    "magnitude",
    "prune",
    "random",
    "rounds",
    "save_int8",
    "save_mask",
]
