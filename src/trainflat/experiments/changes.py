"""What was asked of a recipe beyond what it says: the overrides that change what it computes, and its small size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from trainflat.experiments import toml
from trainflat.experiments.recipe import Fields, Recipe

__all__ = ["changes"]


def changes(
    recipe: Recipe, fields: Fields, idle: Mapping[str, Collection[str]], overrides: Mapping[str, Any], smoke: bool
) -> list[str]:
    """The options that make a run another one than the recipe's, as they are typed.

    An override counts if, alone, it gives any stage of any point of the sweep another table than the recipe does, or makes a
    point that the recipe has not. One that repeats the recipe, leaves points out or asks for a machine changes nothing. What a
    recipe leaves to a default is not known here: to spell that out counts as a change.

    Args:
        recipe: The recipe.
        fields: As for `Recipe.variants`.
        idle: The fields of each stage that cannot change a result.
        overrides: As for `Recipe.variants`.
        smoke: Whether it is the recipe's small size.

    Example:
        >>> recipe = Recipe("r", "", {"stage": {"train": {"epochs": 10}}, "sweep": {"train.lr": [1, 2]}})
        >>> asked = {"train.epochs": 3, "train.gpus": 1, "sweep.train.lr": [2]}
        >>> changes(recipe, {"train": {"epochs": None, "lr": None, "gpus": None}}, {"train": {"gpus"}}, asked, smoke=False)
        ['--set train.epochs=3']
    """
    points = _points(recipe, fields, idle, {}, smoke) if overrides else {}
    told = [
        f"--set {key}={toml.value(value)}"
        for key, value in overrides.items()
        if any(points.get(arm) != stages for arm, stages in _points(recipe, fields, idle, {key: value}, smoke).items())
    ]
    return [*told, *["--smoke"] * smoke]


def _points(
    recipe: Recipe, fields: Fields, idle: Mapping[str, Collection[str]], overrides: Mapping[str, Any], smoke: bool
) -> dict[tuple[tuple[str, str], ...], dict[str, dict[str, Any]]]:
    """The tables of all stages at every point of the sweep, without what cannot change a result."""
    return {
        tuple(variant.arm.items()): {
            name: {key: value for key, value in table.items() if key not in idle[name]}
            for name, table in variant.stages.items()
        }
        for variant in recipe.variants(fields, overrides, smoke)
    }
