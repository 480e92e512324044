"""What commands print: one JSON document, or tables for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["print_json", "print_table"]


def print_json(document: Any) -> None:
    """The whole of standard output, for another program; null for a number that JSON cannot say (not a number, infinity)."""
    plain = json.loads(json.dumps(document), parse_constant=lambda name: None)
    print(json.dumps(plain, indent=1))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """A table under its title and over its note, all as wide as the terminal; 160 columns where there is none.

    Where it is too narrow, intervals stand below their values.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    for before_interval in (" [", "\n["):
        columns = (Column(escape(name), overflow="fold") for name in header)  # a long name whole, not cut to another's
        table = Table(*columns, header_style="bold")
        for row in rows:
            table.add_row(*(escape(re.sub(r" \[(?=[−\d])", before_interval, cell)) for cell in row))
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    console.print(f"\n[bold]{escape(title)}[/bold]", highlight=False)
    console.print(table)
    if note:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
