"""Latency and throughput of models side by side: torch and ONNX Runtime, float32 and int8, at several batch and text sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainflat import compress, int8, train
from trainflat.export import graph, session
from trainflat.export.source import ABOUT, Source, open_source
from trainflat.int8 import by_onnxruntime, timing

__all__ = ["bench"]


def bench(
    folders: Sequence[str | Path],
    *,
    batches: Sequence[int] = (1, 8, 32),
    lengths: Sequence[int] = (16, 128),
    seconds: float = 2.0,
    threads: int = 1,
) -> dict[str, Any]:
    """Time every folder's model in every runtime that is installed; all of one size take turns, whichever folder they are of.

    A model folder or a stage is timed in torch and, exported for the moment, in ONNX Runtime, in float32 and in int8 by every
    backend of `trainflat.int8`; an exported folder by its own graphs.

    Args:
        folders: As `trainflat.export.export` takes or makes them.
        batches: Examples at a time.
        lengths: Tokens of each, none of them padding; above what a model takes, what it takes, and ``said`` says so. Of no
            meaning, and left out, for models that read no tokens.
        seconds: For each size of batch and text and each folder; all runtimes of all folders take turns in the sum.
        threads: Of every runtime.

    Raises:
        FileNotFoundError, LookupError, ValueError: If a folder holds nothing that can be timed, no size is named or one is below
            1, or the seconds are not above 0 or have no end.

    Returns:
        ``rows``, one for each batch, length, folder and runtime, with ``p50_ms``, ``p95_ms``, ``per_second`` (examples), ``runs``
        and ``bytes`` (None where a backend does not say); ``threads``; ``said``, what could not be timed and why, which lengths
        were cut, and what to know about the processor.
    """
    if not folders:
        raise ValueError("name at least one folder to time")
    if not batches or not lengths:
        raise ValueError(f"name at least one of the {'lengths' if batches else 'batches'}, such as 1,8,32")
    if wrong := [size for size in (*batches, *lengths) if size < 1]:
        raise ValueError(f"batches and lengths are at least 1, got {wrong[0]}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be above 0 and finite, got {seconds}")
    rows, said = [], list(int8.processor().warnings)
    with timing.threads(threads):
        contests = [_open(Path(folder)) for folder in folders]
        for contest in contests:
            said += [*contest.said, *_cut(contest, lengths)]
        for batch in batches:
            for entered in _sizes(contests, lengths):
                rows += _race(entered, batch, seconds * len(entered))
    return {"rows": rows, "threads": threads, "said": list(dict.fromkeys(said))}


def _sizes(contests: Sequence[_Contest | _Exported], lengths: Sequence[int]) -> Iterator[list[_Entry]]:
    """For each length the models that are timed at it, each at a length only once."""
    seen: set[_Entry] = set()
    for length in lengths:
        entries = [(contest, min(length, contest.longest) if contest.longest else None) for contest in contests]
        if entered := [entry for entry in entries if entry not in seen]:
            yield entered
        seen.update(entered)


def _race(entered: Sequence[_Entry], batch: int, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of one batch and length: all runtimes of all these folders take turns."""
    runners: dict[str, nn.Module] = {}
    for number, (contest, length) in enumerate(entered):
        inputs = contest.inputs(batch, length)
        runners |= {f"{number} {name}": _Fed(model, inputs) for name, model in contest.models.items()}
    raced = timing.race(runners, torch.empty(batch), seconds=seconds)
    for number, (contest, length) in enumerate(entered):
        for name, size in contest.bytes.items():
            about = {"folder": str(contest.folder), "runtime": name, "batch": batch, "length": length}
            yield {**about, "threads": torch.get_num_threads(), **asdict(raced[f"{number} {name}"]), "bytes": size}


