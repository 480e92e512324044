"""How flat the loss is around a trained model, on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from trainflat import flat
from trainflat.compress import Mask
from trainflat.experiments.resolve import parent
from trainflat.experiments.stages.measured import Measured
from trainflat.experiments.work import Work, row_of

__all__ = ["Sharpness"]


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Measures the model of another stage as Na et al. 2022, tables 3 and 4, and by SAM's ascent and the Hessian.

    The seed of the run draws the directions and the probes, so that models of one seed are measured in the same subspace.

    Args:
        eps: Sizes of the box; see `trainflat.flat.sharpness`, also for ``directions`` and ``max_iterations``.
        examples: The first so many held-out examples. Default: all.
        masked: Whether pruned weights are "frozen" at zero or "moved" like all others; the paper does not say. Default: "frozen".
        rho: Radius of the ascent.
        hessian: Whether to measure the largest eigenvalue and the trace, some 45 Hessian-vector products with the defaults,
            each about three gradients.
        tolerance: The eigenvalue's relative residual at which to stop.
        lanczos_iterations: Products for the eigenvalue, at most; each keeps a vector of the weights' size in memory.
        probes: Products for the trace.
    """

    VERSION: ClassVar[int] = 1
    model: str = parent()
    eps: tuple[float, ...] = (5e-3, 1e-3, 5e-4)
    directions: int = 100
    max_iterations: int = 10
    examples: int | None = None
    masked: Literal["frozen", "moved"] = "frozen"
    rho: float = 0.05
    hessian: bool = True
    tolerance: float = 1e-2
    lanczos_iterations: int = 30
    probes: int = 30

    def __post_init__(self) -> None:
        if not self.eps or min(self.eps) <= 0:
            raise ValueError(f"eps are the sizes of the box and must be above 0, got {list(self.eps)}")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}; leave it out for all")
        if min(self.directions, self.max_iterations, self.lanczos_iterations) < 1 or self.probes < 2:
            raise ValueError(
                "directions, max_iterations and lanczos_iterations must be at least 1 and probes at least 2"
            )
        if self.rho < 0 or self.tolerance <= 0:
            raise ValueError(f"rho must be at least 0 and tolerance above 0, got {self.rho} and {self.tolerance}")

    def run(self, work: Work) -> list[dict[str, Any]]:
        source = work.parents["model"]
        task, model = source.task(), work.place(source.model(work.seed))
        measured = Measured(work, of=3 + 2 * self.hessian)
        mask = _live(model, task) if self.masked == "frozen" else None
        batches = task.held_out_batches(self.examples)
        loss = flat.Loss(model, task.objective, batches, mask=mask, after=measured.pause)
        found: dict[str, float] = {"loss": measured.once("loss", loss.value)}
        options = {"directions": self.directions, "seed": work.seed, "max_iterations": self.max_iterations}
        found |= measured.once(
            "boxes",
            lambda: {f"eps {eps:g}": phi for eps, phi in flat.sharpness(loss, eps=self.eps, **options).items()},
        )
        found["ascent"] = measured.once("ascent", lambda: flat.ascent_sharpness(loss, rho=self.rho))
        if self.hessian:
            most = {"max_iterations": self.lanczos_iterations, "seed": work.seed}
            top = measured.once("top", lambda: flat.top_eigenvalue(loss, tolerance=self.tolerance, **most))
            trace = measured.once("trace", lambda: flat.trace(loss, probes=self.probes, seed=work.seed))
            found |= {"eigenvalue": top[0], "residual": top[1], "trace": trace[0], "trace_error": trace[1]}
        measured.forget()
        about = {"variant": source.row["variant"], "sparsity": source.row["sparsity"], "examples": loss.examples}
        return [row_of(task, **about, sharpness=found)]


def _live(model: nn.Module, task: Any) -> Mask:
    """The mask that a model was left with: training holds a pruned weight at exactly zero, and no live one gets there."""
    return Mask({name: p.detach() != 0 for name, p in model.named_parameters() if task.prunable(name, p)})
