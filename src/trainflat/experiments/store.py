"""Results by content: a folder for each stage identity, complete once ``done.json`` is in it."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

__all__ = ["Store", "canonical", "identity", "write_json"]

FORMAT = 1


def canonical(value: Any) -> Any:
    """Plain JSON for hashing. ``None`` means absent, so a new optional field changes no identity; 1.0 and 1 are one number."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in sorted(value.items()) if item is not None}
    raise TypeError(f"{value!r} cannot be part of a stage's identity; use text, numbers, lists and tables")


def identity(kind: str, version: int, fields: Mapping[str, Any], parents: Mapping[str, str], seed: int) -> str:
    """``kind-`` and twelve hexadecimal digits of SHA-256 over everything that decides the result."""
    text = json.dumps([kind, version, canonical(fields), dict(parents), seed], sort_keys=True, separators=(",", ":"))
    return f"{kind.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_json(path: Path, document: Any) -> None:
    """JSON that is there whole or not at all."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")  # several machines may share the folder
    try:
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class Store:
    """A folder of stage results. Reading it needs no torch."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def folder(self, key: str) -> Path:
        """The stage's folder, made if need be."""
        path = self.root / "stages" / key
        path.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, key: str) -> dict[str, Any] | None:
        """The finished stage's document, or None if it is not finished.

        Raises:
            ValueError: If ``done.json`` is damaged or belongs to something else.
        """
        path = self.root / "stages" / key / "done.json"
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] == FORMAT and document["key"] == key and isinstance(document["rows"], list):
                return document
        except (ValueError, KeyError, TypeError):
            pass  # told below, as is what is JSON but not ours
        raise ValueError(f"{path} is damaged or not ours; delete the folder {path.parent} to compute this stage again")

    def finish(self, key: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Mark the stage complete: ``done.json`` is renamed into place last."""
        document = {"format": FORMAT, "key": key, **document}
        write_json(self.folder(key) / "done.json", document)
        return document

    @contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Only one process works on a stage; the lock goes with its process, however that ends. Yields whether it is ours."""
        lock = FileLock(self.folder(key) / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def write_run(self, name: str, document: Mapping[str, Any]) -> None:
        """Remember which stages make up a recipe's run, for `rows`."""
        path = self.root / "runs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)  # a recipe may be called paper/table1
        write_json(path, {"format": FORMAT, **document})

    def runs(self) -> list[str]:
        """The names of all runs in this store."""
        folder = self.root / "runs"
        return sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))

    def read_run(self, name: str) -> dict[str, Any]:
        """What `write_run` wrote.

        Raises:
            LookupError: If there is no such run here.
            ValueError: If its file is damaged.
        """
        path = self.root / "runs" / f"{name}.json"
        if not path.exists():
            raise LookupError(
                f"{self.root} holds no run named {name!r} (it holds {', '.join(self.runs()) or 'none'}); run it first"
            )
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(document["points"], list)
            return document
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise ValueError(f"{path} is damaged; run the recipe again, its finished stages are kept") from error

    def rows(self, run: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every measured point of a run so far: the rows of its finished stages, each with its arm, stage and seed, and with what
        was ``changed`` of the recipe, if anything was.
        """
        rows, changed = [], ", ".join(run.get("changed", ()))
        for point in run["points"]:
            if (document := self.done(point["key"])) is not None:
                about = {
                    "recipe": run["name"],
                    "kind": document["kind"],
                    **{k: point[k] for k in ("stage", "key", "seed", "arm")},
                    **({"changed": changed} if changed else {}),
                }
                rows += [{**about, **row} for row in document["rows"]]
        return rows

    def stages(self, run: Mapping[str, Any]) -> dict[str, int]:
        """How many of a run's stages are done, of how many."""
        keys = {point["key"] for point in run["points"]}
        return {"done": sum((self.root / "stages" / key / "done.json").exists() for key in keys), "of": len(keys)}

    def find(self, prefix: str) -> dict[str, Any] | None:
        """The stage whose key begins with ``prefix``: its settings and, once finished, its results. None if there is none.

        Raises:
            LookupError: If several begin so.
        """
        found = sorted(path.parent.name for path in (self.root / "stages").glob(f"{glob.escape(prefix)}*/stage.json"))
        if len(found) > 1:
            raise LookupError(
                f"{len(found)} stages begin with {prefix!r}: {', '.join(found[:4])} …; give more of the key"
            )
        if not found:
            return None
        settings = json.loads((self.root / "stages" / found[0] / "stage.json").read_text(encoding="utf-8"))
        return {"key": found[0], **settings, "done": self.done(found[0])}
