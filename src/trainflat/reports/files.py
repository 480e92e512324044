"""A file that is there whole or not at all, and where a figure goes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

__all__ = ["free", "write"]


def write(path: str | Path, content: str | bytes) -> Path:
    """Write beside the file, then rename over it: a reader, or a full disk, never meets half a report. Text is UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def free(folder: Path, name: str, written: Collection[Path]) -> Path:
    """Where a figure goes, but for its ending .svg or .png: the letters and digits of its name, and -2 if they are taken."""
    path = folder / re.sub(r"\W+", "-", name.lower()).strip("-")
    while path.with_suffix(".svg") in written:
        path = path.with_name(f"{path.name}-2")
    return path
