"""A new folder: whether it can be made, asked before hours of work and again before anything is written, and how it is filled."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_place", "filling"]


def check_place(folder: Path, store: Path | None = None) -> None:
    """Whether a folder is not there, or empty, and can be written; and stays so while a store fills.

    Raises:
        ValueError: If the store is in it.
        FileExistsError: If it is there and not empty, or is a file.
        NotADirectoryError: If what it is to be in is a file.
        PermissionError: If nothing may be written there.
    """
    if folder.is_dir():
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is there and not empty; name another folder")
    elif folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} is there and is no folder; name another one")
    if store is not None and store.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"the store {store} is in {folder}, which has to be empty for the model; name another folder, or a store elsewhere"
        )
    around = next(level for level in (folder.absolute(), *folder.absolute().parents) if level.exists())
    if not around.is_dir():
        raise NotADirectoryError(f"{folder} cannot be made, since {around} is a file; name another folder")
    if not os.access(around, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{folder} cannot be filled, since nothing may be written in {around}; name another folder"
        )


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A folder aside to write into, which becomes the new one at the end; if anything fails there is none.

    Raises:
        OSError: As `check_place`.
    """
    check_place(folder)
    around = folder if folder.exists() else folder.parent  # an empty one may be a link, a mount, or where we are
    around.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=around))
    try:
        yield aside
        if folder.exists():
            _move(list(aside.iterdir()), folder)
        else:
            aside.chmod(0o755)
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move(paths: Sequence[Path], folder: Path) -> None:
    """Move files and folders into a folder, all or none of them."""
    moved = []
    try:
        for path in paths:
            moved.append(path.rename(folder / path.name))
    except BaseException:
        for path, there in zip(paths, moved, strict=False):
            there.rename(path)
        raise
