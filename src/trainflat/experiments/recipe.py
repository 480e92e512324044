"""A recipe: stages in order, each naming the ones it builds on; a sweep is a product of overrides."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from trainflat.experiments.resolve import near

__all__ = ["Recipe", "Variant", "group", "locate", "read", "shipped"]

Fields = Mapping[str, Mapping[str, Any]]
TOP = {"name", "seeds", "defaults", "stage", "sweep", "when", "smoke"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One point of the sweep: a label on every axis, and the tables of all stages with the overrides applied."""

    arm: dict[str, str]
    stages: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe file as read: nothing in it is resolved yet."""

    name: str
    claim: str
    document: dict[str, Any]

    def seeds(self, smoke: bool = False) -> list[int]:
        """The seeds it asks for."""
        document = {**self.document, **(self.document.get("smoke", {}) if smoke else {})}
        return document.get("seeds", [0])

    def variants(self, fields: Fields, overrides: Mapping[str, Any], smoke: bool = False) -> Iterator[Variant]:
        """Every point of the sweep.

        Later wins: [defaults], [stage.*], [sweep], [[when]], [smoke], ``overrides``.

        Args:
            fields: The fields of each stage and their defaults, to know what an override reaches.
            overrides: ``{"STAGE.FIELD": value}``; ``*`` or no stage for every stage that has the field, ``*-int8`` for
                those that end so.
            smoke: Apply the recipe's [smoke] as well.
        """
        small = dict(self.document.get("smoke", {})) if smoke else {}
        small.pop("seeds", None)
        axes = {**self.document.get("sweep", {}), **small.pop("sweep", {})}
        axes |= {key.removeprefix("sweep."): value for key, value in overrides.items() if key.startswith("sweep.")}
        overrides = {key: value for key, value in overrides.items() if not key.startswith("sweep.")}
        called = _axis_names(axes)
        named = {called[axis]: _alternatives(self.name, axis, values) for axis, values in axes.items()}
        rules = self._rules()
        for choice in itertools.product(*(alternatives.items() for alternatives in named.values())):
            arm = {axis: label for axis, (label, _) in zip(named, choice, strict=True)}
            stages = {
                name: _with_defaults(table, self.document.get("defaults", {}), fields[name])
                for name, table in self.document["stage"].items()
            }
            here = [rule for rule in rules if _holds(rule, arm)]
            whens = [rule.get("set", {}) for rule in here]
            for changes in [*(change for _, change in choice), *whens, small, overrides]:
                for key, value in changes.items():
                    _override(stages, fields, key, value, self.name)
            left_out = {name for rule in here for name in rule.get("skip", [])}
            yield Variant(arm, {name: table for name, table in stages.items() if name not in left_out})

    def _rules(self) -> list[dict[str, Any]]:
        """The [[when]] tables, checked against the sweep and the stages."""
        rules = self.document.get("when", [])
        sweep = self.document.get("sweep", {})
        called = _axis_names(sweep)
        labels = {called[axis]: set(_alternatives(self.name, axis, values)) for axis, values in sweep.items()}
        for rule in rules:
            if not (isinstance(rule.get("set"), dict) or isinstance(rule.get("skip"), list)):
                raise ValueError(
                    f"a [[when]] of {self.name} needs a table 'set' with its overrides, or a list 'skip' of stages"
                )
            for axis, wanted in _about(rule).items():
                if axis not in labels:
                    raise ValueError(
                        f"a [[when]] of {self.name} names the axis {axis!r}, which the sweep has not{near(axis, labels)}"
                    )
                for label in wanted if isinstance(wanted, list) else [wanted]:
                    if label not in labels[axis]:
                        raise ValueError(
                            f"a [[when]] of {self.name} names {label!r}, which {axis!r} has not{near(str(label), labels[axis])}"
                        )
            for stage in rule.get("skip", []):
                if stage not in self.document["stage"]:
                    raise ValueError(
                        f"a [[when]] of {self.name} skips {stage!r}, which is no stage{near(stage, self.document['stage'])}"
                    )
        return rules


def shipped() -> dict[str, Path]:
    """The recipes that come with trainflat, by name."""
    folder = Path(str(resources.files("trainflat"))) / "recipes"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def group(name: str) -> list[str]:
    """The shipped recipes of a group, which is the folder they are in; or the name itself.

    >>> len(group("paper")) > 1, group("quickstart")
    (True, ['quickstart'])
    """
    return [known for known in shipped() if known.startswith(f"{name}/")] or [name]


def locate(name: str) -> Path:
    """A recipe's file: a path that ends in .toml, or the name of a shipped one.

    Raises:
        LookupError: If there is none, with the near miss.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise LookupError(f"there is no recipe file {name}")
        return Path(name)
    if name not in shipped():
        raise LookupError(
            f"there is no recipe {name!r}{near(name, shipped())}; a file of your own is given by its path, ending in .toml"
        )
    return shipped()[name]


