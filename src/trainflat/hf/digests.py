"""What a file holds, as a SHA-256: computed once for each path, time and size, and remembered on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from trainflat.cache import cache_folder, keep

__all__ = ["digest", "digest_files"]


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
