"""The front inside a page: a point that is hovered, tapped or reached by keyboard says what it is and how to make it again.

No script: every point is a radio button over the drawing. One press of Tab enters a panel, the arrow keys walk along it, a tap
or a click keeps the words open, and the command in them is selected by one click.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from trainflat.reports import files
from trainflat.reports.drawing import COLOURS
from trainflat.reports.front.front_figure import MARKERS, UNITS, Front, describe, fronts, panel, png, svg
from trainflat.reports.front.given_up import best_dense, forgone, times
from trainflat.reports.front.offers import Offer, named
from trainflat.reports.numbers import percent, plus_minus
from trainflat.reports.rows import Results

__all__ = ["pictures", "remark", "section", "shown"]

SHAPES = dict(
    zip(
        MARKERS,
        (
            "M8 3.6a4.4 4.4 0 1 1 0 8.8a4.4 4.4 0 1 1 0-8.8z",
            "M4 4h8v8H4z",
            "M8 3.4l4.6 8.8H3.4z",
            "M8 2.6l5.4 5.4L8 13.4 2.6 8z",
            "M8 12.6l4.6-8.8H3.4z",
            "M6.4 3.4h3.2v3h3v3.2h-3v3H6.4v-3h-3V6.4h3z",
            "M5.2 3.2L8 6l2.8-2.8 2 2L10 8l2.8 2.8-2 2L8 10l-2.8 2.8-2-2L6 8 3.2 5.2z",
            "M3.6 8l8.8-4.6v9.2z",
        ),
        strict=True,
    )
)
HOW = "Point at a mark, tap it, or walk with Tab and the arrow keys: it says its numbers and the command that makes it again."
CAPTIONS = {
    "latency": "What is kept at which latency",
    "bytes": "What is kept at which size",
    "sparsity": "What is kept with which share of the weights",
}


def section(data: Results, header: Mapping[str, Any], task: str, prefix: str) -> str:
    """HTML of a task's front by latency, by size and by what was chosen for, and what the chosen model gives up; empty if there
    is nothing to show.

    Args:
        header: Of the report: ``chosen`` (``task``, ``arm``, ``variant``, ``sparsity`` of the model that was chosen, ``by``
            what; may be absent), what is ``said`` of it, and ``command``, told where a row has no command of its own.
        task: One of the report's.
        prefix: Of every id and name in it.
    """
    if not shown(data, header, task):
        return ""
    drawn = fronts(data, task, header.get("chosen"))
    panels = "".join(_panel(front, f"{prefix}-{front.by}", str(header.get("command") or "")) for front in drawn)
    chosen = _chosen(drawn[0], header.get("chosen"), task)
    return f'{chosen}{remark(header)}<div class="panels">{panels}</div>{_key(drawn[0])}<p class="note how">{HOW}</p>'


def remark(header: Mapping[str, Any]) -> str:
    """What a search says of its choice and its figures, as a paragraph; nothing in a header without it."""
    said = str(header.get("said") or "")
    return f'<p class="chosen">{escape(said)}</p>' if said else ""


def pictures(data: Results, header: Mapping[str, Any], folder: Path) -> list[Path]:
    """The fronts of all tasks that `section` shows, each as TASK-front.svg and .png in a folder; what was written."""
    data, written = data, []
    for task in [task for task in data.tasks if shown(data, header, task)]:
        path = files.free(folder, f"{task} front", written)
        written.append(files.write(path.with_suffix(".svg"), svg(data, task, header.get("chosen"))))
        written.append(png(data, path.with_suffix(".png"), task, header.get("chosen")))
    return written


def shown(data: Results, header: Mapping[str, Any], task: str) -> bool:
    """Whether a task's front says anything: two offers or more, and one that was shrunk or chosen."""
    drawn = fronts(data, task)
    shrunk = any("sparsity_layers" in offer.sizes for front in drawn for offer in front.offers)
    return bool(drawn) and (shrunk or (header.get("chosen") or {}).get("task") == task)


def _chosen(front: Front, wanted: Mapping[str, Any] | None, task: str) -> str:
    """What was chosen and what it gives up, as a sentence."""
    if not wanted or wanted.get("task") != task:
        return ""
    if front.chosen is None:
        what = named(str(wanted.get("arm")), str(wanted.get("variant")), float(wanted.get("sparsity") or 0))
        return f'<p class="chosen">Chosen: {escape(what)}, whose cost was not measured.</p>'
    told = escape(forgone(front.chosen, front.offers))
    return f'<p class="chosen"><b>Chosen: {escape(front.chosen.name)}.</b> {told}</p>'


