"""The command that makes the same search, or one of its models, again: what is shown beside every model."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainflat.experiments import toml
from trainflat.experiments.trials import Trials
from trainflat.hf.text import text as text_task
from trainflat.reports.front.offers import model, offers
from trainflat.reports.rows import Row, results

__all__ = ["FOLDER", "searching", "wishing", "with_commands"]

FOLDER = "small"
"""Where a command keeps a model; anybody names another one."""

OPTIONS = {
    "ways": "--try",
    "gradient": "--rule",
    **{name: f"--{name}" for name in ("sizes", "epochs", "lr", "seeds", "precision", "threads", "serve")},
    **{name: f"--{name}" for name in ("kind", "validation", "groups")},
    "batch_size": "--batch-size",
    "max_length": "--max-length",
}
"""What the command has an option of its own for; all else goes through ``--set NAME=VALUE``."""


def searching(task: Mapping[str, Any], more: Mapping[str, Any]) -> list[str]:
    """The words of the command that makes a search again, without a wish; without what cannot change a result: the store, names.

    Args:
        task: The task's keywords, as a recipe has them.
        more: Fields of `Trials` that were given.

    Example:
        >>> task = {"name": "text", "data": "reviews.csv", "text": "review", "label": "stars", "model": "minilm"}
        >>> words = searching({**task, "holdout": 0.2}, {"sizes": (0.5, 0.8), "gradient": {"name": "sam", "rho": 0.1}})
        >>> shlex.join(words[:9])
        'trainflat compress reviews.csv --text review --label stars --model minilm'
        >>> shlex.join(words[9:])
        '--rule sam --rho 0.1 --sizes 0.5,0.8 --set holdout=0.2'
        >>> searching(task, {"gradient": ("sam", {"name": "saq", "bits": 4})})[9:]
        ['--rule', 'sam', '--rule', '{ name = "saq", bits = 4 }']
    """
    columns = [word for name in ("text", "text2") if task.get(name) for word in ("--text", str(task[name]))]
    words = ["trainflat", "compress", str(task["data"]), *columns, "--label", str(task["label"])]
    words += ["--model", str(task["model"])]
    usual = {name: f.default for name, f in Trials.__dataclass_fields__.items()}
    usual |= {name: p.default for name, p in inspect.signature(text_task).parameters.items()}
    del usual["steps_per_epoch"]  # the command's is the table's
    told = {"name", "claim", "data", "text", "text2", "label", "model"}
    given = {name: value for name, value in {**task, **more}.items() if name not in told}
    given = {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
    for name in sorted(given, key=lambda name: (name not in OPTIONS, name)):
        words += _option(name, given[name])
    return words


def wishing(wanted: Mapping[str, Any]) -> list[str]:
    """The options that say what is wanted of a search.

    >>> wishing({"max_drop": 1.0, "budget_ms": 20, "by": "bytes"}), wishing({"offer": "dense from SAM"})
    (['--max-drop', '1', '--target', 'size', '--budget', '20ms'], ['--offer', 'dense from SAM'])
    """
    words = [] if wanted.get("max_drop") is None else ["--max-drop", f"{wanted['max_drop']:g}"]
    if (by := wanted.get("by") or "latency") != "latency":
        words += ["--target", {"bytes": "size"}.get(by, by)]
    for name, unit in (("budget_ms", "ms"), ("budget_mb", "MB")):
        if wanted.get(name) is not None:
            words += ["--budget", f"{wanted[name]:.12g}{unit}"]
    return [*words, *(["--offer", wanted["offer"]] if wanted.get("offer") else [])]


def with_commands(rows: Sequence[Row], words: Sequence[str]) -> Iterator[Row]:
    """The rows, those that score an offer with the command that keeps it, whatever was wished for; no words, no commands."""
    data, of = results(rows), {(o.task, o.arm, o.variant, o.sparsity): o.name for o in offers(rows) if words}
    for row in rows:
        name = of.get(model(data, row)) if row.get("value") is not None else None
        yield {**row, "command": shlex.join([*words, "--offer", name, "--out", FOLDER])} if name else row


def _option(name: str, value: Any) -> list[str]:
    option = OPTIONS.get(name)
    if name == "gradient" and isinstance(value, (list, tuple)):
        return [word for rule in value for word in ("--rule", rule if isinstance(rule, str) else toml.value(rule))]
    if name == "gradient" and isinstance(value, Mapping) and set(value) <= {"name", "rho"}:
        return ["--rule", str(value["name"]), *(["--rho", _plain(value["rho"])] if "rho" in value else [])]
    if option is None:
        return ["--set", f"{name}={toml.value(value)}"]
    if isinstance(value, (list, tuple)):
        return [option, ",".join(map(_plain, value))]
    return [option, toml.value(value) if isinstance(value, Mapping) else _plain(value)]


def _plain(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
