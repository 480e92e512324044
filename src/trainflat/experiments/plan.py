"""From a recipe to the stages that have to exist: everything is resolved and checked here, before anything runs."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from trainflat.experiments import stages
from trainflat.experiments.changes import changes
from trainflat.experiments.recipe import Recipe, check_seeds
from trainflat.experiments.resolve import Spec, check, files_behind, find, look_anew, near
from trainflat.experiments.resources import Resources
from trainflat.experiments.store import identity

__all__ = ["Job", "Plan", "plan"]


@dataclasses.dataclass(frozen=True)
class Job:
    """One stage with one seed, and what it builds on."""

    name: str
    stage: Any
    seed: int
    key: str
    parents: dict[str, Job]
    settings: dict[str, Any]
    resources: Resources = Resources()

    @property
    def kind(self) -> str:
        """The stage's class, as a recipe names it."""
        return type(self.stage).__name__


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs in an order in which they can run, each once, and the points of the sweep that they serve.

    ``plan(recipe, **asked)`` makes the same plan again, on another machine for instance; ``changed`` is what of that makes it
    another than the recipe's own.
    """

    recipe: Recipe
    jobs: list[Job]
    points: list[dict[str, Any]]
    asked: dict[str, Any] = dataclasses.field(default_factory=dict)
    changed: list[str] = dataclasses.field(default_factory=list)


def plan(
    recipe: Recipe,
    *,
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    smoke: bool = False,
) -> Plan:
    """Resolve every stage for every seed and point of the sweep; stages that don't differ are one job.

    Files are looked at as they are now: after a change of the data, another plan in the same process has other stages.

    Raises:
        ValueError, LookupError: For any unknown name, keyword or field and any value that cannot be, naming the near miss.
    """
    if smoke and "smoke" not in recipe.document:
        raise ValueError(f"{recipe.name} has no [smoke]; write its small size there, such as steps = 4 and seeds = [0]")
    _resolutions.clear()
    look_anew()
    tables = recipe.document["stage"]
    kinds = {name: _kind(recipe.name, name, table["kind"]) for name, table in tables.items()}
    _check_kinds(recipe.name, kinds)
    fields = {name: {f.name: _default(f) for f in _keys(kind).values()} for name, kind in kinds.items()}
    for key in recipe.document.get("defaults", {}):
        if not any(key in known for known in fields.values()):
            raise ValueError(
                f"no stage of {recipe.name} has the field {key!r} of [defaults]{near(key, set().union(*fields.values()))}"
            )
    seeds = check_seeds(list(recipe.seeds(smoke) if seeds is None else seeds))
    jobs: dict[str, Job] = {}
    points: dict[tuple[str, ...], dict[str, Any]] = {}
    parsed = [
        (
            variant.arm,
            {
                name: _parse(recipe.name, name, kinds[name], table, variant.stages)
                for name, table in variant.stages.items()
            },
        )
        for variant in recipe.variants(fields, overrides or {}, smoke)
    ]
    for seed in seeds:
        for arm, built in parsed:
            here: dict[str, Job] = {}
            for name, (stage, settings, resources) in built.items():
                parents = {
                    f.name: here[getattr(stage, f.name)]
                    for f in dataclasses.fields(stage)
                    if f.metadata.get("parent") and getattr(stage, f.name) is not None
                }
                keys = {field: job.key for field, job in parents.items()}
                if hasattr(stage, "check_parents"):
                    _check_parents(recipe.name, name, stage, parents)
                key = identity(type(stage).__name__, stage.VERSION, settings, keys, seed)
                here[name] = jobs.setdefault(key, Job(name, stage, seed, key, parents, settings, resources))
                points.setdefault((key, *arm.values()), {"arm": arm, "stage": name, "seed": seed, "key": key})
    asked = {"overrides": dict(overrides or {}), "seeds": list(seeds), "smoke": smoke}
    idle = {
        name: {f.name for f in _keys(kind).values() if not f.metadata.get("hashed", True)}
        for name, kind in kinds.items()
    }
    changed = changes(recipe, fields, idle, overrides or {}, smoke)
    return Plan(recipe, list(jobs.values()), list(points.values()), asked, changed)


def _check_parents(recipe: str, name: str, stage: Any, parents: Mapping[str, Job]) -> None:
    try:
        stage.check_parents({field: job.stage for field, job in parents.items()})
    except ValueError as error:
        raise ValueError(f"[stage.{name}] of {recipe}: {error}") from error


def _keys(kind: type) -> dict[str, dataclasses.Field]:
    """What a stage's table may hold: its own fields, and the resources that every stage may ask for."""
    return {f.name: f for f in [*dataclasses.fields(Resources), *dataclasses.fields(kind)]}


