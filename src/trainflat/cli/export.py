"""``trainflat export`` and ``trainflat bench``: a finished model out of torch, and what each form of it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainflat.cli.options import AsJson, DataPath, Debug, parse_numbers, read_data_from
from trainflat.cli.printing import print_json, print_table

__all__ = ["bench", "export"]

Threads = Annotated[int, typer.Option(help="Processor threads of every runtime.")]


def export(
    folder: Annotated[
        Path, typer.Argument(help="A finished model: of compress, of save_pretrained, or a stage's folder.")
    ],
    to: Annotated[str, typer.Option("--to", help="onnx or safetensors.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="A new folder; default: FOLDER-onnx.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="A file with a text a line, to compare on; default: the task's own.")
    ] = None,
    metric: Annotated[
        bool, typer.Option("--metric/--no-metric", help="Whether to score on all held-out examples.")
    ] = True,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="7-bit weights, for x86 processors without VNNI.")
    ] = False,
    threads: Threads = 1,
    data: DataPath = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Export a model as a folder that needs no torch: checked against torch, in int8 as well, with a card."""
    read_data_from(data)
    lines = [] if texts is None else [line for line in _text(texts).splitlines() if line.strip()]
    if texts is not None and not lines:
        raise ValueError(f"{texts} has no text in it; write one on each line")
    from trainflat import export as exporting

    about = exporting.export(
        folder, to=to, out=out, texts=lines, metric=metric, threads=threads, reduce_range=reduce_range
    )
    if as_json:
        print_json(about)
        return
    if to == "onnx":
        rows = [
            [
                name + (" *" if name == about["model"] else ""),
                f"{one['bytes'] / 1e6:.1f}",
                f"{one['latency_ms']:.2f}",
                f"{one['difference']:.2g} of {one['largest']:.2g}",
                f"{100 * one['agree']:.0f} % of {one['rows']}",
                f"{100 * one['scored']['value']:.1f} ({one['scored']['metric']})" if "scored" in one else "",
            ]
            for name, one in about["files"].items()
        ]
        timed = about["timed"]
        tokens = f" × {timed['length']} tokens" if timed["length"] else ""
        size = f"batch 1{tokens}, {threads} thread(s), {timed['on']}"
        header = ["graph", "MB", "ms", "largest difference", "same answer", "metric"]
        print_table(
            "Exported and checked", header, rows, f"* the one to run; {size}; torch {about['torch']['latency_ms']} ms"
        )
        for remark in about["remarks"]:
            print(remark)
    print(f"Model: {about['folder']}")


def bench(
    folders: Annotated[list[Path], typer.Argument(help="Model folders, stages, or exported folders.")],
    batches: Annotated[str, typer.Option(help="Examples at a time.")] = "1,8,32",
    lengths: Annotated[
        str, typer.Option(help="Tokens of an example; above what a model takes, what it takes.")
    ] = "16,128",
    seconds: Annotated[float, typer.Option(help="For each batch, length and folder.")] = 2.0,
    threads: Threads = 1,
    data: DataPath = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time models in torch and ONNX Runtime, float32 and int8, side by side."""
    read_data_from(data)
    sizes = {"batches": parse_numbers("--batches", batches, int), "lengths": parse_numbers("--lengths", lengths, int)}
    from trainflat import export as exporting

    found = exporting.bench(folders, **sizes, seconds=seconds, threads=threads)
    if as_json:
        print_json(found)
        return
    names = {folder: Path(folder).name for folder in {row["folder"] for row in found["rows"]}}
    if "" in names.values() or len({*names.values()}) < len(names):
        names = {folder: folder for folder in names}  # small/ here and small/ there
    header = ["folder", "runtime", "batch", "tokens", "p50 ms", "p95 ms", "examples/s", "MB", "passes"]
    rows = [
        [
            names[row["folder"]],
            row["runtime"],
            str(row["batch"]),
            str(row["length"] or ""),
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['per_second']:.1f}",
            f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else "",
            str(row["runs"]),
        ]
        for row in found["rows"]
    ]
    note = "; ".join([f"{threads} thread(s), all of one size taking turns", *found["said"]])
    print_table("Latency and throughput", header, rows, note)


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with texts")
    return path.read_text(encoding="utf-8", errors="replace")
