"""What a search found: the models that can be had, the one that fits, what it says of new texts, and its folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import int8, reports, train
from trainflat.deploy.card import card, packing
from trainflat.deploy.command import keeping
from trainflat.deploy.errors import mistakes
from trainflat.deploy.guess import beware
from trainflat.deploy.place import check_place
from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.resolve import near
from trainflat.experiments.stages.quantize import on_grid, served
from trainflat.experiments.store import Store
from trainflat.experiments.work import Parent, make_task
from trainflat.reports import glance
from trainflat.reports.forgone import best_dense, facts, forgone
from trainflat.reports.front import choose, pareto
from trainflat.reports.offers import Offer, model, offers, setting, stated
from trainflat.reports.rows import Row, results

__all__ = ["Smaller"]


class Smaller:
    """What `search` and `compress_text` return.

    Attributes:
        offers: Every model whose metric and cost were both measured.
        front: Those that no other one beats in both, by what was to be cheap (by default latency), the cheapest first.
        best: The one that fits what was wanted; None if none does.
        said: Why this one and what it gives up, or what comes nearest.
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
        self._plan, self._store, self._document, self._recipe = plan, store, document, recipe
        self._rows = list(_with_commands(store.rows(document), command))
        self._by = wanted.get("by") or "latency"
        self.offers = offers(self._rows)
        self.front = pareto(self.offers, self._by)
        if wanted.get("offer") is None:
            wished = {key: value for key, value in wanted.items() if value is not None}
            self.best, self.said = choose(self.offers, **wished)
        else:
            self.best = found = self.offer(wanted["offer"])
            self.said = f"{found.name}: {facts(found)}, as asked for. {forgone(found, self.offers)}".rstrip()
        self.said = " ".join(filter(None, [self.said, self._error(), beware(self.task, self.offers)]))

    def __repr__(self) -> str:
        return f"Smaller({len(self.offers)} models, {len(self.front)} on the front; {self.said})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was chosen and why, the front, and its picture."""
        return glance.html(self._rows, self.task.name, self.front, self._chosen(self.best), self.said)

    def plot(self) -> Any:
        """The front as a figure of matplotlib: ``found.plot().savefig("front.pdf")``."""
        return glance.figure(self._rows, self.task.name, self._chosen(self.best))

    @property
    def name(self) -> str:
        """Under which the store keeps the search."""
        return self._plan.recipe.name

    def offer(self, name: str) -> Offer:
        """The offer of this name: "cofi 60 %, int8 per channel from SAM".

        Raises:
            LookupError: If there is none; says which there are.
        """
        of = {offer.name: offer for offer in self.offers}
        if name not in of:
            raise LookupError(f"there is no model {name!r}{near(name, of)}")
        return of[name]

    @cached_property
    def task(self) -> Any:
        """The task that everything was trained on."""
        return make_task(self._plan.jobs[0].stage.task)

    @property
    def metric(self) -> str:
        """The name of what is kept or lost."""
        return next(str(row["metric"]) for row in self._rows if row.get("metric"))

    def model(self, offer: Offer | str | None = None) -> nn.Module:
        """The model of an offer, or of its name, of the first seed that has it; by default of the best.

        Raises:
            LookupError: If nothing fits what was wanted and no offer is given, and says what comes nearest; or as `offer`.
        """
        offer = self._fitting(offer)
        job, floats = self._job(offer), self._floats(offer)
        if job.kind == "Quantize":
            return on_grid(job.stage.quantizer, served(floats, job.stage.on), self.task, job.seed).eval()
        return floats

    def fastest(self, offer: Offer | str | None = None, *, seconds: float = 5.0) -> int8.Choice:
        """Which 8-bit backend runs a model fastest on this processor, of those that are right: a probe, `trainflat.int8.choose`.

        Args:
            offer: Whose weights; of one in int8 the floats that it was made from. Default: the best.
            seconds: Of timing.
        """
        return int8.choose(self._floats(self._fitting(offer)), self.task.inputs(1), seconds=seconds)

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
            scored = self._row(offer)
            rows = [{**row, **found} if row is scored else row for row in rows]
        header = {key: value for key, value in self._document.items() if key != "points"}
        return reports.write_all(rows, {**header, "chosen": self._chosen(offer)}, folder)[0]

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
        check_place(folder)
        around = folder if folder.exists() else folder.parent  # an empty one may be a link, a mount, or where we are
        around.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=around))
        try:
            at = stated(setting(self._rows) or ())
            notes = card(self.task, self.metric, chosen, self.offers, self._document, at)
            self.task.save(aside, self._keepable(chosen), notes=notes)
            (aside / "recipe.toml").write_text(self._recipe, encoding="utf-8")
            self.report(aside / "report", chosen)
            if folder.exists():
                _move(list(aside.iterdir()), folder)
            else:
                aside.chmod(0o755)
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
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

    def _error(self) -> str:
        """Of a regression how far the chosen model's numbers are off: a correlation does not see their scale."""
        if self.best is None:
            return ""
        small, large = (self._row(offer)["metrics"].get("rmse") for offer in (self.best, self._largest()))
        if small is None or large is None:
            return ""
        return f"Its numbers are off by {small:.3g} (rmse, in the labels' unit), those of the best dense model by {large:.3g}."

    def _fitting(self, offer: Offer | str | None) -> Offer:
        """The offer that is meant: this one, that of this name, or the best."""
        found = self.offer(offer) if isinstance(offer, str) else offer or self.best
        if found is None:
            raise LookupError(self.said)
        return found

    def _keepable(self, offer: Offer) -> nn.Module:
        """The model as its folder has it."""
        return self._ready(offer) if packing(offer) is None else self._floats(offer)

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

    def _job(self, offer: Offer) -> Job:
        """The stage that scored an offer."""
        key = self._row(offer)["key"]
        return next(job for job in self._plan.jobs if job.key == key)

    def _row(self, offer: Offer) -> Row:
        """The row of an offer's metric, of the first seed that has it."""
        data, wanted = results(self._rows), (offer.task, offer.arm, offer.variant, offer.sparsity)
        return next(row for row in self._rows if row.get("value") is not None and model(data, row) == wanted)

    def _floats(self, offer: Offer) -> nn.Module:
        """An offer's model in floats; of one on a grid the model that was put there."""
        job = self._job(offer)
        source = job.parents["model"] if job.kind in ("Quantize", "OneShot") else job
        done = self._store.done(source.key) or {}
        model = Parent(source.stage, self._store.folder(source.key), done["rows"]).model(source.seed).eval()
        if job.kind == "OneShot":
            masks = list(job.stage.masks(self.task, model))
            min(masks, key=lambda mask: abs(mask.sparsity - offer.sparsity)).apply_to(model)
        return model

    def _logits(self, model: nn.Module, texts: Sequence[Any], size: int = 32) -> np.ndarray:
        if not len(texts):
            return np.zeros((0, max(len(self.task.labels), 1)))
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        batches = ((self.task.encode(part), torch.zeros(len(part), dtype=torch.long)) for part in parts)
        return np.concatenate([logits for logits, _ in train.predict(model, batches)])


def _move(paths: Sequence[Path], folder: Path) -> None:
    """Move files and folders into a folder, all or none of them."""
    moved = []
    try:
        for path in paths:
            moved.append(path.rename(folder / path.name))
    except BaseException:
        for path, there in zip(paths, moved, strict=False):
            there.rename(path)
        raise


def _with_commands(rows: Sequence[Row], command: Sequence[str]) -> Iterator[Row]:
    """The rows, those that score an offer with the command that keeps it."""
    data, of = results(rows), {(o.task, o.arm, o.variant, o.sparsity): o.name for o in offers(rows) if command}
    for row in rows:
        name = of.get(model(data, row)) if row.get("value") is not None else None
        yield {**row, "command": keeping(command, name)} if name else row