def _default(f: dataclasses.Field) -> Any:
    return {"name": f.default.name, **f.default.kwargs} if isinstance(f.default, Spec) else None


def _kind(recipe: str, name: str, kind: str) -> type:
    try:
        found = find(kind, (stages.__name__,))
    except LookupError as error:
        raise LookupError(f"[stage.{name}] of {recipe}: {error}") from error
    if not (dataclasses.is_dataclass(found) and isinstance(found, type) and {"VERSION", "run"} <= {*dir(found)}):
        raise ValueError(
            f"[stage.{name}] of {recipe}: {kind!r} is not a stage; a stage is a frozen dataclass with VERSION and run(work)"
        )
    return found


def _check_kinds(recipe: str, kinds: Mapping[str, type]) -> None:
    """No two stages by one name: a result is known by its stage's name, so one would be taken for the other's."""
    shipped = [getattr(stages, name) for name in stages.__all__ if name in {kind.__name__ for kind in kinds.values()}]
    known: dict[str, type] = {kind.__name__: kind for kind in shipped}
    for name, kind in kinds.items():
        other = known.setdefault(kind.__name__, kind)
        if other is not kind:
            raise ValueError(
                f"[stage.{name}] of {recipe}: {kind.__module__}:{kind.__name__} is called like a stage of {other.__module__}, "
                f"whose results would be taken for its own; give the class another name"
            )


def _parse(
    recipe: str, name: str, kind: type, table: Mapping[str, Any], all_stages: Mapping[str, Any]
) -> tuple[Any, dict, Resources]:
    """The stage object, the settings that decide its result (all fields with defaults, parents left out), and the resources."""
    where = f"[stage.{name}] of {recipe}"
    table = {key: value for key, value in table.items() if key != "kind"}
    known, own = _keys(kind), {f.name for f in dataclasses.fields(kind)}
    hints = {**typing.get_type_hints(Resources), **typing.get_type_hints(kind, include_extras=True)}
    earlier = list(all_stages)[: list(all_stages).index(name)]
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: {kind.__name__} has no field {key!r}{near(key, known)}")
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for key, f in known.items():
        if key not in table:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where}: {kind.__name__} needs {key!r}")
            value = f.default
        else:
            value = table[key]
        if "homes" in f.metadata and value is not None:
            value = Spec.parse(value, f"{where}: {key}")
            settings[key] = _resolved(value, f.metadata, f"{where}: {key}")
        elif f.metadata.get("parent"):
            if value is not None and value not in earlier:
                raise ValueError(f"{where}: {key} = {value!r} must name an earlier stage{near(str(value), earlier)}")
        else:
            value = _fitting(value, hints[key], f"{where}: {key}")
            if f.metadata.get("hashed", True):
                settings[key] = value
        values[key] = value
    try:
        resources = Resources(**{key: value for key, value in values.items() if key not in own})
        return kind(**{key: value for key, value in values.items() if key in own}), settings, resources
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


_resolutions: dict[str, dict[str, Any]] = {}


def _resolved(spec: Spec, metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A component with all its defaults, and the fingerprint of the files behind it where it has one."""
    memo = f"{metadata['homes']} {spec.name} {sorted(spec.kwargs.items(), key=str)}"
    if memo not in _resolutions:
        try:
            keywords = check(spec, metadata["homes"], metadata["given"])
            files = files_behind(spec, metadata["homes"])
        except (LookupError, ValueError, TypeError, FileNotFoundError) as error:
            raise type(error)(f"{where}: {error.args[0] if error.args else error}") from error
        _resolutions[memo] = {"name": spec.name, **keywords, "fingerprint": files}
    return _resolutions[memo]


def _fitting(value: Any, hint: Any, where: str) -> Any:
    """The value if it is of the annotated type; a whole number serves where a float is asked for, a list for a tuple."""
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    for option in options:
        origin, inside = typing.get_origin(option), typing.get_args(option)
        if option is type(None) and value is None:
            return None
        if origin is typing.Literal:
            if value in inside:
                return value
        elif origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_fitting(item, inside[0], where) for item in value)
        elif option is float and type(value) in (int, float):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    accepted = " or ".join(_said(option) for option in options if option is not type(None))
    raise ValueError(f"{where} must be {accepted}, got {value!r}")


def _said(hint: Any) -> str:
    """A type as an error names it; of a Literal what it accepts.

    >>> _said(float), _said(tuple[int, ...]), _said(typing.Literal["fp32", "bf16"])
    ('float', 'tuple', "'fp32' or 'bf16'")
    """
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint)).replace("typing.", "")
