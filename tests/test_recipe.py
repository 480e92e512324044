"""A recipe is checked whole before anything runs, and a mistake is answered with the near miss."""

from __future__ import annotations

import sys

import pytest

from trainflat import flat
from trainflat.experiments import plan as planning
from trainflat.experiments.recipe import read, shipped
from trainflat.experiments.resolve import find
from trainflat.experiments.stages import training
from trainflat.experiments.store import canonical, identity

RECIPE = """# Does it work?
# A small claim.
name = "trial"
seeds = [0, 1]

[defaults]
task = "mylab:blobs"
steps = 6

[stage.find]
kind = "Imp"
sparsity = 0.5
rounds = 2

[stage.retrain]
kind = "Finetune"
ticket = "find"

[stage.oneshot]
kind = "OneShot"
model = "retrain"

[sweep]
"find.gradient" = ["plain", { name = "sam", rho = 0.1 }]
"retrain.gradient" = ["plain", { name = "sam", rho = 0.1 }]
"""


@pytest.fixture
def recipe(tmp_path, plugins):
    def write(old: str = "", new: str = ""):
        assert old in RECIPE
        path = tmp_path / "trial.toml"
        path.write_text(RECIPE.replace(old, new) if old else RECIPE)
        return read(str(path))

    return write


def test_stages_that_do_not_differ_are_one_job(recipe):
    planned = planning.plan(recipe())
    counts = {name: sum(job.name == name for job in planned.jobs) for name in ("find", "retrain", "oneshot")}
    assert counts == {"find": 4, "retrain": 8, "oneshot": 8}  # two seeds; find does not depend on retrain's gradient
    assert len(planned.points) == 2 * 4 * 3


def test_the_comment_on_top_is_the_claim(recipe):
    assert recipe().claim == "Does it work?\nA small claim."


def test_parents_come_before_their_children(recipe):
    seen = set()
    for job in planning.plan(recipe()).jobs:
        assert {parent.key for parent in job.parents.values()} <= seen
        seen.add(job.key)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('kind = "Imp"', 'kind = "Impp"', "did you mean 'Imp'"),
        ("sparsity = 0.5", "sparsty = 0.5", "did you mean 'sparsity'"),
        ("sparsity = 0.5", "sparsity = 1.5", "must be in [0, 1)"),
        ("sparsity = 0.5", 'sparsity = "half"', "must be float, got 'half'"),
        ("rounds = 2", "rounds = 0", "at least one round"),
        ("rounds = 2", 'rounds = 2\nprecision = "fp16"', "precision must be 'fp32' or 'bf16', got 'fp16'"),
        ("steps = 6", "setps = 6", "did you mean 'steps'"),
        ("steps = 6", "steps = 0", "steps must be at least 1"),
        ("steps = 6", "epochs = inf", "epochs must be a number above 0, got inf"),
        ('"mylab:blobs"', '"digitz"', "did you mean 'digits'"),
        ('"mylab:blobs"', '"mylab:blob"', "was not found"),
        ('"mylab:blobs"', '{ name = "mylab:blobs", batchsize = 3 }', "did you mean 'batch_size'"),
        ('ticket = "find"', 'ticket = "fnd"', "did you mean 'find'"),
        ('ticket = "find"', 'ticket = "oneshot"', "must name an earlier stage"),
        ('model = "retrain"', "", "needs 'model'"),
        ('rho = 0.1 }]\n"retrain', 'roh = 0.1 }]\n"retrain', "did you mean 'rho'"),
        ('rho = 0.1 }]\n"retrain', 'rho = -1.0 }]\n"retrain', "rho must be at least 0"),
        ('name = "sam", rho = 0.1 }]\n"retrain', 'name = "samm" }]\n"retrain', "did you mean 'sam'"),
        ('"find.gradient"', '"find.gradeint"', "did you mean 'gradient'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "different whole numbers"),
        ("[sweep]", "[swep]", "did you mean 'sweep'"),
        ("seeds = [0, 1]", "seeds = [0, 1", "not valid TOML"),
        ('name = "trial"', 'name = "../trial"', "must be made of letters"),
    ],
)
def test_a_mistake_is_found_while_planning(recipe, old, new, sentence):
    with pytest.raises((ValueError, LookupError)) as caught:
        planning.plan(recipe(old, new))
    assert sentence in str(caught.value)


