"""The command line: here are its commands and how they end. Heavy imports happen inside functions, so help is quick."""

from __future__ import annotations

import shlex
import sys

import typer

from trainflat.cli import compress, export, look, plan, report, run

__all__ = ["app", "main"]

app = typer.Typer(
    name="trainflat",
    help="Train flat, then compress, and show honestly what was gained.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (
    compress.compress,
    export.export,
    export.bench,
    run.run,
    plan.plan,
    report.report,
    look.show,
    look.list_,
    look.copy,
)  # in the order of the help
for verb in VERBS:
    app.command(name=verb.__name__.rstrip("_"))(verb)


def main() -> None:
    """Entry point: an error is one sentence and exit code 2, as is no command after the help; Ctrl-C is 130."""
    debug, asked = "--debug" in sys.argv, sys.argv[1:]
    try:
        code = app(asked or ["--help"], standalone_mode=False) or (0 if asked else 2)  # typer answers Ctrl-C with 130
    except Exception as error:
        if debug:
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    if code == 130:
        again = shlex.join(["trainflat", *sys.argv[1:]])
        print(f"\nStopped; everything finished is kept. Go on with: {again}", file=sys.stderr)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    usage = getattr(error, "format_message", None)  # typer's own errors know how to say it
    if usage:
        return usage()
    from trainflat.experiments.resolve import sentence

    return sentence(error)