def read(name: str) -> Recipe:
    """Read and check a recipe's outline: its top level, its stages, its sweep.

    Raises:
        LookupError: If there is no such recipe.
        ValueError: If it is not TOML or its outline is wrong.
    """
    path = locate(name)
    text = path.read_text(encoding="utf-8")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    for key in document:
        if key not in TOP:
            raise ValueError(f"{path.name} has an unknown key {key!r} at its top level{near(key, TOP)}")
    if not isinstance(document.get("stage"), dict) or not document["stage"]:
        raise ValueError(f'{path.name} has no stages; write at least one, such as [stage.train] with kind = "Finetune"')
    for stage, table in document["stage"].items():
        if not isinstance(table, dict) or "kind" not in table:
            raise ValueError(f'[stage.{stage}] of {path.name} needs a kind, such as kind = "Finetune"')
    title = document.get("name", path.stem)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", title):
        raise ValueError(f"the name {title!r} of {path.name} must be made of letters, digits, '-', '_' and '.'")
    check_seeds(document.get("seeds", [0]))
    return Recipe(title, _header(text), document)


def check_seeds(seeds: Any) -> Sequence[int]:
    """The seeds if they are a list of different whole numbers from 0 on.

    Raises:
        ValueError: If not.
    """
    fine = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not fine or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be a list of different whole numbers from 0 on, such as [0, 1, 2]; got {seeds!r}")
    return seeds


def _header(text: str) -> str:
    """The comment on top of the file: the claim, its source, its cost."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.lstrip("#").strip() for line in lines).strip()


def _alternatives(recipe: str, axis: str, values: Any) -> dict[str, dict[str, Any]]:
    """An axis as ``{label: overrides}``: a list of values for one key, or a table of named sets of overrides."""
    if isinstance(values, list) and values:
        return {_label(value): {axis: value} for value in values}
    if isinstance(values, dict) and values and all(isinstance(changes, dict) for changes in values.values()):
        return values
    raise ValueError(
        f"the sweep axis {axis!r} of {recipe} must be a list of values or a table of named overrides; got {values!r}"
    )


def _axis_names(axes: Iterable[str]) -> dict[str, str]:
    """What each axis is called in rows: its key, but the task, or else the first keyword of it, is "task".

    >>> _axis_names(["task.subset", "gradient"]), _axis_names(["task.subset", "task.model"])
    ({'task.subset': 'task', 'gradient': 'gradient'}, {'task.subset': 'task', 'task.model': 'task.model'})
    """
    names = {axis: axis for axis in axes}
    if "task" not in names and (first := next((axis for axis in names if axis.startswith("task.")), None)):
        names[first] = "task"
    return names


def _label(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({inside})" if inside else str(value.get("name", value))
    return str(value)


def _holds(rule: Mapping[str, Any], arm: Mapping[str, str]) -> bool:
    """Whether a [[when]] is about this point: on each axis that it names the label is its label, or one of its list."""
    return all(arm.get(axis) in (label if isinstance(label, list) else [label]) for axis, label in _about(rule).items())


def _about(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The axes and labels of a [[when]]."""
    return {axis: label for axis, label in rule.items() if axis not in ("set", "skip")}


def _with_defaults(table: Mapping[str, Any], defaults: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in defaults.items() if key in fields}, **table}


def _override(stages: dict[str, dict[str, Any]], fields: Fields, key: str, value: Any, recipe: str) -> None:
    """Set ``stage.field``, ``*.field`` or ``field``, or a keyword of a component, ``stage.field.keyword``."""
    first, *rest = key.split(".")
    if first in stages:
        targets, path = [first], rest
    else:
        path = rest if "*" in first else [first, *rest]
        meant = fnmatch.filter(stages, first if "*" in first else "*")
        targets = [name for name in meant if path and path[0] in fields[name]]
    if not path:
        raise ValueError(f"{key!r} names a stage of {recipe} but no field; write {first}.FIELD")
    if not targets or path[0] not in fields[targets[0]]:
        known = fields[first] if first in stages else {*stages, *itertools.chain(*fields.values())}
        raise ValueError(f"{recipe} has nothing that {key!r} could set{near(path[0], known)}")
    for name in targets:
        table = stages[name]
        if len(path) == 1:
            table[path[0]] = value
        else:
            now = table.get(path[0], fields[name][path[0]])
            now = dict(now) if isinstance(now, dict) else {"name": now}
            table[path[0]] = {**now, ".".join(path[1:]): value}
