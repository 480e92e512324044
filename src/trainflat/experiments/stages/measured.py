"""What a stage has measured so far, so that after an interruption it goes on and does not begin again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trainflat.experiments.store import write_json
from trainflat.experiments.work import Interrupted, Work

__all__ = ["Measured"]

FILE = "measured.json"


class Measured:
    """Numbers by name in the stage's folder, each measured once.

    Args:
        work: The stage's.
        of: How many there will be, for the progress.
    """

    def __init__(self, work: Work, of: int):
        self.work, self.of, self.path = work, of, work.folder / FILE
        self.known: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What ``measure()`` gives, or gave before an interruption; as JSON keeps it."""
        if name not in self.known:
            self.known[name] = measure()
            write_json(self.path, self.known)
        self.pause()
        return self.known[name]

    def pause(self) -> None:
        """Report the progress, and stop if somebody wants to; called often, as after every pass over the data.

        Raises:
            Interrupted: If somebody does.
        """
        self.work.progress({"done": len(self.known), "of": self.of})
        if self.work.stop():
            raise Interrupted

    def forget(self) -> None:
        """All is measured, and in the rows."""
        self.work.forget(FILE)
