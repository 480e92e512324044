"""What every page is made of: its shell, which needs nothing but itself, and the figures and paragraphs inside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

__all__ = ["command", "document", "figure", "panels", "paragraphs", "provenance", "top"]

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # a browser loads nothing, whatever a label says
)


def document(name: str, above: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """A page that needs nothing but itself: what is on top, a list of contents, the sections (key, title, HTML), the footer."""
    style = resources.files("trainflat.reports").joinpath("page.css").read_text(encoding="utf-8")
    contents = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" class="{key.split("-")[0]}"><h2>{escape(title)}</h2>{inside}</section>'
        for key, title, inside in sections
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(name)} · trainflat</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<style>\n{style}</style>\n</head>\n'
        f'<body>\n{above}\n<nav aria-label="Contents"><ul>{contents}</ul></nav>\n'
        f"<main>\n{body}\n</main>\n{footer}\n</body>\n</html>\n"
    )


def top(title: str, inside: str) -> str:
    """What is on top of a page: its title, and the HTML below it."""
    return f'<header><p class="kind">trainflat report</p><h1>{escape(title)}</h1>{inside}</header>'


def command(header: Mapping[str, Any]) -> str:
    """The command that made it; nothing where a run's header has none."""
    line = header.get("command")
    return f'<p class="command"><code>{escape(str(line))}</code></p>' if line else ""


def provenance(facts: Iterable[tuple[str, str]]) -> str:
    """The footer: each fact by its name, as HTML."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{told}</dd>" for name, told in facts)
    return f"<footer><h2>Provenance</h2><dl>{lines}</dl></footer>"


def figure(caption: str, said: str, drawing: str, about: str = "") -> str:
    """A drawing (SVG) under its caption, with what it shows in words for those who do not see it, and what is to know of it."""
    below = f'<p class="about">{escape(about)}</p>' if about else ""
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div role="img" aria-label="{escape(said)}">{drawing}</div>{below}</figure>'
    )


def panels(figures: Iterable[str]) -> str:
    """Figures side by side; nothing if there are none."""
    inside = "".join(figures)
    return f'<div class="panels">{inside}</div>' if inside else ""


def paragraphs(text: str) -> list[str]:
    """A comment's text without its line breaks, but for blank lines, a first line that is a sentence of its own, and lines
    that start an entry ("Cost: ...", "- ...").
    """
    found: list[str] = []
    fresh = True
    for line in map(str.strip, text.splitlines()):
        if not line:
            fresh = True
        elif fresh or not found or re.match(r"[-*•] |[A-Z][\w ]{0,24}: ", line):
            found, fresh = [*found, line], False
        else:
            found[-1] += f" {line}"
        fresh = fresh or (found == [line] and line.endswith((".", "?", "!")))
    return found
