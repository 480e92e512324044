"""Who may import whom. Read from the source, so that an import inside a function counts as well where it should."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trainflat

ROOT = Path(trainflat.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LAYERS = ("compress", "deploy", "experiments", "export", "flat", "hf", "int8", "reports", "tasks", "train")
HUGGING_FACE = {"transformers", "datasets", "huggingface_hub", "accelerate"}
HEAVY = HUGGING_FACE | {
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "pandas",
    "tokenizers",
    "ray",
    "lightning",
}


def layer(path: Path) -> str:
    """The package below trainflat that a file is in; for a file at the top, its own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Every module a file imports; with ``at_import_time`` not those inside functions or for type checkers only."""
    package = ["trainflat", *path.relative_to(ROOT).parts[:-1]]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_import_time and (inside or for_types)):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(path.read_text()))
    return found


def offences(
    layers: tuple[str, ...], forbidden: tuple[str, ...], *, at_import_time: bool = False
) -> tuple[list[str], int]:
    """Imports of a forbidden module (or below it) in some layers, and how many files were read."""
    found, seen = [], 0
    for path in FILES:
        if layer(path) in layers:
            seen += 1
            for name in sorted(imports(path, at_import_time=at_import_time)):
                if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden):
                    found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found, seen


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after running the code."""
    report = "\nimport sys; print('\\n'.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_layer_was_seen():
    assert {layer(path) for path in FILES} >= {*LAYERS, "types", "testing", "cli", "__init__"}
    assert len(FILES) >= 40
    assert sum("import" in path.read_text() for path in FILES) >= 40


def test_train_flat_compress_and_tasks_never_import_hugging_face():
    layers = ("train", "flat", "compress", "tasks", "types", "testing")
    found, seen = offences(layers, ("trainflat.hf", *HUGGING_FACE))
    assert found == []
    assert seen >= 20


def test_only_hf_imports_hugging_face():
    others = tuple({layer(path) for path in FILES} - {"hf"})
    found, seen = offences(others, tuple(HUGGING_FACE))
    assert found == []
    assert seen >= 30
    within, _ = offences(("hf",), tuple(HUGGING_FACE))
    assert within, "hf imports them, or this test reads nothing"


def test_only_one_file_imports_lightning():
    found, _ = offences(tuple({layer(path) for path in FILES} - {"lightning"}), ("lightning", "trainflat.lightning"))
    assert found == []
    assert offences(("lightning",), ("lightning",))[0]


@pytest.mark.parametrize(("one", "other"), [("flat", "compress"), ("compress", "flat")])
def test_flat_and_compress_do_not_know_each_other(one, other):
    found, seen = offences((one,), (f"trainflat.{other}",))
    assert found == []
    assert seen >= 2


def test_train_stands_below_all_others():
    found, seen = offences(("train", "types"), tuple(f"trainflat.{name}" for name in LAYERS if name != "train"))
    assert found == []
    assert seen >= 8


def test_tasks_and_hf_do_not_import_what_stands_above_them():
    found, seen = offences(
        ("flat", "compress", "tasks", "hf"), ("trainflat.experiments", "trainflat.reports", "trainflat.cli")
    )
    assert found == []
    assert seen >= 15


def test_reports_never_import_torch():
    found, seen = offences(
        ("reports",), ("torch", "trainflat.train", "trainflat.flat", "trainflat.compress", "trainflat.tasks")
    )
    assert found == []
    assert seen >= 4
    assert not loaded_by("import trainflat.reports") & (HUGGING_FACE | {"torch"})


def test_experiments_reach_hf_by_name_only():
    found, seen = offences(("experiments",), ("trainflat.hf",))
    assert found == []
    assert seen >= 6


def test_the_command_line_imports_heavy_things_only_inside_functions():
    heavy = (*HEAVY, *(f"trainflat.{name}" for name in ("compress", "flat", "hf", "tasks", "train", "testing")))
    found, seen = offences(("cli",), heavy, at_import_time=True)
    assert found == []
    assert seen >= 1
    assert not loaded_by("import trainflat.cli") & HEAVY


def test_importing_trainflat_loads_nothing_heavy():
    assert not loaded_by("import trainflat") & HEAVY


def test_the_public_packages_load_no_hugging_face():
    found = loaded_by("from trainflat import compress, experiments, flat, hf, reports, tasks, testing, train")
    assert "torch" in found
    assert not found & HUGGING_FACE


@pytest.mark.parametrize("name", ["typo", "Compress"])
def test_a_package_that_is_not_there_is_an_attribute_error_with_the_list(name):
    with pytest.raises(
        AttributeError, match=f"module 'trainflat' has no attribute '{name}'; it has compress, compress_text"
    ):
        getattr(trainflat, name)


def test_what_is_public_is_named_to_editors_and_type_checkers_before_it_is_loaded():
    assert set(trainflat.__all__) <= {name.rpartition(".")[2] for name in imports(ROOT / "__init__.py")}
    assert not loaded_by("import trainflat; assert set(trainflat.__all__) <= set(dir(trainflat))") & HEAVY
    assert (ROOT / "py.typed").is_file()  # PEP 561: without it checkers take no annotation of ours


@pytest.mark.parametrize("package", ["experiments", "reports"])
def test_what_a_package_names_as_public_can_be_had_from_it(package):
    code = f"from trainflat import {package} as it; print([name for name in it.__all__ if not hasattr(it, name)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_says_what_it_is_and_what_is_public():
    silent = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        assigned = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
        if not ast.get_docstring(tree) or ("__all__" not in assigned and path.name != "__main__.py"):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []
