"""Tasks that ship and need no download: real data that scikit-learn and Python itself carry, and small encoders."""

from __future__ import annotations

from trainflat.tasks.classification import Classification
from trainflat.tasks.digits import digits
from trainflat.tasks.docstrings import docstrings

__all__ = ["Classification", "digits", "docstrings"]
