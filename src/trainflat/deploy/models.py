"""From an offer to its model: which stage of the search made it, in floats or on its grid, of the first seed that has it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import nn

from trainflat.experiments.plan import Job, Plan
from trainflat.experiments.stages.quantize import on_grid, served
from trainflat.experiments.store import Store
from trainflat.experiments.work import Parent, make_task
from trainflat.reports.front.offers import Offer, model
from trainflat.reports.rows import Row, results

__all__ = ["Models"]


class Models:
    """The models of a plan whose stages are all in a store, and the rows that they have there."""

    def __init__(self, plan: Plan, store: Store, rows: Sequence[Row]):
        self._plan, self._store, self._rows = plan, store, rows

    @cached_property
    def task(self) -> Any:
        """The task that everything was trained on; asked for once, while its files are what they were then."""
        return make_task(self._plan.jobs[0].stage.task)

    @property
    def files(self) -> str | None:
        """The digest of the files, table and checkpoint, that everything was trained on."""
        return self._plan.jobs[0].settings["task"]["fingerprint"]

    def of(self, offer: Offer) -> nn.Module:
        """The model as it is offered."""
        job, floats = self._job(offer), self.floats(offer)
        if job.kind == "Quantize":
            return on_grid(job.stage.quantizer, served(floats, job.stage.on), self.task, job.seed).eval()
        return floats

    def floats(self, offer: Offer) -> nn.Module:
        """The model in floats; of one on a grid the model that was put there."""
        job = self._job(offer)
        source = job.parents["model"] if job.kind in ("Quantize", "OneShot") else job
        done = self._store.done(source.key) or {}
        found = Parent(source.stage, self._store.folder(source.key), done["rows"]).model(source.seed, self.task).eval()
        if job.kind == "OneShot":
            masks = list(job.stage.masks(self.task, found))
            min(masks, key=lambda mask: abs(mask.sparsity - offer.sparsity)).apply_to(found)
        return found

    def rows(self, offer: Offer) -> list[Row]:
        """The rows of an offer's metric, one for each seed; the first is that of `of`'s model."""
        data, wanted = results(self._rows), (offer.task, offer.arm, offer.variant, offer.sparsity)
        return [row for row in self._rows if row.get("value") is not None and model(data, row) == wanted]

    def _job(self, offer: Offer) -> Job:
        """The stage that scored an offer."""
        key = self.rows(offer)[0]["key"]
        return next(job for job in self._plan.jobs if job.key == key)
