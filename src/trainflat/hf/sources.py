"""Where rows come from: a folder of Parquet files laid out as the hub's data sets are, or the hub itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol

from trainflat.hf.digests import digest_files
from trainflat.hf.needs import hub_answers, hub_endpoint, need, offline

__all__ = [
    "Split",
    "check_hub",
    "class_names",
    "describe",
    "files",
    "folder",
    "from_hub",
    "identity",
    "load_hub",
    "parquet",
    "rows",
]


class Split(Sized, Protocol):
    """The rows of a split, which knows how many the published one has."""

    @property
    def official(self) -> int: ...


def folder(data: str | None = None) -> Path | None:
    """The data folder, from the argument or the environment's ``TRAINFLAT_DATA``; None is the hub."""
    given = data if data is not None else os.environ.get("TRAINFLAT_DATA") or None
    return None if given is None else Path(given).expanduser()


def files(root: Path, within: str, splits: Iterable[str], title: str) -> dict[str, Path]:
    """The Parquet file of each split of a data set, ``within/<split>.parquet`` in a data folder.

    Raises:
        FileNotFoundError: If one is missing; says how the folder must be laid out.
    """
    found = {split: root / within / f"{split}.parquet" for split in splits}
    for path in found.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{title} needs {path}, and there is no such file; the data folder must be laid out "
                f"as {within}/{{{','.join(found)}}}.parquet"
            )
    return found


def identity(found: Mapping[str, Path] | None, hub: str, revision: str) -> str:
    """What the rows are: the digest of their files, or the hub's commit where there are none."""
    return f"hub:{hub}@{revision[:12]}" if found is None else digest_files(found.values())[:16]


def parquet(path: Path, columns: list[str] | None = None) -> Any:
    """A Parquet file as an arrow table.

    Raises:
        ValueError: If it cannot be read as Parquet.
    """
    pyarrow, reader = need("pyarrow"), need("pyarrow.parquet")
    try:
        return reader.read_table(path, columns=columns, use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def rows(path: Path) -> int:
    """How many rows a Parquet file has, without reading them."""
    return need("pyarrow.parquet").read_metadata(path).num_rows


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """The label names of a column in the metadata that `datasets` writes into its files; None if there are none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def from_hub(name: str, config: str, revision: str, splits: Iterable[str], *, serves: str) -> dict[str, Any]:
    """The splits of a data set on the hub as arrow tables; see `load_hub`."""
    loaded = load_hub(name, config, revision, serves=serves)
    return {split: loaded[split].with_format("arrow")[:] for split in splits}


def load_hub(name: str, config: str | None, revision: str, *, serves: str) -> Any:
    """A data set on the hub, downloaded: its splits by name, in files that are mapped into memory.

    Args:
        name: Owner and name on the hub.
        config: Which of its configurations; None where it has one.
        revision: A commit, so that everybody gets the same rows.
        serves: What would serve instead: the end of the error.

    Raises:
        FileNotFoundError: If the hub does not deliver.
    """
    datasets = need("datasets")
    quiet = not datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # refused, broken off, disk full: the client's errors have no common class
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(f"the hub did not deliver {name} {config or ''}: {line}. {serves}") from error
    finally:
        if not quiet:
            datasets.utils.logging.enable_progress_bar()


def check_hub(title: str, name: str, config: str, revision: str, *, serves: str) -> None:
    """Whether the data set was downloaded before or the hub answers; asked before anything is waited for.

    Raises:
        FileNotFoundError: If neither.
    """
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "datasets"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or cache)
    if (cache / name.replace("/", "___") / config / "0.0.0" / revision).is_dir() or hub_answers():
        return
    why = "HF_HUB_OFFLINE forbids asking the hub" if offline() else f"the hub ({hub_endpoint()}) cannot be reached"
    raise FileNotFoundError(f"{title}: no data folder was given, and {why}. {serves}")


def describe(title: str, splits: Mapping[str, Split], holdout: float, model: str) -> str:
    """One sentence for reports: which rows, how many, of how many, with which model."""
    parts = []
    for name, found in splits.items():
        of = f" of {found.official:,} (subset)" if len(found) < found.official else ""
        parts.append(f"{name.replace('_', ' ')} {len(found):,}{of}")
    known = Path(model).name if os.sep in model and Path(model).is_dir() else model
    taken = f"; scored on {holdout:.0%} of train, which training does not see" if holdout else ""
    return f"{title} {', '.join(parts)}; {known}{taken}"
