"""The recipe of a search for a smaller model: every way that was asked for, Adam beside the flat rule, each cost measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Integral, Real
from typing import Any

from trainflat.experiments import toml
from trainflat.experiments.flat_rules import RULES, Rule, called

__all__ = ["USUAL", "WAYS", "Trials"]

USUAL = {"cpu": ("pruned", "int8", "shrunk"), "cuda": ("pruned", "shrunk")}
WAYS = ("pruned", "int8", "shrunk", "static", "int4", "qat", "torchao8", "torchao4")
"""What can be tried beside the dense model. Pruned weights stay stored and multiplied: smaller or faster are the others. Beyond
the usual: static int8; weights in 4 bits (smaller, not faster); a third of the epochs more for each grid of weights; and weights
in 8 or 4 bits multiplied by torchao's kernels, where it is installed and has them."""

GRIDS: dict[str, Any] = {
    "int8": "dynamic_int8",
    "static": "static_int8",
    "int4": {"name": "weight_only", "bits": 4},
    "torchao8": {"name": "torchao_weights", "bits": 8},
    "torchao4": {"name": "torchao_weights", "bits": 4},
}
FOR_PROCESSORS = ("int8", "static", "qat")
SERVED = {"int8": ("int8", "static"), "int4": ("int4",)}  # training for a grid of weights serves all that store them so

