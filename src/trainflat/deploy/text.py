"""The whole idea in one call: a data frame in, the smallest good model out."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from trainflat.deploy.search import search
from trainflat.deploy.smaller import Smaller
from trainflat.experiments import progress
from trainflat.experiments.store import Store
from trainflat.experiments.trials import Trials

__all__ = ["claim", "compress_text"]


def compress_text(
    data: Any,
    *,
    text: str,
    label: str,
    text2: str | None = None,
    model: str = "minilm",
    max_drop: float | None = None,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    by: str = "latency",
    store: str | Path = ".trainflat",
    device: str = "auto",
    quiet: bool = False,
    **options: Any,
) -> Smaller:
    """Train flat and plainly, then compress in every way, measure, and choose.

    Args:
        data: A pandas data frame, or what `trainflat.hf.text` reads: CSV, TSV, JSON Lines, Parquet, a data set of the hub. A
            frame is written into the store as Parquet, so that the same one finds what was done.
        text, text2, label: Columns; with two texts a task about pairs.
        model: A folder, a name on the hub, or "minilm".
        max_drop: Points that may be lost beside the best dense model. Default, if there is no budget: 1.
        budget_ms, budget_mb: What it may take at most.
        by: "latency" or "bytes": what "cheapest" means where only a drop is given.
        store: Where every stage is kept: the same call again finds all, another option adds to it.
        device: "auto", "cpu" or "cuda".
        quiet: No progress.
        options: Fields of `trainflat.experiments.trials.Trials` (epochs, lr, sizes, ways, gradient, seeds ...), and of
            `trainflat.hf.text` (kind, validation, groups, holdout, batch_size, max_length).

    Raises:
        ValueError, LookupError, FileNotFoundError: If the table, a column or an option is not what it has to be.

    Returns:
        What was found: ``.front``, ``.best``, ``.said``, ``.predict(texts)``, ``.save(folder)``.
    """
    kept = Store(store)
    own = {name: options.pop(name) for name in list(options) if name in Trials.__dataclass_fields__}
    source = data if isinstance(data, (str, Path)) else _written(data, kept.root)
    task = {
        "name": "text",
        "data": str(source),
        "text": text,
        "label": label,
        "text2": text2,
        "model": model,
        **options,
    }
    task = {key: value for key, value in task.items() if value is not None}
    from trainflat.hf.text import steps_per_epoch

    steps = steps_per_epoch(**{key: value for key, value in task.items() if key != "name"})
    name = own.pop("name", f"compress-{Path(str(source)).stem}")
    trials = Trials(**{"name": name, "task": task, "claim": claim(source), "steps_per_epoch": steps, **own})
    if max_drop is None and budget_ms is None and budget_mb is None:
        max_drop = 1.0
    wanted = {"max_drop": max_drop, "budget_ms": budget_ms, "budget_mb": budget_mb, "by": by}
    if quiet:
        return search(trials, kept, device=device, **wanted)
    from trainflat.deploy.search import planned

    with progress.shown(planned(trials, kept), to=sys.stderr) as say:
        return search(trials, kept, say=say, device=device, **wanted)


def claim(source: Any) -> str:
    """What the comment on top of the recipe says."""
    return (
        f"The smallest good model for {source}: trained plainly and flat, then compressed in every way, each measured.\n"
        "Written by trainflat compress; run it, change it, extend it: what is done is found again."
    )


def _written(frame: Any, root: Path) -> Path:
    """A data frame as Parquet in the store, named by what is in it."""
    if not hasattr(frame, "to_parquet"):
        raise ValueError(f"data must be a data frame or a path, got {type(frame).__name__}")
    folder = root / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "aside.parquet"
    frame.to_parquet(aside, index=False)
    path = folder / f"table-{hashlib.sha256(aside.read_bytes()).hexdigest()[:12]}.parquet"
    aside.replace(path)
    return path
