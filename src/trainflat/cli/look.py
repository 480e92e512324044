"""``trainflat show``, ``list`` and ``copy``: what is there, of recipes and of results."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from trainflat.cli.options import DEFAULT_STORE, AsJson, Debug, RecipeName, StorePath
from trainflat.cli.printing import print_json, print_table

__all__ = ["copy", "list_", "show"]


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
    text = locate(what).read_text(encoding="utf-8") if found is None else ""
    if as_json:
        print_json(found or {"recipe": what, "text": text})
    elif found is None:
        print(text, end="")
    else:
        from rich.console import Console

        Console().print_json(json.dumps(found))


def list_(store: StorePath = DEFAULT_STORE, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the shipped recipes and the runs in the store."""
    from trainflat.experiments.recipe import read, shipped
    from trainflat.experiments.store import Store

    recipes = [{"recipe": name, "claim": read(name).claim} for name in shipped()]
    runs = Store(store).runs()
    if as_json:
        print_json({"recipes": recipes, "runs": runs})
        return
    print_table(
        "Recipes", ["recipe", "the question it asks"], [[r["recipe"], r["claim"].splitlines()[0]] for r in recipes]
    )
    print(f"\nRuns in {store}: {', '.join(runs) or 'none yet'}")


def copy(
    recipe: RecipeName,
    to: Annotated[Path | None, typer.Argument(help="The new file, .toml; default: the recipe's name, here.")] = None,
    debug: Debug = False,
) -> None:
    """Copy a shipped recipe into a file of your own, to change it; its runs get the file's name."""
    from trainflat.experiments.recipe import locate

    source = locate(recipe)
    asked = to or Path(source.name)
    target = asked if asked.name.endswith(".toml") else Path(f"{asked}.toml")
    for there in (asked, target):
        if there.exists():
            raise FileExistsError(f"{there} is already there; name another file")
    target.write_text(_named(source.read_text(encoding="utf-8"), target.name.removesuffix(".toml")), encoding="utf-8")
    print(f"{target} is yours; run it with: trainflat run {shlex.quote(str(target))}")


def _named(text: str, stem: str) -> str:
    """A recipe under the file's name, so that its runs do not take the place of the original's.

    Of a name in a group only the group changes: reports find the paper's numbers by what follows it.

    >>> _named('name = "quickstart"', "my own"), _named('name = "paper/table1-imp"', "mine")
    ('name = "my-own"', 'name = "mine/table1-imp"')
    >>> _named('name = "paper/table1-imp"', "table1-imp")
    'name = "paper/table1-imp"'
    """

    def named(found: re.Match) -> str:
        group, _, last = found[2].rpartition("/")
        own = re.sub(r"[^\w.-]+", "-", stem).lstrip(".-")
        if not own or own == last:
            return found[0]
        return f"{found[1]}{own}/{last}{found[3]}" if group else f"{found[1]}{own}{found[3]}"

    return re.sub(r"""^(name\s*=\s*["'])([^"']+)(["'])""", named, text, count=1, flags=re.MULTILINE)