GATE_STEPS = 300
"""Gates have at least so many, at a rate that gets them to their target: enough for MiniLM at 95 %."""

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What to try on a task; `recipe` is the recipe that does, and that anybody can run, change and extend.

    Args:
        name: Of the recipe.
        task: As a recipe names it: ``{"name": "text", "data": ..., "text": ..., "label": ...}``.
        claim: What its comment says first.
        ways: Some of `WAYS`. Default: `USUAL`'s. "qat" trains for the grids of the others that are tried, of int8 if none is.
        sizes: Of "shrunk": shares of the layers' parameters to remove. Default: half, three quarters, nine tenths.
        gradient: The flat rule beside plain Adam, or several, each with a model of its own in every size. Default:
            `trainflat.experiments.flat_rules.RULES`.
        lr: Adam's. Default: 5e-5, the largest of BERT's own grid (Devlin et al. 2019, appendix A.3).
        epochs: Of each training; a shrunk model has as many under gates and as many afterwards. Default: 3, as above.
        steps_per_epoch: Of the task.
        seeds: Default: one.
        precision: "fp32" or "bf16".
        batch, length, threads: At which the latency is measured; ``length`` None: examples as long as they are.
        serve: Where it is: "cpu", or "cuda", a GPU, on which every model runs in bfloat16; int8 has kernels for processors only.

    Raises:
        ValueError: If nothing is tried, a way is unknown, has no kernels where it is to be served or serves none of the others, a
            number is none or out of range, no rule is named, or a rule or a size is there twice.

    Example:
        >>> text = Trials(name="mine", task={"name": "digits"}, claim="Smaller digits.", sizes=(0.5,)).recipe()
        >>> [line for line in text.splitlines() if line.startswith("[stage")][:5]
        ['[stage.train]', '[stage.cost]', '[stage.pruned]', '[stage.int8]', '[stage.int8-cost]']
    """

    name: str
    task: Mapping[str, Any]
    claim: str
    ways: tuple[str, ...] | None = None
    sizes: Sequence[float] = (0.5, 0.75, 0.9)
    gradient: Rule | Sequence[Rule] = RULES
    lr: float = 5e-5
    epochs: float = 3.0
    steps_per_epoch: int = 1000
    seeds: Sequence[int] = (0,)
    precision: str = "fp32"
    batch: int = 1
    length: int | None = None
    threads: int = 1
    serve: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(map(float, _listed("sizes", self.sizes, Real, "[0.5, 0.9]"))))
        object.__setattr__(self, "seeds", tuple(map(int, _listed("seeds", self.seeds, Integral, "[0, 1, 2]"))))
        self._check_ways()
        called(self.gradient)
        self._check_sizes()
        for name in ("lr", "epochs", "steps_per_epoch"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 < float(value) < math.inf:
                raise ValueError(f"{name} must be a number above 0, got {value!r}")

    def _check_ways(self) -> None:
        if self.serve not in USUAL:
            raise ValueError(f"a model is served on {' or '.join(USUAL)}, got {self.serve!r}")
        if isinstance(self.ways, str):
            raise ValueError(f"ways lists what is tried, such as ['int8', 'shrunk']; got the text {self.ways!r}")
        if not self.tried or (set(self.tried) == {"shrunk"} and not self.sizes):
            raise ValueError(f"there is nothing to try; name some of {', '.join(WAYS)}, and of shrunk some sizes")
        if unknown := [way for way in self.tried if way not in WAYS]:
            raise ValueError(f"what can be tried is {', '.join(WAYS)}; got {', '.join(unknown)}")
        if self.serve != "cpu" and (never := [way for way in FOR_PROCESSORS if way in self.tried]):
            others = ", ".join(way for way in WAYS if way not in FOR_PROCESSORS)
            raise ValueError(f"{', '.join(never)} has kernels for processors only; on a GPU try some of {others}")
        grids, aware = [way for way in GRIDS if way in self.tried], [way for ways in SERVED.values() for way in ways]
        if "qat" in self.tried and grids and not set(grids) & set(aware):
            raise ValueError(
                f"qat trains for the grids of {', '.join(aware)}, and not for those of {', '.join(grids)}; "
                "try one of the first as well, or leave qat out"
            )

    def _check_sizes(self) -> None:
        if wrong := [size for size in self.sizes if not 0 < size < 1]:
            raise ValueError(f"a size is the share of the layers to remove, in (0, 1); got {wrong[0]}")
        for one, other in combinations(self.sizes, 2):
            if _percent(one) == _percent(other):
                raise ValueError(f"the sizes {one} and {other} are both called {_percent(one)} %; name each size once")

    def recipe(self) -> str:
        """The recipe as TOML, its claim as the comment on top."""
        defaults = {
            "task": self.task,
            "optimizer": {"name": "Adam", "lr": self.lr},
            "lr": {"name": "linear", "warmup": 0.1},
            "epochs": self.epochs,
            "precision": self.precision,
        }
        stages = dict(self._stages())
        flat = [name for name, table in stages.items() if name == "train" or table["kind"] == "QuantizeAware"]
        rules = [("Adam", "plain"), *self.rules()]
        arms = {arm: {f"{name}.gradient": gradient for name in flat} for arm, gradient in rules}
        head = [f"# {line}" for line in self.claim.splitlines()]
        head += [f"name = {toml.value(self.name)}", f"seeds = {toml.value(self.seeds)}"]
        tables = {"defaults": defaults} | {f"stage.{name}": table for name, table in stages.items()}
        return "\n".join([*head, "", *_lines({**tables, "sweep.optimizer": arms})])

    @property
    def tried(self) -> tuple[str, ...]:
        """The ways that are tried."""
        return USUAL[self.serve] if self.ways is None else self.ways

    def rules(self) -> list[tuple[str, Rule]]:
        """What each flat rule is called, and the rule; see `trainflat.experiments.flat_rules`."""
        return called(self.gradient)

    def _stages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        on = None if self.serve == "cpu" else self.serve
        measured = {"batch": self.batch, "length": self.length, "threads": self.threads, "on": on}

        def cost(model: str, **more: Any) -> dict[str, Any]:
            return {"kind": "Measure", "model": model, **measured, **more}

        def gridded(name: str, model: str, way: str) -> Iterator[tuple[str, dict[str, Any]]]:
            yield name, {"kind": "Quantize", "model": model, "quantizer": GRIDS[way], "on": on}
            yield f"{name}-cost", cost(model, quantizer=GRIDS[way])

        def offered(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
            """A model as it is, and on every grid."""
            prefix = "" if model == "train" else f"{model}-"
            yield f"{prefix}cost", cost(model)
            if model == "train" and "pruned" in self.tried:
                yield "pruned", {"kind": "OneShot", "model": model, "sparsities": (0.3, 0.5, 0.7)}
            tried = [way for way in GRIDS if way in self.tried] or ["int8"] * ("qat" in self.tried)
            for way in tried:
                yield from gridded(f"{prefix}{way}", model, way)
            for weights, ways in SERVED.items() if "qat" in self.tried else ():
                if served := [way for way in ways if way in tried]:
                    aware = {"kind": "QuantizeAware", "model": model, "quantizer": GRIDS[weights]}
                    yield f"{prefix}aware-{weights}", {**aware, "epochs": round(self.epochs / 3, 3)}
                    for way in served:
                        yield from gridded(f"{prefix}qat-{way}", f"{prefix}aware-{weights}", way)

        yield "train", {"kind": "Finetune"}
        yield from offered("train")
        for size in self.sizes if "shrunk" in self.tried else ():
            percent = _percent(size).replace(".", "_")
            cut, small = f"gates-{percent}", f"shrunk-{percent}"
            steps = max(GATE_STEPS, math.ceil(self.epochs * self.steps_per_epoch))
            gates = {"sparsity": size, "steps": steps, "warmup": 0.3, "gate_lr": round(max(0.01, 30 / steps), 3)}
            yield cut, {"kind": "Structured", "teacher": "train", "student": "train", **gates}
            yield small, {"kind": "Distill", "teacher": "train", "student": cut}
            yield from offered(small)


def _listed(name: str, given: Any, kind: type, such: str) -> list[Any]:
    found = list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(one, kind) for one in found):
        raise ValueError(f"{name} lists numbers such as {such}; got {given!r}")
    return found


def _percent(size: float) -> str:
    return f"{100 * size:.4g}"


def _lines(tables: Tables) -> Iterator[str]:
    for name, table in tables.items():
        yield f"[{name}]"
        yield from (f"{toml.key(key)} = {toml.value(value)}" for key, value in table.items() if value is not None)
        yield ""
