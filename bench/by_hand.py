"""From a table to a small model: two commands of ours against what one writes by hand today, in one run.

The table is 8,000 sentences of SST-2's training file, drawn once, and its own validation file. By hand (`by_hand_peer.py`):
the Hugging Face Trainer, torch's exporter, ONNX Runtime's int8, their defaults, the same epochs, rate and batch. Ours:
``trainflat compress`` and ``trainflat export``. Both are then timed beside the Trainer's float32 model in torch, taking turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.pairs import Line, arguments, load, show, take_turns
from trainflat import hf, train
from trainflat.export.session import OnnxModel
from trainflat.hf import checkpoints

PEER = Path(__file__).with_name("by_hand_peer.py")
TITLE = "SST-2, {rows:,} training rows, MiniLM, one thread: two commands against a script by hand"
TEXTS = 64


def tables(data: Path, rows: int, held_out: int | None, folder: Path) -> tuple[Path, Path]:
    """The table and its validation table as CSV, with names as labels; ``held_out`` None: all there are."""
    made = []
    for split, count in (("train", rows), ("validation", held_out)):
        whole = pd.read_parquet(data / "glue" / "sst2" / f"{split}.parquet")
        some = whole if count is None else whole.sample(count, random_state=0)
        some = some.assign(label=some.label.map({0: "negative", 1: "positive"}))
        made.append(folder / f"sst2-{split}.csv")
        some[["sentence", "label"]].to_csv(made[-1], index=False)
    return made[0], made[1]


def ours(train_csv: Path, validation: Path, folder: Path, more: list[str]) -> dict[str, Any]:
    """Compress and export, as a user does."""
    began = time.perf_counter()
    columns = [
        "--text",
        "sentence",
        "--label",
        "label",
        "--validation",
        str(validation),
        "--store",
        str(folder / "store"),
    ]
    said = _trainflat("compress", str(train_csv), *columns, "--max-drop", "1", "--out", str(folder / "small"), *more)
    about = _trainflat("export", str(folder / "small"), "--out", str(folder / "small-onnx"))
    return {**said, "export": about, "seconds": time.perf_counter() - began}


def by_hand(train_csv: Path, validation: Path, folder: Path) -> dict[str, Any]:
    """The script, in a process of its own."""
    model = str(checkpoints.locate("minilm"))
    subprocess.run([sys.executable, str(PEER), str(train_csv), str(validation), model, str(folder)], check=True)
    return json.loads((folder / "said.json").read_text())


def _trainflat(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "trainflat", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    options = arguments(
        __doc__ or "",
        (
            "--data",
            {"type": Path, "default": os.environ.get("TRAINFLAT_DATA"), "help": "the folder that holds glue/sst2"},
        ),
        ("--train-rows", {"type": int, "default": 8000}),
        ("--keep", {"type": Path, "help": "a folder for both results and our store; the same one again goes on"}),
        ("--more", {"default": "", "help": "options for trainflat compress, in one text"}),
    )
    if options.data is None:
        raise SystemExit("name the folder that holds glue/sst2 with --data or TRAINFLAT_DATA")
    before = load()
    rows = 64 if options.small else options.train_rows
    more = ["--epochs", "0.1", "--try", "int8"] if options.small else options.more.split()
    with tempfile.TemporaryDirectory() as aside:
        folder = (options.keep or Path(aside)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        files = tables(Path(options.data), rows, 64 if options.small else None, folder)
        theirs = folder / "by-hand"
        hand = (
            json.loads((theirs / "said.json").read_text())
            if (theirs / "said.json").is_file()
            else by_hand(*files, theirs)
        )
        kept = folder / "ours.json"
        own = json.loads(kept.read_text()) if kept.is_file() else ours(*files, folder, more)
        kept.write_text(json.dumps(own))
        lines = _lines(own, hand, folder, files[1], options)
    note = (
        f"Ours: {own['said']}. Minutes of ours are those of everything tried, two trainings and their smaller models."
    )
    show(TITLE.format(rows=rows), lines, options, before, [note])


def _lines(own: dict[str, Any], hand: dict[str, Any], folder: Path, validation: Path, options: Any) -> list[Line]:
    about = own["export"]
    graphs = {"ours": folder / "small-onnx" / about["model"], "by hand": folder / "by-hand" / "int8.onnx"}
    models = {name: OnnxModel(path) for name, path in graphs.items()}
    whole, words = hf.load(str(folder / "by-hand" / "torch"))
    models["torch"] = whole.eval()
    texts = list(pd.read_csv(validation).sentence[:TEXTS])
    padded = {"padding": "max_length", "max_length": 128, "truncation": True}
    batches = {
        "128 tokens": [dict(words(texts[0], return_tensors="pt", **padded))],
        "a sentence as it is": [dict(words(text, return_tensors="pt")) for text in texts],
    }
    weights = sum(p.numel() * p.element_size() for p in whole.state_dict().values()) / 1e6
    size = {name: path.stat().st_size / 1e6 for name, path in graphs.items()} | {"torch": weights}
    accuracy = {"ours": about["files"][about["model"]]["scored"]["value"], "by hand": hand["accuracy"]["int8"]}
    lines = []
    for what, peer in (("fine-tuned with the Trainer, float32 in torch", "torch"), ("by hand, int8", "by hand")):
        first = peer == "torch"
        right = hand["accuracy"]["torch"] if first else accuracy["by hand"]
        drop = 100 * (right - accuracy["ours"])
        said = [f"{100 * value:.1f} %" for value in (accuracy["ours"], right)]
        lines.append(Line(f"accuracy; peer: {what}; the ratio is the points lost", *said, drop, 1.0 if first else None))
        said = [f"{size[name]:.1f} MB" for name in ("ours", peer)]
        lines.append(
            Line(f"times smaller; peer: {what}", *said, size[peer] / size["ours"], 3.0 if first else None, True)
        )
        for name, inputs in batches.items():
            both = take_turns(
                {one: _pass(models[one], inputs) for one in ("ours", peer)}, rounds=max(options.rounds, 15)
            )
            took = {one: 1e3 * times.median / len(inputs) for one, times in both.items()}
            said = [f"{took[one]:.2f} ms" for one in ("ours", peer)]
            lines.append(
                Line(
                    f"times faster, {name}; peer: {what}",
                    *said,
                    took[peer] / took["ours"],
                    4.0 if first else None,
                    True,
                )
            )
    script = len([line for line in PEER.read_text().splitlines() if line.strip()])
    lines.append(Line("lines that one writes", "2", str(script), 2 / script))
    lines.append(
        Line("minutes", f"{own['seconds'] / 60:.1f}", f"{hand['seconds'] / 60:.1f}", own["seconds"] / hand["seconds"])
    )
    return lines


def _pass(model: Any, inputs: list[Any]) -> Any:
    def run() -> None:
        with torch.inference_mode():
            for one in inputs:
                train.logits(model, one)

    return run


if __name__ == "__main__":
    main()
