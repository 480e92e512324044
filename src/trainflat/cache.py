"""Where what can be computed again is kept between runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_folder", "keep"]


def cache_folder() -> Path:
    """``TRAINFLAT_CACHE``, else ``~/.cache/trainflat``; of a user without a home a place that holds nothing."""
    given = os.environ.get("TRAINFLAT_CACHE")
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / "trainflat"
    except RuntimeError:  # a number without a name, as in some containers
        return Path(os.devnull) / "trainflat"


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a cache file under a temporary name and rename it; a cache that cannot be written is done without.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     keep(Path(folder) / "numbers" / "two.txt", lambda part: part.write_text("2"))
        ...     (Path(folder) / "numbers" / "two.txt").read_text()
        '2'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        os.close(handle)
        try:
            write(Path(name))
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError:
        return
