"""``trainflat compress``: your table in, the smallest good model out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trainflat.cli.options import DEFAULT_STORE, AsJson, Debug, DeviceName, StorePath
from trainflat.cli.printing import print_json, print_table

__all__ = ["compress", "parse_budget"]


def compress(
    data: Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet, or a data set of the hub.")],
    text: Annotated[list[str], typer.Option(help="Column of the text; twice for pairs.")],
    label: Annotated[str, typer.Option(help="Column of the label: names for classes, numbers for a regression.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the chosen model, its card and the report.")] = None,
    model: Annotated[str, typer.Option(help="A folder, a name on the hub, or minilm.")] = "minilm",
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points that may be lost beside the best whole model; default 1 without a budget."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="latency or size: what is made small where only a drop is given.")
    ] = "latency",
    budget: Annotated[list[str] | None, typer.Option(help="20ms or 30MB; repeatable.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="classification or regression; default: found from the labels.")
    ] = None,
    validation: Annotated[str | None, typer.Option(help="A table to validate on; default: a part of DATA.")] = None,
    groups: Annotated[str | None, typer.Option(help="Column whose equal values are never split.")] = None,
    ways: Annotated[str, typer.Option("--try", help="Some of pruned,int8,shrunk.")] = "pruned,int8,shrunk",
    sizes: Annotated[str, typer.Option(help="Shares of the layers to remove, for shrunk.")] = "0.5,0.75,0.9",
    rule: Annotated[
        str, typer.Option(help="The flat rule beside plain Adam: sam, asam, or any gradient rule.")
    ] = "sam",
    rho: Annotated[float | None, typer.Option(help="Its radius; default: the rule's.")] = None,
    epochs: Annotated[float, typer.Option(help="Of each training.")] = 3.0,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 5e-5,
    seeds: Annotated[str, typer.Option(help="Such as 0-2; more seeds give intervals.")] = "0",
    precision: Annotated[str, typer.Option(help="fp32 or bf16, for training.")] = "fp32",
    batch_size: Annotated[int, typer.Option(help="Examples of a training batch.")] = 32,
    max_length: Annotated[int, typer.Option(help="Tokens of an example; longer ones are cut.")] = 128,
    threads: Annotated[int, typer.Option(help="Processor threads at which latency is measured.")] = 1,
    store: StorePath = DEFAULT_STORE,
    device: DeviceName = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train flat and plainly, compress in every way, measure, and keep the model that fits; all of it resumes."""
    from trainflat.cli.options import parse_seeds

    if len(text) > 2:
        raise ValueError(f"--text names one column, or two for pairs; got {len(text)}: {', '.join(text)}")
    if target not in ("latency", "size"):
        raise ValueError(f"--target is latency or size, got {target!r}")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there and not empty; name another folder with --out")
    more: dict[str, Any] = dict(parse_budget(one) for one in budget or [])
    more |= {name: value for name, value in {"kind": kind, "validation": validation, "groups": groups}.items() if value}
    if os.path.exists(data):
        data = str(Path(data).resolve())
    from trainflat.deploy import compress_text

    found = compress_text(
        data,
        text=text[0],
        text2=text[1] if len(text) > 1 else None,
        label=label,
        model=model,
        max_drop=max_drop,
        by="bytes" if target == "size" else "latency",
        store=store,
        device=device,
        ways=tuple(filter(None, ways.split(","))),
        sizes=tuple(_numbers("--sizes", sizes)),
        gradient=rule if rho is None else {"name": rule, "rho": rho},
        epochs=epochs,
        lr=lr,
        seeds=tuple(parse_seeds(seeds)),
        precision=precision,
        batch_size=batch_size,
        max_length=max_length,
        threads=threads,
        **more,
    )
    written: dict[str, Any] = {}
    if found.best is None or out is None:
        written["report"] = str(found.report(store / "reports" / "compress"))
    else:
        written["model"] = str(found.save(out))
        written["report"] = str(out / "report" / "report.html")
    if as_json:
        print_json({"said": found.said, "front": [_plain(offer) for offer in found.front], **written})
    else:
        rows = [
            (offer.name, f"{100 * offer.value.mean:.1f}", f"{offer.latency:.2f}", f"{offer.bytes / 1e6:.1f}")
            for offer in found.front
        ]
        print_table("Worth having", ["model", found.metric, "ms", "MB"], rows, found.task.note)
        print(found.said)
        for what, where in written.items():
            print(f"{what.capitalize()}: {where}")
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


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} takes numbers such as 0.5,0.9; got {text!r}") from None


def _plain(offer: Any) -> dict[str, Any]:
    names = ("task", "arm", "variant", "sparsity", "latency", "bytes", "parameters", "multiply_adds", "sizes")
    return {"name": offer.name, "value": offer.value.mean, **{name: getattr(offer, name) for name in names}}
