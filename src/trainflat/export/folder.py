"""A finished model becomes a folder that runs without us: graph, tokenizer, labels, card; whole and checked, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainflat.export import onnx_folder
from trainflat.export.source import Source, open_source
from trainflat.hf.needs import need
from trainflat.int8 import timing
from trainflat.new_folder import filling

__all__ = ["FORMATS", "export"]

FORMATS = ("onnx", "safetensors")


def export(
    folder: str | Path,
    *,
    to: str = "onnx",
    out: str | Path | None = None,
    texts: Sequence[str] = (),
    metric: bool = True,
    threads: int = 1,
    reduce_range: bool = False,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Export a finished model into a new folder; returns what is then in its ``export.json``, and the folder.

    To ``"onnx"``: the float graph and an 8-bit one (written in both of ONNX's ways, the faster one kept), each compared with
    the torch model on real inputs and, where the task and its data are known, by its metric. To ``"safetensors"``: the
    model with its tokenizer, as `trainflat.hf.load` reads it back.

    Args:
        folder: Of ``save_pretrained``, of `trainflat compress`, or a finished stage's.
        to: One of `FORMATS`.
        out: A new folder. Default: beside the first, ``-onnx`` or ``-safetensors`` added to its name.
        texts: Real texts to compare on. Default: the task's own, else docstrings of Python's library.
        metric: Whether to score the exported model on all held-out examples.
        threads: Of timing, and of the comparison.
        reduce_range: 7-bit weights, for a folder that is to run on x86 without VNNI.
        seconds: Of each of the two timings: of the ways to write int8, and of all against torch.

    Raises:
        FileNotFoundError, LookupError, ValueError: If the folder holds nothing that can be exported; nothing is written then.
        FileExistsError: If ``out`` is there and not empty.
        NotADirectoryError, PermissionError: If it cannot be made.
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
    """
    if to not in FORMATS:
        raise ValueError(f"--to is {' or '.join(FORMATS)}, got {to!r}")
    folder = Path(folder).expanduser()
    target = Path(out).expanduser() if out is not None else folder.resolve().with_name(f"{folder.resolve().name}-{to}")
    with filling(target) as place, timing.threads(threads):
        if to == "onnx":
            for package in ("onnx", "onnxscript", "onnxruntime"):
                need(package, "onnx")  # before a large model is read for nothing
        source = open_source(folder)
        if to == "safetensors":
            about = _safetensors(source, place)
        else:
            how = {"metric": metric, "reduce_range": reduce_range, "seconds": seconds}
            about = onnx_folder.write(source, place, texts, **how)
    return {"folder": str(target), **about}


def _safetensors(source: Source, place: Path) -> dict[str, Any]:
    if source.words is None:
        raise ValueError(f"{source.folder} holds no transformers model; its model.safetensors is what there is to have")
    from trainflat.hf import small

    note = getattr(source.task, "note", "")
    if source.task is not None and hasattr(source.task, "save"):
        source.task.save(place, source.model, notes=note)
    else:
        small.save(place, source.model, source.words, notes=note)
    return {"format": 1, "model": "model.safetensors"}
