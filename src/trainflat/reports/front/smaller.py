"""Smaller models as tables: how small each really is, how fast, what it keeps, and the command that makes it."""

from __future__ import annotations

from trainflat.reports.front.offers import SIZES, offers, setting, stated
from trainflat.reports.numbers import MISSING, bounds, percent, plus_minus, points, signed
from trainflat.reports.rows import Results
from trainflat.reports.stats import compare, means
from trainflat.reports.tables import ALONE, Table, axis

__all__ = ["commands", "table", "tables", "ways"]

SHRUNK = (
    "Target: the share of the layers' parameters that was to go; layers: what really went; CoFi: the same as its reference "
    "code counts it; all: of all parameters, embeddings included. Latency is the median over seeds, its ratio to the dense "
    "model of the same arm on the same machine."
)

ZEROS = (
    "One-shot: pruned weights are zeros that are stored and multiplied as any number is, so such a model costs what its dense "
    "one does."
)


def tables(data: Results, task: str) -> list[Table]:
    """All three, as far as the rows know."""
    return [found for found in (table(data, task), commands(data, task), ways(data, task)) if found is not None]


def table(data: Results, task: str) -> Table | None:
    """The offers of a task as a table, if any was shrunk: how small, how fast, and what is kept."""
    at = setting(data)
    listed = [offer for offer in offers(data, at) if offer.task == task]
    if at is None or not any("sparsity_layers" in offer.sizes for offer in listed):
        return None
    dense = {offer.arm: offer.latency for offer in listed if offer.variant == "dense"}
    lines = []
    for offer in listed:
        times = f"{dense[offer.arm] / offer.latency:.1f} ×" if offer.arm in dense else MISSING
        shares = [percent(offer.sizes[name]) if name in offer.sizes else MISSING for name in SIZES]
        size = [f"{offer.parameters / 1e6:,.2f}", f"{offer.bytes / 1e6:,.1f}", f"{offer.multiply_adds / 1e6:,.0f}"]
        name = data.title(offer.variant, offer.sparsity)
        value = plus_minus(offer.values.values())
        lines.append((name, offer.arm, *shares, *size, f"{offer.latency:.2f}", times, value, str(offer.value.n)))
    header = ("model", axis(data), "layers", "CoFi", "all", "parameters (M)", "MB", "multiply-adds (M)", "ms", "faster")
    title = f"Smaller models; {stated(at)}"
    return Table(title, (*header, data.metric(task), "n"), tuple(lines), task, 2, SHRUNK)


def commands(data: Results, task: str) -> Table | None:
    """The command that makes each model and keeps it, the fastest first; None if the rows say none."""
    listed = [offer for offer in offers(data) if offer.task == task and "command" in offer.made]
    lines = [
        (
            offer.name,
            points(offer.value.mean),
            f"{offer.latency:.2f}",
            f"{offer.bytes / 1e6:,.1f}",
            offer.made["command"],
        )
        for offer in sorted(listed, key=lambda offer: (offer.latency, offer.bytes, -offer.value.mean))
    ]
    if not lines:
        return None
    header = ("model", data.metric(task), "ms", "MB", "command")
    note = ZEROS if any(offer.variant == "pruned" for offer in listed) else ""
    return Table("How to make each again", header, tuple(lines), task, 1, note, kind="commands")


def ways(data: Results, task: str) -> Table | None:
    """CoFi against the plainer cuts of the same size, arm by arm: the difference in points, paired over seeds."""
    lines, found = [], []
    for sparsity in data.sparsities(task, "cofi"):
        for plainer in ("narrow", "shallow"):
            for arm in data.arms:
                ours, plain = (data.values(task, arm, way, sparsity) for way in ("cofi", plainer))
                if ours and plain:
                    d = compare(plain, ours)
                    shown = [points(mean) for mean in reversed(means(plain, ours))]
                    what = f"cofi − {plainer} at {percent(sparsity)}"
                    lines.append((what, arm, *shown, signed(d.mean), bounds(d), str(d.n), d.verdict))
                    found.append(d)
    if not lines:
        return None
    header = ("models", axis(data), "cofi", "plainer", "difference", "95 % CI", "n", "cofi is")
    return Table("Gates against plainer cuts of the same size", header, tuple(lines), task, 2, ALONE, tuple(found))
