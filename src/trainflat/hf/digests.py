"""What a file holds, as a SHA-256: computed once for each path, time and size, and remembered on disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

__all__ = ["cache_folder", "digest", "digest_files", "keep"]


def cache_folder() -> Path:
    """Where what can be computed again is kept: ``TRAINFLAT_CACHE``, else ``~/.cache/trainflat``."""
    given = os.environ.get("TRAINFLAT_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "trainflat"


def digest(path: Path) -> str:
    """SHA-256 of a file. A file of 100 MB takes a tenth of a second the first time and none after that.

    Raises:
        FileNotFoundError: If there is none.
    """
    state = path.stat()
    return _digest(str(path.resolve()), state.st_mtime_ns, state.st_size)


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of several files, independent of the folder they lie in."""
    lines = [f"{path.name} {digest(path)}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a cache file under a temporary name and rename it; a cache that cannot be written is done without."""
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


@lru_cache(maxsize=256)
def _digest(path: str, modified: int, size: int) -> str:
    known = cache_folder() / "digests" / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
    try:
        remembered = json.loads(known.read_text())
        if [remembered["path"], remembered["modified"], remembered["size"]] == [path, modified, size]:
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not remembered, or not readable: computed again
    with open(path, "rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    entry = json.dumps({"path": path, "modified": modified, "size": size, "sha256": value})
    keep(known, lambda part: part.write_text(entry))
    return value
