"""Which choices of a rule do not mean what they say beside each other."""

from __future__ import annotations

from typing import Any

from trainflat.flat.ascent import ThisBatch
from trainflat.flat.auto import Auto
from trainflat.flat.combine import Replace
from trainflat.flat.draws import Noise
from trainflat.flat.examples import Alike
from trainflat.flat.metrics import Metric, l2

__all__ = ["check_together"]


def check_together(choices: dict[str, Any], metric: Metric, pieces: int) -> None:
    """Refuse choices that contradict each other.

    Raises:
        ValueError: With what to leave out.
    """
    direction, combine, radius = choices["direction"], choices["combine"], choices["radius"]
    examples = choices["examples"] or Alike()
    whole = direction.whole and choices["start"] is None
    uses_first = type(combine) is not Replace or radius.learns or choices["when"].looks
    if uses_first and not (whole and examples.whole):
        raise ValueError(
            "this way to combine, to find the radius or to choose the steps uses the gradient of the whole batch at the weights, "
            "so the direction must come from there: leave out `direction` and `start`"
            + ("" if examples.whole else ", and `examples`")
        )
    if isinstance(radius, Auto) and isinstance(direction, Noise):
        raise ValueError(
            'rho = "auto" is the length of an ascent; noise goes nowhere in particular and has to be far longer: give rho a '
            "number or a schedule"
        )
    if combine.sums and radius.learns:
        raise ValueError(
            "a radius that learns compares the gradients of two places, and this way to combine adds them up: leave out `combine`"
        )
    if combine.back and choices["point"] is not None:
        raise ValueError("the other side of a compressed point is no compressed point: leave out `point`")
    if combine.back and type(direction) is not ThisBatch:
        raise ValueError("the other side of the weights is that of the gradient itself: leave out `direction`")
    if (combine.back or radius.learns or choices["start"] is not None) and metric is not l2:
        raise ValueError(
            "a second side, a radius that learns and a start of its own are for the metric l2: leave out `metric`"
        )
    _check_examples(examples, direction, whole, pieces)


def _check_examples(examples: Alike, direction: ThisBatch, whole: bool, pieces: int) -> None:
    if examples.compares and not whole:
        raise ValueError(
            "to weigh or choose examples their losses at the weights are needed: leave out `direction` and `start`"
        )
    if examples.private and direction.fresh:
        raise ValueError(
            "a first pass over this batch would not be private: take a direction that comes without one, LastGradient or Momentum"
        )
    if pieces > 1 and type(examples) is not Alike:
        raise ValueError("examples count alike in every piece of a batch: leave out `pieces` or `examples`")