OWN = """
from dataclasses import dataclass
from trainflat.experiments.resolve import parent

@dataclass(frozen=True, kw_only=True)
class {name}:
    VERSION = 1
    model: str = parent()
    def run(self, work):
        return []

@dataclass(frozen=True)
class Empty:
    pass
"""


@pytest.mark.parametrize(
    ("name", "kinds", "sentence"),
    [
        ("OneShot", ["own_one:OneShot"], "called like a stage of trainflat.experiments.stages.oneshot"),
        ("Probe", ["own_one:Probe", "own_two:Probe"], "own_two:Probe is called like a stage of own_one"),
        ("Bare", ["own_one:Empty"], "with VERSION and run"),
    ],
)
def test_a_stage_of_ones_own_has_a_name_of_its_own(recipe, tmp_path, monkeypatch, name, kinds, sentence):
    for module in ("own_one", "own_two"):
        (tmp_path / f"{module}.py").write_text(OWN.format(name=name))
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    tables = [f'[stage.own-{i}]\nkind = "{kind}"\nmodel = "retrain"\n' for i, kind in enumerate(kinds)]
    with pytest.raises(ValueError, match=sentence):
        planning.plan(recipe("[sweep]", "".join(tables) + "[sweep]"))


@pytest.mark.parametrize("name", ["swa", "ema", "Loss", "barrier", "cka", "trace", "compose"])
def test_what_is_no_rule_is_refused_as_a_gradient(recipe, name):
    with pytest.raises(LookupError) as caught:
        planning.plan(recipe(), overrides={"retrain.gradient": name})
    said = str(caught.value)
    assert f"gradient: {name!r} of trainflat.flat gives no Gradient" in said
    assert {"sam", "plain"} <= known(said)
    assert name not in known(said)


def known(said: str) -> set[str]:
    """The names that an error says it accepts."""
    return set(said.partition("(known: ")[2].partition(")")[0].split(", "))


def test_every_rule_is_accepted_as_a_gradient_and_nothing_else_is_listed(recipe):
    rules = {name for name in flat.__all__ if getattr(flat, name).__annotations__.get("return") == "Gradient"}
    assert len(rules) >= 20
    for name in rules:
        assert find(name, training.GRADIENTS) is getattr(flat, name)
        assert planning.plan(recipe(), overrides={"retrain.gradient": name}).jobs
    with pytest.raises(LookupError, match="there is no 'gradent' in trainflat.flat ") as caught:
        planning.plan(recipe(), overrides={"retrain.gradient": "gradent"})
    assert known(str(caught.value)) == rules


def test_averages_are_accepted_as_an_average_and_rules_are_not(recipe):
    for name in ("ema", "last", "swa"):
        assert planning.plan(recipe(), overrides={"retrain.average": name}).jobs
    with pytest.raises(LookupError, match="there is no 'sam' in trainflat.flat.averages; did you mean 'swa'"):
        planning.plan(recipe(), overrides={"retrain.average": "sam"})


def test_a_gradient_of_ones_own_is_not_looked_at(recipe):
    assert planning.plan(recipe(), overrides={"retrain.gradient": "trainflat.flat:swa"}).jobs


@pytest.mark.parametrize("field", ["gradient", "average"])
def test_a_component_without_a_name_is_told_what_is_missing(recipe, field):
    with pytest.raises(ValueError, match=rf"{field} must be a name or a table with a name, .* got {{'rho': 0.1}}"):
        planning.plan(recipe(), overrides={f"retrain.{field}": {"rho": 0.1}})


def test_an_override_reaches_a_stage_all_stages_or_a_keyword(recipe):
    planned = planning.plan(recipe(), overrides={"*.steps": 3, "find.optimizer.lr": 0.5, "oneshot.sparsities": [0.25]})
    stages = {job.name: job.stage for job in planned.jobs}
    assert stages["find"].steps == stages["retrain"].steps == 3
    assert stages["find"].optimizer.kwargs == {"lr": 0.5}
    assert not stages["retrain"].optimizer.kwargs
    assert stages["oneshot"].sparsities == (0.25,)


def test_a_star_means_the_stages_whose_names_fit(recipe):
    planned = planning.plan(recipe(), overrides={"re*.steps": 3})
    stages = {job.name: job.stage for job in planned.jobs}
    assert stages["retrain"].steps == 3
    assert stages["find"].steps != 3


def test_an_override_that_fits_nothing_is_refused(recipe):
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        planning.plan(recipe(), overrides={"*.stepz": 3})