def _cut(contest: _Contest | _Exported, lengths: Sequence[int]) -> list[str]:
    """A sentence if a model takes fewer tokens than asked.

    >>> from types import SimpleNamespace
    >>> _cut(SimpleNamespace(longest=128, folder=Path("here/small")), [16, 512, 4000])
    ['small takes 128 tokens, to which what was asked is cut: 512, 4000']
    """
    most = contest.longest or math.inf
    longer = ", ".join(str(length) for length in dict.fromkeys(lengths) if length > most)
    return [f"{contest.folder.name} takes {most} tokens, to which what was asked is cut: {longer}"] if longer else []


class _Contest:
    """The runtimes of a model folder."""

    def __init__(self, source: Source):
        self.source, self.folder, self.longest, self.said = source, source.folder, source.longest, []
        model, example = source.model, source.example(2, 16)
        grid = compress.grid(model)
        self.models: dict[str, nn.Module] = {f"torch{_on(grid)}": model}
        self.bytes: dict[str, int | None] = {next(iter(self.models)): _in_torch(model)}
        why_not = by_onnxruntime.missing()
        if why_not is None:
            whole = graph.trace(model, example)
            self.models["ONNX Runtime"] = made = session.OnnxModel(whole)
            self.bytes["ONNX Runtime"] = made.bytes
        floats = graph.in_floats(model)
        for backend in int8.BACKENDS:
            if grid and grid["name"] == "dynamic_int8" and backend.NAME == "torch.ao":
                continue  # the model itself
            why_not = backend.missing()
            if why_not is not None:
                self.said.append(f"{backend.NAME} is left out: {why_not}")
                continue
            small = backend.build(floats, example)
            name = f"{backend.NAME}, int8"
            self.models[name] = small
            self.bytes[name] = _in_torch(small) if backend.NAME == "torch.ao" else getattr(small, "bytes", None)

    def inputs(self, batch: int, length: int | None) -> Any:
        return self.source.example(batch, length)


class _Exported:
    """The graphs of an exported folder."""

    def __init__(self, folder: Path):
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            files, self.longest, self.known = about["files"], about["max_length"], about["inputs"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder / ABOUT} is damaged: {error}; export the model again") from error
        if not self.longest or "input_ids" not in self.known:
            raise ValueError(f"the graph in {folder} reads no tokens; time the folder that it was exported from")
        self.folder = folder
        self.said: list[str] = []
        names = {
            name: f"ONNX Runtime{', int8' if 'int8' in name else ''}" for name in files if (folder / name).is_file()
        }
        if not names:
            raise FileNotFoundError(f"{folder} has none of its graphs ({', '.join(files)}); export the model again")
        self.models = {said: session.OnnxModel(folder / name) for name, said in names.items()}
        self.bytes = {said: made.bytes for said, made in self.models.items()}

    def inputs(self, batch: int, length: int | None) -> dict[str, Tensor]:
        """Token 1 everywhere: what a pass takes depends on how many there are."""
        made = {name: torch.ones(batch, length or 1, dtype=torch.long) for name in self.known}
        return {**made, "token_type_ids": torch.zeros(batch, length or 1, dtype=torch.long)}


class _Fed(nn.Module):
    """A model with its own batch, whatever it is called on, so that models which read differently take turns."""

    def __init__(self, model: nn.Module, inputs: Any):
        super().__init__()
        self.model, self.own = model, inputs

    def forward(self, _: Any) -> Tensor:
        return train.logits(self.model, self.own)


_Entry = tuple[_Contest | _Exported, int | None]  # and the tokens of its examples, if it reads any


def _open(folder: Path) -> _Contest | _Exported:
    return _Exported(folder) if (folder / ABOUT).is_file() else _Contest(open_source(folder))


def _on(grid: dict[str, Any] | None) -> str:
    """How a quantized model is called beside the others.

    >>> _on(None), _on({"name": "dynamic_int8"}), _on({"name": "weight_only", "bits": 4})
    ('', ', int8', ', weights in int4')
    """
    names = {"dynamic_int8": ", int8", "static_int8": ", static int8", "weight_only": ", weights in int{bits}"}
    return names[grid["name"]].format(**grid) if grid else ""


def _in_torch(model: nn.Module) -> int:
    """Bytes of its tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in compress.plain_tensors(model).values())
