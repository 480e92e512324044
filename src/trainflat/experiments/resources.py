"""What a stage asks of the machine that runs it. It cannot change a result, so it is no part of a stage's identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Resources"]


def _asked(default: Any) -> Any:
    return field(default=default, metadata={"hashed": False})


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Keys that every stage of a recipe may have beside its own; a cluster hands it to a machine that has them free.

    Args:
        cpus: Processor cores, and torch threads. Default: 1, since several small trainings side by side get more done than
            one with several threads.
        gpus: 0 for none, the default; 0.5 shares one between two stages.
        memory: Gigabytes (10^9 bytes); default: nothing is reserved.

    >>> Resources(cpus=2, memory=8)
    Resources(cpus=2, gpus=0.0, memory=8)
    """

    cpus: int = _asked(1)
    gpus: float = _asked(0.0)
    memory: float | None = _asked(None)

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus must be at least 1, got {self.cpus}")
        if self.gpus < 0 or (self.gpus > 1 and not float(self.gpus).is_integer()):
            raise ValueError(f"gpus must be 0, a part of one such as 0.5, or a whole number; got {self.gpus}")
        if self.memory is not None and not self.memory > 0:
            raise ValueError(
                f"memory is in gigabytes and must be above 0, got {self.memory}; leave it out to reserve none"
            )

    def __str__(self) -> str:
        """As a sentence names it.

        >>> str(Resources(gpus=1, memory=8))
        '1 CPU, 1 GPU, 8 GB'
        """
        parts = [f"{self.cpus} CPU{'s' * (self.cpus > 1)}"]
        parts += [f"{self.gpus:g} GPU{'s' * (self.gpus > 1)}"] * bool(self.gpus)
        return ", ".join([*parts, *([f"{self.memory:g} GB"] if self.memory else [])])
