"""``trainflat compress``: your table in, the smallest good model out."""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trainflat.cli.options import (
    DEFAULT_STORE,
    AsJson,
    Debug,
    DeviceName,
    StorePath,
    parse_numbers,
    parse_overrides,
    parse_seeds,
)
from trainflat.cli.printing import print_json, print_table
from trainflat.cli.rules import parse_rules

__all__ = ["compress", "parse_budget"]

TARGETS = {"latency": "latency", "size": "bytes", "sparsity": "sparsity"}


def compress(
    data: Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet, or a data set of the hub.")],
    text: Annotated[list[str], typer.Option(help="Column of the text; twice for pairs.")],
    label: Annotated[str, typer.Option(help="Column of the label: names for classes, numbers for a regression.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the chosen model, its card and the report.")] = None,
    model: Annotated[str, typer.Option(help="A folder, a name on the hub, or minilm.")] = "minilm",
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points that may be lost beside the best whole model: accuracy in %, of a regression Pearson's correlation "
            "x 100; default 1 without a budget."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="latency, size or sparsity: what is made small where only a drop is given.")
    ] = "latency",
    budget: Annotated[list[str] | None, typer.Option(help="20ms or 30MB; repeatable.")] = None,
    offer: Annotated[
        str | None, typer.Option(help="Keep the model of this name, as the table has it, instead of choosing one.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="classification or regression; default: found from the labels.")
    ] = None,
    validation: Annotated[str | None, typer.Option(help="A table to validate on; default: a part of DATA.")] = None,
    groups: Annotated[str | None, typer.Option(help="Column whose equal values are never split.")] = None,
    ways: Annotated[
        str | None,
        typer.Option(
            "--try",
            help="Some of pruned,int8,shrunk,static,int4,qat,torchao8,torchao4; without: the first 3, on a GPU pruned,shrunk.",
        ),
    ] = None,
    sizes: Annotated[str, typer.Option(help="Shares of the layers to remove, for shrunk.")] = "0.5,0.75,0.9",
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="The flat rule beside plain Adam: sam, asam, cram, any gradient rule; or a TOML table with its name. "
            "Repeatable; without: sam, and stale_sam with rho 0.01."
        ),
    ] = None,
    rho: Annotated[str | None, typer.Option(help='Its radius: a number, or "auto"; default: the rule\'s.')] = None,
    epochs: Annotated[
        float, typer.Option(help="Of each training; a shrunk model has at least 300 steps under gates besides.")
    ] = 3.0,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 5e-5,
    seeds: Annotated[str, typer.Option(help="Such as 0-2; more seeds give intervals.")] = "0",
    precision: Annotated[str, typer.Option(help="fp32 or bf16, for training.")] = "fp32",
    batch_size: Annotated[int, typer.Option(help="Examples of a training batch.")] = 32,
    max_length: Annotated[int, typer.Option(help="Tokens of an example; longer ones are cut.")] = 128,
    threads: Annotated[int, typer.Option(help="Processor threads at which latency is measured.")] = 1,
    serve: Annotated[
        str, typer.Option(help="cpu, or cuda: where latency is measured, on a GPU in bfloat16; int8 is for processors.")
    ] = "cpu",
    more: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other option of compress_text, as holdout=0.2. Repeatable."),
    ] = None,
    probe: Annotated[
        float,
        typer.Option(help="Seconds to find out which int8 backend is the fastest that is right here; 0 for none."),
    ] = 5.0,
    store: StorePath = DEFAULT_STORE,
    device: DeviceName = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train flat and plainly, compress in every way, measure, and keep the model that fits; all of it resumes."""
    if not 0 <= probe < math.inf:
        raise ValueError(f"--probe takes seconds, a finite number of 0 or more; got {probe}")
    if len(text) > 2:
        raise ValueError(f"--text names one column, or two for pairs; got {len(text)}: {', '.join(text)}")
    if target not in TARGETS:
        raise ValueError(f"--target is latency, size or sparsity, got {target!r}")
    if offer is not None and (max_drop is not None or budget):
        raise ValueError(f"--offer {offer!r} names the model that is wanted: leave --max-drop and --budget out")
    options: dict[str, Any] = {
        "text": text[0],
        "text2": text[1] if len(text) > 1 else None,
        "label": label,
        "model": model,
        "max_drop": max_drop,
        "by": TARGETS[target],
        "offer": offer,
        "store": store,
        "device": device,
        "kind": kind,
        "validation": _absolute(validation),
        "groups": groups,
        "ways": ways if ways is None else tuple(filter(None, map(str.strip, ways.split(",")))),
        "sizes": tuple(parse_numbers("--sizes", sizes, float)),
        "gradient": parse_rules(rule, rho),
        "epochs": epochs,
        "lr": lr,
        "seeds": tuple(parse_seeds(seeds)),
        "precision": precision,
        "batch_size": batch_size,
        "max_length": max_length,
        "threads": threads,
        "serve": serve,
        **_budgets(budget or []),
    }
    from trainflat.deploy import compress_text
    from trainflat.new_folder import check_place

    if out is not None:
        check_place(out, store)
    found = compress_text(_absolute(data), **_with(options, parse_overrides(more or [])))
    written: dict[str, str] = {}
    if found.best is None or out is None:
        written["report"] = str(found.report(store / "reports" / found.name))
    else:
        written["model"] = str(found.save(out))
        written["report"] = str(out / "report" / "report.html")
    probing = probe and serve == "cpu" and (options["ways"] is None or "int8" in options["ways"])
    fastest = found.fastest(seconds=probe).said if probing and found.best is not None else None
    (_tell_json if as_json else _tell)(found, fastest, written)
    if found.best is None:
        raise LookupError(f"nothing was kept: {found.said}")


def parse_budget(text: str) -> tuple[Literal["budget_ms", "budget_mb"], float]:
    """A latency or a size.

    Example:
        >>> parse_budget("20ms"), parse_budget("30 MB"), parse_budget("0.5s")
        (('budget_ms', 20.0), ('budget_mb', 30.0), ('budget_ms', 500.0))
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|kb|mb|gb)\s*", text, re.IGNORECASE)
    if not found or not float(found[1]) > 0:
        raise ValueError(f"--budget is a latency such as 20ms or a size such as 30MB, above 0; got {text!r}")
    amount, unit = float(found[1]), found[2].lower()
    if unit in ("ms", "s"):
        return "budget_ms", amount * (1000 if unit == "s" else 1)
    return "budget_mb", amount * {"kb": 1e-3, "mb": 1.0, "gb": 1e3}[unit]


