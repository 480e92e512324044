"""The laws that each noun obeys, as checks for anybody's own: each raises AssertionError with the law that is broken.

``testing.check_gradient(mylab.noisy)`` asks of a new rule what trainflat's tests ask of every public one.
"""

from trainflat.testing.averages import check_average
from trainflat.testing.compression import check_quantizer, check_score
from trainflat.testing.gradients import check_gradient
from trainflat.testing.tasks import check_schedule, check_task

__all__ = ["check_average", "check_gradient", "check_quantizer", "check_schedule", "check_score", "check_task"]
