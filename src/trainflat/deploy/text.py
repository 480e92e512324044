"""The whole idea in one call: a data frame in, the smallest good model out."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainflat import compress
from trainflat.deploy.command import searching
from trainflat.deploy.kernels import check_kernels
from trainflat.deploy.search import planned, search
from trainflat.deploy.smaller import Smaller
from trainflat.experiments import progress
from trainflat.experiments.resolve import Spec, check, look_anew
from trainflat.experiments.runner import pick_device
from trainflat.experiments.store import Store
from trainflat.experiments.trials import Trials
from trainflat.experiments.work import TASKS, make_task
from trainflat.reports.front.pareto import check_wish

__all__ = ["claim", "compress_text"]


def compress_text(
    data: Any,
    *,
    text: str,
    label: str,
    text2: str | None = None,
    model: str | Path = "minilm",
    max_drop: float | None = None,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    by: str = "latency",
    offer: str | None = None,
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
        by: What "cheapest" means where only a drop is given: "latency", "bytes", or "sparsity", the share of all weights that
            are zero or cut away (a pruned model's zeros are stored and multiplied, so it is no smaller and no faster).
        offer: The name of the model that is wanted, as `Smaller.offers` has it, instead of a wish.
        store: Where every stage is kept: the same call again finds all, another option adds to it.
        device: Where it is trained: "auto", "cpu" or "cuda".
        quiet: No progress.
        options: Fields of `trainflat.experiments.trials.Trials` (epochs, lr, sizes, ways, gradient, serve, seeds ...), and of
            `trainflat.hf.text` (kind, validation, groups, holdout, batch_size, max_length); ``validation`` may be a frame, too.

    Raises:
        ValueError, LookupError, OSError: If the table, a column or an option is not what it has to be: before anything is
            trained.
        ImportError, RuntimeError: If a way needs torchao, or kernels, that are not to be had: before anything is trained, too.
        LookupError: If there is no such offer, once all are known.

    Returns:
        What was found: ``.front``, ``.best``, ``.said``, ``.predict(texts)``, ``.save(folder)``; in a notebook it shows itself.
    """
    wanted = {"max_drop": max_drop, "budget_ms": budget_ms, "budget_mb": budget_mb, "by": by}
    check_wish(**wanted)
    device = pick_device(device)
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
    if offer is not None and (max_drop, budget_ms, budget_mb) != (None, None, None):
        raise ValueError(f"offer={offer!r} names the model that is wanted: leave max_drop and the budgets out")
    kept = Store(store)
    if kept.root.exists() and not kept.root.is_dir():
        raise NotADirectoryError(f"the store {kept.root} is no folder; name another one")
    own = {name: options.pop(name) for name in set(options) & {*Trials.__dataclass_fields__} - {"task"}}
    source = data if isinstance(data, (str, Path)) else _written(data, kept.root)
    if (scored := options.get("validation")) is not None:
        options["validation"] = str(scored if isinstance(scored, (str, Path)) else _written(scored, kept.root))
    task = {
        "name": "text",
        "data": str(source),
        "text": text,
        "label": label,
        "text2": text2,
        "model": str(model),
        **options,
    }
    task = {key: value for key, value in task.items() if value is not None}
    trials = Trials(**{"name": _named(source, kept.root), "task": task, "claim": claim(source), **own})
    if by == "sparsity" and not {"pruned", "shrunk"} & set(trials.tried):
        raise ValueError(
            f"by='sparsity' needs a way that removes weights, pruned or shrunk; got {', '.join(trials.tried)}"
        )
    check_kernels(trials)
    table = _checked(task, trials.tried)
    if "steps_per_epoch" not in own:
        trials = replace(trials, steps_per_epoch=table.steps_per_epoch)
    if offer is None and (max_drop, budget_ms, budget_mb) == (None, None, None):
        wanted["max_drop"] = 1.0
    plan = planned(trials, kept)
    command = searching(task, {name: getattr(trials, name) for name in own})
    asked = {"plan": plan, "command": command, "device": device, "offer": offer, **wanted}
    if quiet:
        return search(trials, kept, **asked)
    with progress.shown(plan, to=sys.stderr, first=table.note) as say:
        return search(trials, kept, say=say, **asked)


def claim(source: Any) -> str:
    """What the comment on top of the recipe says."""
    return (
        f"The smallest good model for {source}: trained plainly and flat, then compressed in every way, each measured.\n"
        "Written by trainflat compress; run it, change it, extend it: what is done is found again."
    )


def _title(source: Any) -> str:
    """What a recipe about this table is called: letters, digits, and hyphens for all else.

    >>> _title("data/my reviews (2).csv"), _title("owner/set:small")
    ('compress-my-reviews-2', 'compress-set-small')
    """
    return "-".join(["compress", *re.findall(r"\w+", Path(str(source)).stem)])


def _named(source: Any, root: Path) -> str:
    """The title, with a digest behind it where the store has a search of that title about another table."""
    title = _title(source)
    path = root / "recipes" / f"{title}.toml"
    if not path.is_file():
        return title
    try:
        other = tomllib.loads(path.read_text(encoding="utf-8"))["defaults"]["task"]["data"]
    except (tomllib.TOMLDecodeError, LookupError, TypeError):
        return title
    return title if other == str(source) else f"{title}-{hashlib.sha256(str(source).encode()).hexdigest()[:6]}"


def _checked(task: Mapping[str, Any], ways: Sequence[str]) -> Any:
    """The task, once its table, its tokenizer and its checkpoint were read and found to be what all ways need."""
    look_anew()
    spec = Spec.parse(dict(task), "task")
    check(spec, TASKS)
    made = make_task(spec)
    made.inputs(1)
    whole = made.model(0)
    if "shrunk" in ways:
        try:
            compress.structure(whole)
        except (LookupError, ValueError) as error:
            others = ", ".join(way for way in ways if way != "shrunk") or "pruned, int8"
            raise type(error)(f"{error}; or leave 'shrunk' out of what is tried: {others}") from None
    return made


def _written(frame: Any, root: Path) -> Path:
    """A data frame as Parquet in the store, named by what is in it."""
    if not hasattr(frame, "to_parquet") or not hasattr(frame, "iloc"):
        raise ValueError(
            f"data must be a pandas data frame or a path, got {type(frame).__name__}; write it as a Parquet file and give its "
            "path"
        )
    folder = root / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "aside.parquet"
    try:
        frame.to_parquet(aside, index=False)
        path = folder / f"table-{hashlib.sha256(aside.read_bytes()).hexdigest()[:12]}.parquet"
        aside.replace(path)
    except (TypeError, ValueError) as error:  # pyarrow's are of these
        why = " ".join(" ".join(map(str, error.args)).split())
        raise ValueError(
            f"the data frame cannot be written as Parquet ({why}); give only the columns that are needed, each of one type"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return path