def _absolute(data: str | None) -> str | None:
    """A file by its whole path, so that the recipe can be run from anywhere; a name on the hub as it is."""
    return str(Path(data).resolve()) if data is not None and os.path.exists(data) else data


def _budgets(texts: list[str]) -> dict[str, float]:
    """Of two of a kind the tighter one."""
    found: dict[str, float] = {}
    for name, most in map(parse_budget, texts):
        found[name] = min(most, found.get(name, most))
    return found


def _with(options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The options with what ``--set`` adds.

    Raises:
        ValueError: If one has a way to be said already.
    """
    for name in more:
        if name in (*options, "data", "quiet", "name", "task", "claim"):
            raise ValueError(f"--set {name}: it has an option of its own or none, see trainflat compress --help")
    return {**options, **more}


def _tell(found: Any, fastest: str | None, written: dict[str, str]) -> None:
    """For people: the front, what was chosen and why, the probe's sentence, and where what was written is."""
    rows = [
        (
            one.name,
            f"{100 * one.value.mean:.1f}",
            f"{one.latency:.2f}",
            f"{one.bytes / 1e6:.1f}",
            f"{100 * one.gone:.0f} %",
        )
        for one in found.front
    ]
    note = f"{found.task.note}; ms: {found.at}"
    print_table("Worth having", ["model", found.metric, "ms", "MB", "weights gone"], rows, note)
    print(found.said)
    if fastest is not None:
        print(f"In int8 on this machine: {fastest}.")
    for what, where in written.items():
        print(f"{what.capitalize()}: {where}")
    if "model" in written:
        print(f"To serve it without torch: trainflat export {shlex.quote(written['model'])}")


def _tell_json(found: Any, fastest: str | None, written: dict[str, str]) -> None:
    """The same for programs."""
    told = {
        "said": found.said,
        "int8": fastest,
        "data": found.task.note,
        "at": found.at,
        "chosen": found.best and found.best.name,
    }
    print_json({**told, "front": [_plain(offer) for offer in found.front], **written})


def _plain(offer: Any) -> dict[str, Any]:
    names = ("task", "arm", "variant", "sparsity", "gone", "latency", "bytes", "parameters", "multiply_adds", "sizes")
    about = {name: getattr(offer, name) for name in names}
    return {"name": offer.name, "value": offer.value.mean, **about, "command": offer.made.get("command")}
