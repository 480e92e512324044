"""The command line: run, plan, show, report, list, copy. Heavy imports happen inside the commands, so help is quick."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="trainflat",
    help="Train flat, then compress, and show honestly what was gained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe (see `trainflat list`) or a file ending in .toml.")]
StorePath = Annotated[Path, typer.Option("--store", help="Folder that keeps every stage's result.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, all else on standard error.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds, such as 0-4 or 0,3,7; default: the recipe's.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="STAGE.FIELD=VALUE in TOML; * for every stage that has the field. Repeatable."),
]
Smoke = Annotated[bool, typer.Option("--smoke", help="The recipe's small size: seconds, offline.")]
DataPath = Annotated[
    Path | None, typer.Option("--data", help="Folder with glue/<task>/<split>.parquet; default: the hub.")
]

DeviceName = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

DEFAULT_STORE = Path(".trainflat")


@app.command()
def run(
    recipe: RecipeName,
    store: StorePath = DEFAULT_STORE,
    seeds: Seeds = None,
    overrides: Overrides = None,
    smoke: Smoke = False,
    data: DataPath = None,
    device: DeviceName = "auto",
    threads: Annotated[int, typer.Option(help="Processor threads; 0 leaves torch's choice.")] = 0,
    on: Annotated[
        str | None,
        typer.Option(help="ray: a worker a core of this machine; ray:HOST:PORT, ray://HOST:PORT: a cluster."),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Whether to wait for stages that other runs with this store are at."),
    ] = True,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a recipe: what is done is found again, what was interrupted goes on, and a report is written."""
    planned = _plan(recipe, seeds, overrides, smoke, data)
    from trainflat.experiments import cluster, progress, runner
    from trainflat.experiments.store import Store

    if threads and not on:
        import torch

        torch.set_num_threads(threads)
    kept = Store(store)
    with progress.shown(planned, to=sys.stderr if as_json else sys.stdout) as say:
        about = {"command": _recorded(recipe, seeds, overrides, smoke), "smoke": smoke}
        if on:
            print(f"Asking the machines of {cluster.address(on)} …", file=sys.stderr)  # may take a quarter of a minute
            cluster.run(planned, kept, on=on, say=say, device=device, threads=threads, **about)
        else:
            runner.run(planned, kept, say=say, device=device, wait=wait, **about)
    if not wait and any(kept.done(job.key) is None for job in planned.jobs):
        print("All that is left is at work in other runs; the last one writes the report.", file=sys.stderr)
        return
    _report(kept, planned.recipe.name, as_json)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe as for `run`, or a group of shipped ones, such as paper.")],
    store: StorePath = DEFAULT_STORE,
    seeds: Seeds = None,
    overrides: Overrides = None,
    smoke: Smoke = False,
    data: DataPath = None,
    measure: Annotated[bool, typer.Option(help="Train 20 steps of every setting whose rate is not known yet.")] = False,
    device: DeviceName = "auto",
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a Slurm array script that runs it.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a recipe, or a whole study, and say what is cached, what would run and how long, without running anything."""
    from trainflat.experiments.recipe import group

    names, plans, wrong = group(recipe), [], []
    for name in names:
        try:
            plans.append(_plan(name, seeds, overrides, smoke, data))
        except (LookupError, ValueError, OSError, ImportError) as error:
            if len(names) == 1:
                raise
            wrong.append(f"{name} cannot be planned: {_sentence(error)}")
    from trainflat.experiments import estimate, preview, runner
    from trainflat.experiments.store import Store

    if slurm:
        if wrong:
            raise LookupError("; ".join(wrong))
        from trainflat.experiments import slurm as scripts

        commands = [_everywhere(one, store, seeds, overrides, smoke, data, device) for one in names]
        title = plans[0].recipe.name if len(names) == 1 else recipe
        print(scripts.script(title, commands, [job for one in plans for job in one.jobs], Store(store)), end="")
        return
    kept, where = Store(store), runner.pick_device(device)
    if measure:
        jobs = [job for planned in plans for job in planned.jobs]
        for job in estimate.missing(estimate.estimate(jobs, kept, where)):
            rate = estimate.measure(job, kept, where)
            print(f"{rate:.3f} s a step: {job.stage.task}, {job.stage.gradient}", file=sys.stderr)
    about = preview.document(plans, kept, where)
    if as_json:
        _print_json(about if len(names) > 1 else about["recipes"][0])
    elif plans:
        _print_table(*(preview.study_table(about) if len(names) > 1 else preview.recipe_table(about["recipes"][0])))
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    if wrong:
        raise typer.Exit(2)


@app.command()
def report(
    name: Annotated[
        str,
        typer.Argument(
            help="A run of the store, named like its recipe; a group of runs, such as paper; or a folder of results."
        ),
    ],
    store: StorePath = DEFAULT_STORE,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default: reports/NAME in the store.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report of a run again, from what is finished of it, or of a whole group of runs as one page.

    A folder that a report was written to will do as well: all is made from the rows.json and run.json in it.
    """
    from trainflat import reports
    from trainflat.experiments.store import Store

    kept = Store(store)
    if Path(name).is_dir() and not (Path(name) / "rows.json").exists() and (found := reports.study.read_back(name)):
        _study(found, Path(name).resolve().name, out or Path(name), as_json)
    elif Path(name).is_dir():
        _show(*reports.read_back(name), out or Path(name), as_json)
    elif (kept.root / "runs" / f"{name}.json").exists():
        _report(kept, name, as_json, out)
    elif members := [run for run in kept.runs() if run.startswith(f"{name}/")]:
        found = [
            reports.study.Run(kept.rows(document), _header(kept, document)) for document in map(kept.read_run, members)
        ]
        _study(found, name, out or kept.root / "reports" / name, as_json)
    else:
        kept.read_run(name)  # says what there is


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A stage's key, or the beginning of one; or a recipe.")],
    store: StorePath = DEFAULT_STORE,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show a stage (its settings, parents and results) or a recipe's text."""
    from trainflat.experiments.recipe import locate
    from trainflat.experiments.store import Store

    found = Store(store).find(what)
    if found is None:
        print(locate(what).read_text(encoding="utf-8"), end="")
    elif as_json:
        _print_json(found)
    else:
        from rich.console import Console

        Console().print_json(json.dumps(found))


