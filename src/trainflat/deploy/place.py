"""Whether a new folder can be made: asked before hours of work, and again before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["check_place"]


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