def test_a_swept_axis_can_be_replaced(recipe):
    planned = planning.plan(recipe(), overrides={"sweep.find.gradient": ["plain"]})
    assert {point["arm"]["find.gradient"] for point in planned.points} == {"plain"}


def test_a_small_size_that_is_not_there_is_told(recipe):
    with pytest.raises(ValueError, match=r"trial has no \[smoke\]; write its small size there"):
        planning.plan(recipe(), smoke=True)


@pytest.mark.parametrize(
    "axes",
    [
        '"task.batch_size" = [8, 16]\n"task.explode_at" = [1, 2]',
        'task = ["mylab:blobs", "digits"]\n"task.name" = ["a"]',
    ],
)
def test_two_keywords_of_the_task_are_two_axes(recipe, axes):
    swept = recipe('"find.gradient" = ["plain", { name = "sam", rho = 0.1 }]', axes)
    arms = [
        tuple(variant.arm.items())
        for variant in swept.variants(
            {name: {"task": None, "gradient": None} for name in ("find", "retrain", "oneshot")}, {}
        )
    ]
    assert len(set(arms)) == len(arms)
    assert [axis for axis, _ in arms[0]] == ["task", axes.splitlines()[1].split('"')[1], "retrain.gradient"]


def test_when_applies_to_its_point_of_the_sweep_only(recipe):
    rule = '[[when]]\n"find.gradient" = "plain"\nset = { "find.steps" = 4 }\n[sweep]'
    planned = planning.plan(recipe("[sweep]", rule))
    steps = {job.stage.gradient.name: job.stage.steps for job in planned.jobs if job.name == "find"}
    assert steps == {"plain": 4, "sam": 6}


def test_when_can_skip_stages_and_name_several_labels(recipe):
    labels = '"find.gradient" = ["plain", "sam(rho=0.1)"]\n"retrain.gradient" = "sam(rho=0.1)"'
    rule = f'[[when]]\n{labels}\nskip = ["oneshot"]\n[sweep]'
    planned = planning.plan(recipe("[sweep]", rule))
    arms = [point["arm"] for point in planned.points if point["stage"] == "oneshot"]
    assert arms
    assert {arm["retrain.gradient"] for arm in arms} == {"plain"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('"find.gradient" = "plane"\nskip = ["oneshot"]', "did you mean 'plain'"),
        ('"find.gradients" = "plain"\nskip = ["oneshot"]', "did you mean 'find.gradient'"),
        ('"find.gradient" = "plain"\nskip = ["oneshoot"]', "did you mean 'oneshot'"),
        ('"find.gradient" = "plain"', "needs a table 'set'"),
        ('"find.gradient" = "plain"\nskip = ["find"]', "must name an earlier stage"),
    ],
)
def test_a_when_that_cannot_be_is_told(recipe, rule, said):
    with pytest.raises(ValueError) as error:
        planning.plan(recipe("[sweep]", f"[[when]]\n{rule}\n[sweep]"))
    assert said in str(error.value)


def test_defaults_are_part_of_the_identity_and_none_is_absent():
    assert canonical({"a": None, "b": 1.0, "c": (1, 2)}) == {"b": 1, "c": [1, 2]}
    one = identity("Imp", 1, {"rho": 0.05}, {}, 0)
    assert one == identity("Imp", 1, {"rho": 0.05, "new": None}, {}, 0)
    assert len({one, *(identity("Imp", *rest) for rest in different())}) == 5


def different():
    """Each differs from version 1, rho 0.05, no parents, seed 0 in one thing."""
    return [
        (2, {"rho": 0.05}, {}, 0),
        (1, {"rho": 0.06}, {}, 0),
        (1, {"rho": 0.05}, {"ticket": "imp-0"}, 0),
        (1, {"rho": 0.05}, {}, 1),
    ]


def test_writing_a_default_out_changes_no_identity(recipe):
    plain = {job.key for job in planning.plan(recipe()).jobs}
    spelt = recipe("rounds = 2", 'rounds = 2\nscore = "magnitude"\nlr = { name = "linear", start = 1, end = 0.0 }')
    assert {job.key for job in planning.plan(spelt).jobs} == plain


def test_every_shipped_recipe_plans_with_its_smoke_size():
    seen = 0
    for name in shipped():
        assert planning.plan(read(name), smoke=True).jobs
        assert read(name).claim
        seen += 1
    assert seen >= 4
