"""What a search found: the models that can be had, the one that fits, what it says of new texts, and its folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainflat import reports, train
from trainflat.deploy.card import card
from trainflat.deploy.errors import mistakes
from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.resolve import build
from trainflat.experiments.stages.quantize import QUANTIZERS
from trainflat.experiments.store import Store
from trainflat.experiments.work import Parent, make_task
from trainflat.reports.front import choose, pareto
from trainflat.reports.offers import Offer, model, offers
from trainflat.reports.rows import results

__all__ = ["Smaller"]


class Smaller:
    """What `search` and `compress_text` return.

    Attributes:
        offers: Every model whose metric and cost were both measured.
        front: Those that no other one beats in both, by latency, the cheapest first.
        best: The one that fits what was wanted; None if none does.
        said: Why this one and what it gives up, or what comes nearest.
    """

    def __init__(self, plan: Plan, store: Store, document: Mapping[str, Any], **wanted: Any):
        self._plan, self._store, self._document = plan, store, document
        self._rows = store.rows(document)
        self.offers = offers(self._rows)
        self.front = pareto(self.offers, wanted.get("by") or "latency")
        self.best, self.said = choose(self.offers, **{key: value for key, value in wanted.items() if value is not None})

    def __repr__(self) -> str:
        return f"Smaller({len(self.offers)} models, {len(self.front)} on the front; {self.said})"

    @cached_property
    def task(self) -> Any:
        """The task that everything was trained on."""
        return make_task(self._plan.jobs[0].stage.task)

    @property
    def metric(self) -> str:
        """The name of what is kept or lost."""
        return next(str(row["metric"]) for row in self._rows if row.get("metric"))

    def model(self, offer: Offer | None = None) -> nn.Module:
        """The model of an offer, of the first seed that has it; by default of the best.

        Raises:
            LookupError: If nothing fits what was wanted and no offer is given; says what comes nearest.
        """
        job = self._job(offer or self._fitting())
        source = job.parents["model"] if job.kind == "Quantize" else job
        done = self._store.done(source.key) or {}
        whole = Parent(source.stage, self._store.folder(source.key), done["rows"]).model(source.seed)
        return (build(job.stage.quantizer, QUANTIZERS, whole) if job.kind == "Quantize" else whole).eval()

    def predict(self, texts: Sequence[Any], offer: Offer | None = None) -> list[Any]:
        """The label of each text (of each pair of texts), or its number where the task is a regression."""
        asked = self._loaded if offer is None else self.model(offer)
        return self.task.predicted(self._logits(asked, texts))

    def report(self, folder: str | Path) -> Path:
        """Write the report, with the chosen model marked and where it errs; returns its page."""
        rows, chosen = list(self._rows), None
        if self.best is not None:
            best = self.best
            chosen = {name: getattr(best, name) for name in ("task", "arm", "variant", "sparsity")}
            found = mistakes(self.task, self._loaded, self.model(self._largest()))
            key = self._job(best).key
            rows = [{**row, **found} if row["key"] == key and "value" in row else row for row in rows]
        header = {key: value for key, value in self._document.items() if key != "points"}
        return reports.write_all(rows, {**header, "chosen": chosen}, folder)[0]

    def save(self, folder: str | Path, offer: Offer | None = None) -> Path:
        """The model as a folder: weights, configuration, tokenizer, a card, the recipe and the report; there whole or not at all.

        ``trainflat.hf.load(folder)`` brings model and tokenizer back.

        Raises:
            LookupError: As `model`.
            FileExistsError: If the folder is there already and not empty.
        """
        folder, chosen = Path(folder), offer or self._fitting()
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is there and not empty; name another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            notes = card(self.task, self.metric, chosen, self.offers, self._document)
            self.task.save(aside, self._loaded if offer is None else self.model(offer), notes=notes)
            shutil.copy(self._store.root / "recipes" / f"{self._plan.recipe.name}.toml", aside / "recipe.toml")
            self.report(aside / "report")
            aside.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return folder

    def _fitting(self) -> Offer:
        if self.best is None:
            raise LookupError(self.said)
        return self.best

    @cached_property
    def _loaded(self) -> nn.Module:
        return self.model()

    def _largest(self) -> Offer:
        """The best dense model."""
        return max((o for o in self.offers if o.variant == "dense"), key=lambda offer: offer.value.mean)

    def _job(self, offer: Offer) -> Job:
        """The stage that scored an offer."""
        data = results(self._rows)
        wanted = (offer.task, offer.arm, offer.variant, offer.sparsity)
        row = next(row for row in data.rows if row.get("value") is not None and model(data, row) == wanted)
        return next(job for job in self._plan.jobs if job.key == row["key"])

    def _logits(self, model: nn.Module, texts: Sequence[Any], size: int = 32) -> np.ndarray:
        if not len(texts):
            return np.zeros((0, max(len(self.task.labels), 1)))
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        batches = ((self.task.encode(part), torch.zeros(len(part), dtype=torch.long)) for part in parts)
        return np.concatenate([logits for logits, _ in train.predict(model, batches)])
