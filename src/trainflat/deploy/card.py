"""What a model card says: the data, the metric with its interval, the size, the latency, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from trainflat.reports.front.given_up import forgone
from trainflat.reports.front.offers import Offer
from trainflat.reports.numbers import percent, points
from trainflat.reports.rows import Row

__all__ = ["card", "interval", "packing", "rounded"]


def card(
    task: Any, row: Row, offer: Offer, offers: Sequence[Offer], document: Mapping[str, Any], at: str, aware: str
) -> str:
    """The notes of a model card, in Markdown.

    Args:
        task: What it was trained on.
        row: What this very model scored.
        offer: The model as it was offered.
        offers: All of them.
        document: Of the run.
        at: The setting of its latency, in words.
        aware: What `trainflat.deploy.guess.beware` says.
    """
    host = document.get("environment", {})
    packages = host.get("packages", {})
    gone = offer.sizes.get("sparsity_layers")
    machine = offer.device if offer.device != "cpu" else host.get("processor") or "one machine"
    lines = {
        "Data": task.note,
        "Metric": _metric(row, len(task.held_out), offer),
        "Model": f"{offer.name}, from {task.model_name}",
        "Size": f"{offer.bytes / 1e6:.1f} MB{' once packed' * bool(packing(offer))}, {offer.parameters:,.0f} parameters"
        + (f", {100 * gone:.0f} % of the layers' removed" if gone else "")
        + (f", {percent(offer.gone)} of them zero, which are stored" if offer.variant == "pruned" else ""),
        "Latency": f"{offer.latency:.2f} ms, median ({at}; {machine})",
        "To serve": packing(offer),
        "Given up": forgone(offer, offers),
        "To be known": aware,
        "Made by": f"`{offer.made.get('command') or 'trainflat run recipe.toml'}`",
        "With": f"trainflat {packages.get('trainflat')}, torch {packages.get('torch')}",
    }
    return "\n".join(f"- {name}: {said}" for name, said in lines.items() if said)


def rounded(number: float) -> str:
    """An error in the labels' unit, to three digits.

    >>> rounded(0.42149), rounded(32349.2), rounded(3.0)
    ('0.421', '32,300', '3')
    """
    return f"{float(f'{number:.3g}'):,g}"


def packing(offer: Offer) -> str | None:
    """How a model is packed where it serves, if its packed weights live in memory only and its folder has them as floats."""
    part = offer.variant.split(", ")[-1].split(" ")
    if part[0] != "torchao_weights":
        return None
    return (
        f"`trainflat.int8.torchao_weights(model, bits={part[1]})` after the lines below, with the model where it runs and in the "
        "float type in which it computes, packs the weights as they were measured; this folder has them as floats"
    )


def interval(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of n examples: (s + z^2/2n ± z sqrt(s(1-s)/n + z^2/4n^2)) / (1 + z^2/n), Wilson 1927.

    Example:
        >>> [round(x, 3) for x in interval(0.9, 100)]
        [0.826, 0.945]
    """
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    middle = share + z * z / (2 * n)
    spread = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def _metric(row: Row, count: int, offer: Offer) -> str:
    """What the model scored itself; of several seeds which one it is of, and their mean."""
    said = f"{row['metric']} {points(row['value'])}"
    if row["metric"] == "accuracy":
        low, high = interval(row["value"], count)
        said += f", 95 % interval {points(low)} to {points(high)} (Wilson)"
    if "rmse" in row["metrics"]:
        said += f", rmse {rounded(row['metrics']['rmse'])} in the labels' unit,"
    seeds = f"; it is the model of seed {row['seed']}, and the mean over {offer.value.n} seeds is {points(offer.value.mean)}"
    return f"{said} on {count:,} held-out examples{seeds * (offer.value.n > 1)}"