def _panel(front: Front, name: str, command: str) -> str:
    drawing, places = panel(front, name)
    best, dense = front.best, best_dense(front.offers)
    entered = front.chosen or best[-1]
    marks = "".join(
        _mark(front, offer, x, y, name, command, dense, offer in best, offer == entered)
        for offer, (x, y) in zip(front.offers, places, strict=True)
    )
    small = f" <small>{escape(front.note)}</small>"
    return (
        f'<figure class="front"><figcaption>{CAPTIONS[front.by]}{small}</figcaption><div class="plot">'
        f'<div role="img" aria-label="{escape(describe(front))}">{drawing}</div>'
        f'<div role="radiogroup" aria-label="Models, rising in {escape(UNITS[front.by].partition(",")[0])}">{marks}</div>'
        "</div></figure>"
    )


def _mark(
    front: Front,
    offer: Offer,
    x: float,
    y: float,
    name: str,
    command: str,
    dense: Offer | None,
    on_front: bool,
    entered: bool,
) -> str:
    """One point: the radio button over it, and the words that it opens."""
    facts = _facts(front, offer, dense)
    command = offer.made.get("command") or command or f"trainflat run {offer.made.get('recipe', '')}".strip()
    state = ["chosen" if offer == front.chosen else "", "on the front" if on_front else "another one beats it"]
    said = ". ".join([offer.name, *(f"{k}: {v}" for k, v in facts), *filter(None, state), f"Command: {command}"])
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    kind = f"mark{' best' if on_front else ''}{' low' if y > 0.5 else ''}"
    return (
        f'<span class="{kind}" style="--x:{100 * x:.2f}%;--y:{100 * y:.2f}%">'
        f'<input type="radio" name="{name}" aria-label="{escape(said)}"{" checked" if entered else ""}>'
        f'<span class="tip" tabindex="-1"><b style="--arm:{front.colour(offer)}">{escape(offer.name)}</b>'
        f"<small>{escape(', '.join(filter(None, state)))}</small><dl>{lines}</dl><code>{_words(command)}</code></span></span>"
    )


def _words(command: str) -> str:
    """A command that breaks between its words, not after a hyphen; what is copied from it has nothing added."""
    return " ".join(f"<span>{escape(word)}</span>" if len(word) < 24 else escape(word) for word in command.split(" "))


def _facts(front: Front, offer: Offer, dense: Offer | None) -> list[tuple[str, str]]:
    """What is said of a point, beside the best dense model."""
    faster = smaller = ""
    if dense and offer != dense:
        faster = f", {times(dense.latency / offer.latency, 'faster', 'slower', 'as fast')}"
        smaller = f", {times(dense.bytes / offer.bytes, 'smaller', 'larger', 'as large')}"
    facts = [
        (front.metric, f"{plus_minus(offer.values.values())} (n = {offer.value.n})"),
        ("latency", f"{offer.latency:.2f} ms{faster}"),
        ("size", f"{offer.bytes / 1e6:,.1f} MB{smaller}"),
    ]
    if offer.gone:
        facts.append(("weights", f"{percent(offer.gone)} zero or cut away"))
    made = [f"stage {offer.made['stage']}" if "stage" in offer.made else "", offer.made.get("recipe", "")]
    return [*facts, ("made by", " of ".join(filter(None, made)))] if any(made) else facts


def _key(front: Front) -> str:
    """What colours and marks mean."""
    arms = [_entry(SHAPES["s"], arm, colour=COLOURS[i % len(COLOURS)]) for i, arm in enumerate(front.arms)]
    ways = [_entry(SHAPES[MARKERS[i % len(MARKERS)]], way) for i, way in enumerate(front.ways)]
    hollow = [_entry(SHAPES["o"], front.grids, kind="hollow")] if front.grids else []
    line = _entry("M1 13h6V4h8", "nothing beats these", kind="step")
    entries = [*(arms if len(arms) > 1 else []), *ways, *hollow, line]
    return f'<ul class="key">{"".join(entries)}</ul>'


def _entry(shape: str, label: str, kind: str = "", colour: str = "currentColor") -> str:
    drawn = f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{shape}"/></svg>'
    return f'<li class="{kind}"><i style="color:{colour}">{drawn}</i>{escape(label)}</li>'
