"""A data set on the hub as tables: owner, name, configuration and revision in one word, and its splits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trainflat.hf.checkpoints import first_line
from trainflat.hf.formats import BLOCK, Row, Source
from trainflat.hf.needs import hub_answers, hub_endpoint, need, offline
from trainflat.hf.sources import check_hub, load_hub

__all__ = ["HubData"]

SERVES = "A file with the table serves: .csv, .tsv, .jsonl or .parquet"
WORD = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True)
class HubData:
    """``owner/name``, ``owner/name:configuration`` or either with ``@revision``; without one, the newest is asked for."""

    name: str
    config: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, word: str) -> HubData | None:
        """None if it cannot be a name on the hub.

        >>> HubData.parse("nyu-mll/glue:sst2@1a2b"), HubData.parse("../reviews.csv")
        (HubData(name='nyu-mll/glue', config='sst2', revision='1a2b'), None)
        """
        found = WORD.fullmatch(word)
        return cls(**found.groupdict()) if found else None

    def __str__(self) -> str:
        return self.name + (f":{self.config}" if self.config else "")

    @property
    def identity(self) -> str:
        """What decides the rows, without downloading them: ``hub:name@revision``.

        Raises:
            LookupError, FileNotFoundError: If there is no such data set, or the hub does not answer.
        """
        return f"hub:{self}@{self._pinned[:12]}"

    @property
    def splits(self) -> list[str]:
        """Names of its splits. The data set is downloaded, or found where it was downloaded before."""
        return list(self._loaded)

    def open(self, split: str) -> Source:
        """One split as a table.

        Raises:
            LookupError: If there is no such split.
        """
        if split not in self.splits:
            raise LookupError(f"{self} on the hub has no split {split!r}; it has {', '.join(self.splits)}")
        table = self._loaded[split]

        def rows(wanted: Sequence[str]) -> Iterator[Row]:
            number = 0
            for block in table.select_columns(list(dict.fromkeys(wanted))).with_format("arrow").iter(BLOCK):
                for values in zip(*(block.column(name).to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield number, values

        names = {column: list(found.names) for column, found in table.features.items() if hasattr(found, "names")}
        return Source(f"{self} {split}", "row", table.column_names, rows, names)

    @property
    def _loaded(self) -> Any:
        check_hub(str(self), self.name, self.config or "default", self._pinned, serves=SERVES)
        return _load(self.name, self.config, self._pinned)

    @property
    def _pinned(self) -> str:
        return self.revision or _newest(self.name)


@lru_cache(maxsize=1)
def _load(name: str, config: str | None, revision: str) -> Any:
    return load_hub(name, config, revision, serves=f"Its configuration is named after a colon, {name}:CONFIG. {SERVES}")


@lru_cache
def _newest(name: str) -> str:
    """The newest revision; the same one throughout a process."""
    here = f"there is no file {name} in {os.getcwd()}"
    if not hub_answers():
        why = "HF_HUB_OFFLINE forbids asking the hub" if offline() else f"the hub ({hub_endpoint()}) cannot be reached"
        raise FileNotFoundError(f"{here}, and {why} for a data set of this name. {SERVES}")
    try:
        return need("huggingface_hub").dataset_info(name, timeout=10).sha
    except need("huggingface_hub.errors").RepositoryNotFoundError:
        raise LookupError(f"{here}, and the hub ({hub_endpoint()}) has no data set of this name. {SERVES}") from None
    except Exception as error:  # refused, broken off: the client's errors have no common class
        raise FileNotFoundError(f"{here}, and the hub did not deliver: {first_line(error)}. {SERVES}") from error
