"""What a search found: the models that can be had, the one that fits, what it says of new texts, and its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import int8, reports, train
from trainflat.deploy.card import card, packing, rounded
from trainflat.deploy.command import with_commands
from trainflat.deploy.errors import mistakes
from trainflat.deploy.guess import beware
from trainflat.deploy.models import Models
from trainflat.experiments.plan import Plan
from trainflat.experiments.resolve import near
from trainflat.experiments.store import Store
from trainflat.new_folder import filling
from trainflat.reports.front import notebook
from trainflat.reports.front.given_up import best_dense, facts, forgone
from trainflat.reports.front.offers import Offer, offers, setting, stated
from trainflat.reports.front.pareto import choose, pareto
from trainflat.reports.numbers import points

__all__ = ["Smaller"]


class Smaller:
    """What `search` and `compress_text` return.

    Attributes:
        offers: Every model whose metric and cost were both measured.
        front: Those that no other one beats in both, by what was to be cheap (by default latency), the cheapest first.
        best: The one that fits what was wanted; None if none does.
        said: Why this one and what it gives up, or what comes nearest.
        at: At what setting latency was measured.
        name: Under which the store keeps the search.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        document: Mapping[str, Any],
        *,
        recipe: str,
        command: Sequence[str] = (),
        **wanted: Any,
    ):
        self._document, self._recipe, self.name = document, recipe, plan.recipe.name
        self._rows = list(with_commands(store.rows(document), command))
        self._models = Models(plan, store, self._rows)
        self._by = wanted.get("by") or "latency"
        self.offers = offers(self._rows)
        self.front = pareto(self.offers, self._by)
        self._at = setting(self._rows)
        self.at = stated(self._at) if self._at else ""
        if wanted.get("offer") is None:
            wished = {key: value for key, value in wanted.items() if value is not None}
            self.best, self.said = choose(self.offers, **wished)
        else:
            self.best = found = self.offer(wanted["offer"])
            self.said = f"{found.name}: {facts(found)}, as asked for. {forgone(found, self.offers)}".rstrip()
        self.said = " ".join(filter(None, [self.said, self._remarks(self.best)]))

    def __repr__(self) -> str:
        return f"Smaller({len(self.offers)} models, {len(self.front)} on the front; {self.said})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was chosen and why, the front, and its picture."""
        return notebook.html(self._rows, self.task.name, self.front, self._chosen(self.best), self.said)

    def plot(self) -> Any:
        """The front as a figure of matplotlib: ``found.plot().savefig("front.pdf")``."""
        return notebook.figure(self._rows, self.task.name, self._chosen(self.best))

    def offer(self, name: str) -> Offer:
        """The offer of this name: "cofi 60 %, int8 per channel from SAM".

        Raises:
            LookupError: If there is none; says which there are.
        """
        of = {offer.name: offer for offer in self.offers}
        if name not in of:
            raise LookupError(f"there is no model {name!r}{near(name, of)}")
        return of[name]

    @property
    def task(self) -> Any:
        """The task that everything was trained on."""
        return self._models.task

    @property
    def metric(self) -> str:
        """The name of what is kept or lost."""
        return next(str(row["metric"]) for row in self._rows if row.get("metric"))

    def model(self, offer: Offer | str | None = None) -> nn.Module:
        """The model of an offer, or of its name, of the first seed that has it; by default of the best.

        Raises:
            LookupError: If nothing fits what was wanted and no offer is given, and says what comes nearest; or as `offer`.
        """
        return self._models.of(self._fitting(offer))

    def fastest(self, offer: Offer | str | None = None, *, seconds: float = 5.0) -> int8.Choice:
        """Which 8-bit backend runs a model fastest on this processor, of those that are right: a probe, `trainflat.int8.choose`.

        Args:
            offer: Whose weights; of one in int8 the floats that it was made from. Default: the best.
            seconds: Of timing.
        """
        return int8.choose(self._models.floats(self._fitting(offer)), self.task.inputs(1), seconds=seconds)

    def predict(self, texts: Iterable[Any], offer: Offer | str | None = None) -> list[Any]:
        """The label of each text (of each pair of texts), or its number where the task is a regression.

        Raises:
            TypeError: If ``texts`` is one text, or a table, or one of them is no text.
            ValueError: If the task has no table of texts.
        """
        if isinstance(texts, str):
            raise TypeError(f"predict takes a list of texts, got the text {texts[:40]!r}; put it into brackets")
        if isinstance(texts, Mapping) or hasattr(texts, "columns"):
            raise TypeError(
                f"predict takes a list of texts, got a {type(texts).__name__}; give its column, or list(zip(one, other)) of two"
            )
        self._check_texts("predict")
        return self.task.predicted(self._logits(self._ready(self._fitting(offer)), list(texts)))

    def report(self, folder: str | Path, offer: Offer | str | None = None) -> Path:
        """Write the report, with one model marked (by default the best) and where it errs on texts; returns its page."""
        rows, offer = list(self._rows), self.best if offer is None else self._fitting(offer)
        if offer is not None and self._has_texts:
            found = mistakes(self.task, self._ready(offer), self.model(self._largest()))
            scored = self._models.rows(offer)[0]
            rows = [{**row, **found} if row is scored else row for row in rows]
        header = {key: value for key, value in self._document.items() if key != "points"}
        said = self.said if offer is None else self._remarks(offer)
        about = {"chosen": self._chosen(offer), "said": said, "files": self._models.files}
        return reports.write_all(rows, {**header, **about}, folder)[0]

    def save(self, folder: str | Path, offer: Offer | str | None = None) -> Path:
        """The model as a folder: weights, configuration, tokenizer, a card, the recipe and the report; there whole or not at all.

        ``trainflat.hf.load(folder)`` brings model and tokenizer back. Weights that torchao packs live in memory only: the folder
        has them as floats, and the card says how to pack them where the model serves.

        Raises:
            LookupError: As `model`, or `offer` where a name is given.
            OSError: If the folder is there already and not empty, or cannot be made.
            ValueError: If the task has no table of texts.
        """
        folder, chosen = Path(folder), self._fitting(offer)
        self._check_texts("save")
        with filling(folder) as aside:
            aware = beware(self.task, self.offers, self._at)
            notes = card(self.task, self._models.rows(chosen)[0], chosen, self.offers, self._document, self.at, aware)
            self.task.save(aside, self._keepable(chosen), notes=notes)
            (aside / "recipe.toml").write_text(self._recipe, encoding="utf-8")
            self.report(aside / "report", chosen)
        return folder

    def _chosen(self, offer: Offer | None) -> dict[str, Any] | None:
        """The chosen one as a report's header names it."""
        if offer is None:
            return None
        return {**{name: getattr(offer, name) for name in ("task", "arm", "variant", "sparsity")}, "by": self._by}

    @property
    def _has_texts(self) -> bool:
        """Whether the task is made of a table of texts, as `trainflat.hf.text`: only such can be shown, predicted and kept."""
        return hasattr(self.task, "held_out")

    def _check_texts(self, what: str) -> None:
        if not self._has_texts:
            raise ValueError(
                f"{what} needs a task made of a table of texts, and {self.task.name} is none; model(offer) gives any model"
            )

    def _remarks(self, offer: Offer | None) -> str:
        """What is to be known beside an offer's figures, and of all of them."""
        own = [] if offer is None else [self._seed(offer), self._error(offer)]
        return " ".join(filter(None, [*own, beware(self.task, self.offers, self._at)]))

    def _seed(self, offer: Offer) -> str:
        """Of several seeds which one's model is had, and its own score."""
        if offer.value.n < 2:
            return ""
        own, n = self._models.rows(offer)[0], offer.value.n
        return (
            f"These are means over {n} seeds; the model itself is of seed {own['seed']}, with {points(own['value'])}."
        )

    def _error(self, offer: Offer) -> str:
        """Of a regression how far an offer's numbers are off: a correlation does not see their scale."""
        if not self._has_texts or self.task.labels:
            return ""
        of = lambda offer: rounded(fmean(row["metrics"]["rmse"] for row in self._models.rows(offer)))
        dense = "" if offer == self._largest() else f", those of the best dense model by {of(self._largest())}"
        return f"Its numbers are off by {of(offer)} (rmse, in the labels' unit){dense}."

    def _fitting(self, offer: Offer | str | None) -> Offer:
        """The offer that is meant: this one, that of this name, or the best."""
        found = self.offer(offer) if isinstance(offer, str) else offer or self.best
        if found is None:
            raise LookupError(self.said)
        return found

    def _keepable(self, offer: Offer) -> nn.Module:
        """The model as its folder has it."""
        return self._ready(offer) if packing(offer) is None else self._models.floats(offer)

    def _ready(self, offer: Offer) -> nn.Module:
        """The model of an offer; the best one is loaded once."""
        return self._loaded if offer is self.best else self.model(offer)

    @cached_property
    def _loaded(self) -> nn.Module:
        return self.model()

    def _largest(self) -> Offer:
        """The best dense model, which every search has."""
        found = best_dense(self.offers)
        assert found is not None
        return found

    def _logits(self, model: nn.Module, texts: Sequence[Any], size: int = 32) -> np.ndarray:
        if not len(texts):
            return np.zeros((0, max(len(self.task.labels), 1)))
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        batches = ((self.task.encode(part), torch.zeros(len(part), dtype=torch.long)) for part in parts)
        return np.concatenate([logits for logits, _ in train.predict(model, batches)])