@app.command(name="list")
def list_(store: StorePath = DEFAULT_STORE, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the shipped recipes and the runs in the store."""
    from trainflat.experiments.recipe import read, shipped
    from trainflat.experiments.store import Store

    recipes = [{"recipe": name, "claim": read(name).claim} for name in shipped()]
    runs = Store(store).runs()
    if as_json:
        _print_json({"recipes": recipes, "runs": runs})
        return
    _print_table(
        "Recipes", ["recipe", "the question it asks"], [[r["recipe"], r["claim"].splitlines()[0]] for r in recipes]
    )
    print(f"\nRuns in {store}: {', '.join(runs) or 'none yet'}")


@app.command()
def copy(
    recipe: RecipeName,
    to: Annotated[Path | None, typer.Argument(help="The new file; default: the recipe's name in this folder.")] = None,
    debug: Debug = False,
) -> None:
    """Copy a shipped recipe into a file of your own, to change it."""
    from trainflat.experiments.recipe import locate

    source = locate(recipe)
    target = to or Path(source.name)
    if target.exists():
        raise FileExistsError(f"{target} is already there; name another file")
    shutil.copyfile(source, target)
    print(f"{target} is yours; run it with: trainflat run {target}")


def main() -> None:
    """Entry point: an error is one sentence and exit code 2; Ctrl-C is 130."""
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False) or 0  # typer answers Ctrl-C with 130
    except Exception as error:
        if debug:
            raise
        usage = getattr(error, "format_message", None)  # typer's own errors know how to say it
        print(f"error: {usage() if usage else _sentence(error)}", file=sys.stderr)
        sys.exit(2)
    if code == 130:
        print(f"\nStopped; everything finished is kept. Go on with: {_command()}", file=sys.stderr)
    sys.exit(code)


def _plan(recipe: str, seeds: str | None, overrides: list[str] | None, smoke: bool, data: Path | None) -> Any:
    if data is not None:
        if not data.is_dir():
            raise FileNotFoundError(f"there is no folder {data} to read data from")
        os.environ["TRAINFLAT_DATA"] = str(data)
    from trainflat.experiments import plan as planning
    from trainflat.experiments.recipe import read

    return planning.plan(read(recipe), overrides=_parse(overrides or []), seeds=_seeds(seeds), smoke=smoke)


def _report(store: Any, name: str, as_json: bool, out: Path | None = None) -> None:
    document = store.read_run(name)
    rows = store.rows(document)
    if not rows:
        raise LookupError(f"nothing of {name} is finished yet; run it first: trainflat run {name}")
    _show(rows, _header(store, document), out or store.root / "reports" / name, as_json)


def _header(store: Any, document: Any) -> dict[str, Any]:
    """What a report says of a run: its document without the points, and how many of its stages are done."""
    return {**{key: value for key, value in document.items() if key != "points"}, "stages": store.stages(document)}


def _study(runs: Any, group: str, folder: Path, as_json: bool) -> None:
    """Write one page about several runs; print what has been run and what it says."""
    from trainflat import reports

    written = reports.study.write_all(runs, group, folder)
    overview = reports.study.overview(runs)
    if as_json:
        state = [dict(zip(overview.header, row)) for row in overview.rows]
        _print_json({"group": group, "overview": state, "report": str(folder / "report.html")})
        return
    for table in [overview, *reports.study.summary(runs)]:
        _print_table(table.title, list(table.header), reports.text(table)[1:], table.note)
    print(f"\nReport: {folder / 'report.html'}  (and {len(written) - 1} files beside it)")


def _show(rows: Any, header: Any, folder: Path, as_json: bool) -> None:
    """Write a report and print its tables and findings."""
    from trainflat import reports

    written = reports.write_all(rows, header, folder)
    if as_json:
        _print_json({"recipe": header.get("name"), "rows": rows, "report": str(folder / "report.html")})
        return
    for table in [*reports.every(rows), *reports.costs(rows)]:
        _print_table(table.heading, list(table.header), reports.text(table)[1:], table.note)
    for finding in reports.findings(rows):
        print(f"{finding.task}: {finding}")
    print(f"\nReport: {folder / 'report.html'}  (and {len(written) - 1} files beside it)")


def _parse(overrides: list[str]) -> dict[str, Any]:
    """``STAGE.FIELD=VALUE``; a value that is not TOML is taken as text."""
    parsed: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set takes STAGE.FIELD=VALUE, got {text!r}")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = value.strip()
    return parsed


def _seeds(text: str | None) -> list[int] | None:
    """``0-4`` or ``0,3,7``."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
            raise ValueError(f"--seeds takes a range such as 0-4 or a list such as 0,3,7; got {text!r}")
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def _command() -> str:
    return shlex.join(["trainflat", *sys.argv[1:]])


def _recorded(recipe: str, seeds: str | None, overrides: list[str] | None, smoke: bool) -> str:
    """The command without what cannot change a result: store, data folder, device, threads."""
    sets = [word for override in overrides or [] for word in ("--set", override)]
    return shlex.join(
        ["trainflat", "run", recipe, *(["--seeds", seeds] if seeds else []), *sets, *(["--smoke"] * smoke)]
    )


def _everywhere(
    recipe: str,
    store: Path,
    seeds: str | None,
    overrides: list[str] | None,
    smoke: bool,
    data: Path | None,
    device: str,
) -> list[str]:
    """The command that runs a recipe on any machine that sees our folders, beside others that do the same."""
    name = str(Path(recipe).resolve()) if recipe.endswith(".toml") else recipe
    words = [sys.executable, "-m", "trainflat.cli", *shlex.split(_recorded(name, seeds, overrides, smoke))[1:]]
    words += ["--store", str(store.resolve()), "--no-wait", "--device", device]
    return [*words, *(["--data", str(data.resolve())] if data else [])]


def _sentence(error: Exception) -> str:
    from trainflat.experiments.resolve import sentence

    return sentence(error)


def _arms(arms: list[dict[str, str]]) -> str:
    return "; ".join(dict.fromkeys(", ".join(arm.values()) for arm in arms))


def _state(row: dict[str, Any]) -> str:
    return f"done ({time.strftime('%H:%M:%S', time.gmtime(row['seconds']))})" if row["done"] else "to run"


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=1))


def _print_table(title: str, header: list[str], rows: list[list[str]], note: str = "") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title=title, caption=note or None, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
