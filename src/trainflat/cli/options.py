"""The options that several commands have: how each is called, what its help says, and how its text is read."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

__all__ = [
    "DEFAULT_STORE",
    "AsJson",
    "DataPath",
    "Debug",
    "DeviceName",
    "Overrides",
    "RecipeName",
    "Seeds",
    "Smoke",
    "StorePath",
    "parse_numbers",
    "parse_overrides",
    "parse_seeds",
    "read_data_from",
]

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe (see `trainflat list`) or a file ending in .toml.")]
StorePath = Annotated[Path, typer.Option("--store", help="Folder that keeps every stage's result.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, all else on standard error.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds, such as 0-4 or 0,3,7; default: the recipe's.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="STAGE.FIELD=VALUE in TOML; * for every stage that has the field. Repeatable."),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="The recipe's small size: seconds, offline.")]
DataPath = Annotated[
    Path | None, typer.Option("--data", help="Folder with glue/<task>/<split>.parquet; default: the hub.")
]
DeviceName = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]

DEFAULT_STORE = Path(".trainflat")
MOST_SEEDS = 1000
N = TypeVar("N", int, float)


def parse_overrides(texts: list[str]) -> dict[str, Any]:
    """``STAGE.FIELD=VALUE``; a value that is not TOML is taken as text.

    Example:
        >>> parse_overrides(["train.steps=5", "*.task={name='glue', subset='rte'}", "train.gradient=sam"])
        {'train.steps': 5, '*.task': {'name': 'glue', 'subset': 'rte'}, 'train.gradient': 'sam'}
    """
    parsed: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set takes STAGE.FIELD=VALUE, got {text!r}")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = value.strip()
    return parsed


def parse_numbers(option: str, text: str, number: type[N]) -> list[N]:
    """Numbers with commas between them.

    Example:
        >>> parse_numbers("--sizes", "0.5, 0.75", float), parse_numbers("--batches", "1,8", int)
        ([0.5, 0.75], [1, 8])
    """
    try:
        return [number(part) for part in text.split(",") if part.strip()]
    except ValueError:
        such = "whole numbers such as 1,8,32" if number is int else "numbers such as 0.5,0.9"
        raise ValueError(f"{option} takes {such}; got {text!r}") from None


def parse_seeds(text: str) -> list[int]:
    """A range, a list, or both; of at most a thousand seeds, since each makes stages of its own.

    Example:
        >>> parse_seeds("0-2,7")
        [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        whole = first.strip().isdecimal() and (not dash or last.strip().isdecimal())
        if not whole or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds takes a range such as 0-4 or a list such as 0,3,7; got {text!r}")
        begin, end = int(first), int(last if dash else first) + 1
        if len(seeds) + end - begin > MOST_SEEDS:
            raise ValueError(f"--seeds takes at most {MOST_SEEDS:,} seeds at once; got {text!r}")
        seeds += range(begin, end)
    return seeds


def read_data_from(data: Path | None) -> None:
    """From now on this process, and those that it starts, read their data from the folder that was given, if one was.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if data is not None:
        if not data.is_dir():
            raise FileNotFoundError(f"there is no folder {data} to read data from")
        os.environ["TRAINFLAT_DATA"] = str(data)
