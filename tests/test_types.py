"""The shapes in signatures are checked at every call in this suite, and never for a user."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from shapecheck import names_an_array
from torch import nn

import trainflat
from trainflat import train
from trainflat.hf.tokens import Encoded
from trainflat.tasks.classification import accuracy
from trainflat.tasks.zoo import Attention

ROOT = Path(trainflat.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if "from jaxtyping import" in path.read_text())
THREE_TEXTS = {"ids": np.zeros(6, np.int32), "offsets": np.array([0, 1, 3, 6]), "padding": 0}


def name_of(path: Path) -> str:
    """The module that a file is."""
    return ".".join(("trainflat", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """The annotations of a module's functions and fields, and the aliases that it makes for them, if they name an array."""
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping"]
    dtypes = {alias.name for node in imported for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            found = [node.returns, *(argument.annotation for argument in arguments if argument)]
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            found = [node.annotation if isinstance(node, ast.AnnAssign) else node.value]
        else:
            found = []
        for each in found:
            if each and dtypes & {part.id for part in ast.walk(each) if isinstance(part, ast.Name)}:
                yield each


@pytest.mark.parametrize(
    ("call", "axis"),
    [
        (lambda: train.cross_entropy(nn.Identity(), (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))), "batch=3"),
        (lambda: train.mean_squared_error(nn.Identity(), (torch.zeros(3, 1), torch.zeros(2))), "batch=3"),
        (lambda: accuracy(np.zeros((2, 3)), np.zeros(1, np.int64)), "batch=2"),
        (lambda: Attention(4, 2)(torch.zeros(3, 5, 4), torch.ones(3, 1, 1, 6, dtype=torch.bool)), "seq=5"),
        (lambda: Encoded(**THREE_TEXTS, types=np.zeros(5, np.uint8)), "tokens=6"),
    ],
    ids=["cross_entropy", "mean_squared_error", "accuracy", "Attention", "Encoded"],
)
def test_a_mismatched_axis_is_refused_by_name(call, axis):
    with pytest.raises(TypeCheckError, match=f"(?m)^{axis}$"):
        call()


def test_a_wrong_dtype_is_refused():
    with pytest.raises(TypeCheckError, match="'labels'"):
        train.cross_entropy(nn.Identity(), (torch.zeros(3, 4), torch.zeros(3)))
    with pytest.raises(TypeCheckError, match="'ids'"):
        Encoded(**{**THREE_TEXTS, "ids": np.zeros(6, np.float64)}, types=None)


def test_every_file_that_names_an_array_is_checked():
    unchecked = []
    for path in FILES:
        loader = importlib.import_module(name_of(path)).__spec__.loader
        if not type(loader).__module__.startswith("jaxtyping"):
            unchecked.append(name_of(path))
    assert unchecked == []
    assert len(FILES) >= 10


def test_what_names_an_array_is_wrapped_and_what_names_none_is_spared():
    """What jaxtyping wraps it marks with ``__wrapped__``."""
    wrapped = []
    for path in FILES:
        module = importlib.import_module(name_of(path))
        body = ast.parse(path.read_text()).body
        imports = [node for node in body if isinstance(node, ast.ImportFrom)]
        for node in [node for node in body if isinstance(node, ast.FunctionDef)]:
            node.body = []  # what is inside has annotations of its own
            hints = [
                eval(ast.unparse(each), dict(vars(module))) for each in annotations(ast.Module([*imports, node], []))
            ]
            if any(map(names_an_array, hints)):
                wrapped.append(hasattr(getattr(module, node.name), "__wrapped__"))
    assert all(wrapped)
    assert len(wrapped) >= 20
    assert not hasattr(trainflat.reports.results, "__wrapped__")


def test_every_annotation_that_names_an_array_can_be_read():
    """jaxtyping takes what it cannot evaluate (a name under TYPE_CHECKING, an axis misspelt) for `Any`, and says nothing."""
    unread, seen = [], 0
    for path in FILES:
        names = vars(importlib.import_module(name_of(path)))
        for each in annotations(ast.parse(path.read_text())):
            seen += 1
            try:
                eval(ast.unparse(each), dict(names))
            except Exception as error:
                unread.append(f"{name_of(path)}: {ast.unparse(each)}: {error!r}")
    assert unread == []
    assert seen >= 40


def test_axes_are_of_one_vocabulary():
    page = Path(__file__).parents[1] / "CONTRIBUTING.md"
    vocabulary = set(re.findall(r"(?m)^\| `(\w+)` \|", page.read_text()))
    used: dict[str, str] = {}
    for path in FILES:
        for each in annotations(ast.parse(path.read_text())):
            for text in (part.value for part in ast.walk(each) if isinstance(part, ast.Constant)):
                axes = [axis.lstrip("*#") for axis in text.split()] if isinstance(text, str) else []
                used |= {axis: name_of(path) for axis in axes if axis not in ("...", "_") and not axis.isdigit()}
    assert {axis: path for axis, path in used.items() if axis not in vocabulary} == {}
    assert {"batch", "seq", "classes"} <= used.keys()


def test_no_example_is_lost_by_the_checking():
    lost, seen = [], 0
    for path in FILES:
        nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.ClassDef)))
        named = {node.name for node in nodes if ">>>" in (ast.get_docstring(node) or "")}
        tests = doctest.DocTestFinder().find(importlib.import_module(name_of(path)))
        found = {test.name.rpartition(".")[2] for test in tests if test.examples}
        seen += len(found)
        lost += [f"{name_of(path)}.{name}" for name in named - found]
    assert lost == []
    assert seen >= 10


def test_without_the_suite_nothing_is_checked():
    code = """
import sys
import numpy as np, torch
from trainflat import train
from trainflat.tasks.classification import accuracy
print(accuracy(np.zeros((2, 3)), np.zeros(1, np.int64)), train.cross_entropy.__code__.co_filename.endswith("objectives.py"))
print("beartype" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["{'accuracy': 1.0} True", "False"]
