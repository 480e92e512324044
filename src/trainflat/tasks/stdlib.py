"""Short English texts that every Python installation carries: first paragraphs of the standard library's docstrings.

The sources are read, never imported. Which texts there are depends on the Python version. What was read is kept on disk, since
parsing six megabytes takes seconds.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainflat.cache import cache_folder, keep

__all__ = ["AREAS", "LEAST", "MOST", "Function", "digest", "functions", "texts"]

AREAS: dict[str, str] = {
    "networking": "cgi cgitb ftplib http imaplib ipaddress mailcap netrc nntplib poplib smtpd smtplib socket "
    "socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc",
    "text and documents": "_markupbase base64 codecs configparser csv difflib email gettext html json locale mailbox "
    "mimetypes plistlib pprint quopri re shlex string stringprep textwrap tomllib xml",
    "concurrency": "_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched "
    "selectors signal subprocess threading",
    "numbers and dates": "_pydatetime _pydecimal _strptime bisect calendar colorsys datetime decimal fractions heapq "
    "numbers random secrets statistics uuid zoneinfo",
    "files and archives": "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip io lzma ntpath "
    "os pathlib posixpath shelve shutil stat tarfile tempfile zipapp zipfile zipimport",
    "graphics": "tkinter turtle",
    "tools for Python": "ast bdb code codeop dis doctest importlib inspect pdb profile pstats py_compile pyclbr pydoc "
    "symtable timeit tokenize trace traceback tracemalloc unittest",
}
"""The area of the library (the class of a text) and its top-level modules; one that a version lacks adds nothing."""

LEAST, MOST = 60, 400  # texts of an area: fewer and there is nothing to learn, more and the classes are unbalanced
WORDS = 5, 32  # words of a text: shorter paragraphs are skipped, longer ones cut
TESTS = {"test", "tests", "__pycache__"}


@dataclass(frozen=True)
class Function:
    """What the source says of a function or method.

    Attributes:
        arguments: The parameters of its signature, without a method's ``self`` or ``cls``; ``*args`` is one, ``**kwargs`` too.
        returns: Whether its own body returns or yields a value; None where there is no body but ``pass``, ``...`` or ``raise``.
    """

    arguments: int
    returns: bool | None


Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Read = tuple[tuple[str, dict[str, tuple[Function, ...]]], ...]  # of each area, its texts and their functions


def texts() -> dict[str, tuple[str, ...]]:
    """The texts of each area, in the order of `AREAS`, at most `MOST` of each.

    A text is the first paragraph of the docstring of a module, class or function, on one line, cut after 32 words. Of
    texts that differ in case only, one is kept; one that occurs in two areas is in neither. Of too many, those
    with the smallest SHA-256 stay: a fixed sample that does not move when one text is added.

    Raises:
        LookupError: If the sources of the standard library are absent, or too few of an area's are there.

    Example:
        >>> found = texts()
        >>> list(found) == list(AREAS), all(LEAST <= len(area) <= MOST for area in found.values())
        (True, True)
    """
    return {area: tuple(found) for area, found in _read(_root())}


def functions() -> dict[str, tuple[Function, ...]]:
    """The functions and methods behind each of the `texts` that no module or class has as well, usually one.

    Raises:
        LookupError: As `texts`.

    Example:
        >>> functions()["Return the median (middle value) of numeric data."]
        (Function(arguments=1, returns=True),)
    """
    return {text: behind for _, found in _read(_root()) for text, behind in found.items() if behind}


def digest() -> str:
    """What decides `texts`, quickly: the Python version, and the names and sizes of the files they come from.

    Raises:
        LookupError: As `texts`, where no source is there at all.
    """
    return _digest(_root())


@lru_cache
def _digest(root: Path) -> str:
    files = _sources(root)
    listing = [f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for area in AREAS for path in files[area]]
    return hashlib.sha256("\n".join([platform.python_version(), *listing]).encode()).hexdigest()[:16]


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources(root: Path) -> dict[str, list[Path]]:
    """The source files of each area, sorted; also of packages' sub-packages, without their tests."""
    files = {
        area: [path for module in modules.split() for path in _files(root, module)] for area, modules in AREAS.items()
    }
    if not any(files.values()):
        raise LookupError(_absent(f"no source file of the standard library is in {root}"))
    return files


def _files(root: Path, module: str) -> list[Path]:
    found = [root / f"{module}.py", *sorted((root / module).rglob("*.py"))]
    return [path for path in found if path.is_file() and not TESTS.intersection(path.relative_to(root).parts)]


def _absent(what: str) -> str:
    return (
        f"{what}: this Python was installed without its sources (stripped or zipped), and the task reads texts from "
        "them; use a Python with its standard library as .py files, or another task, such as digits"
    )


@lru_cache
def _read(root: Path) -> Read:
    """From the cache, if it holds what these very files gave to this very module, else from the sources."""
    files = [Path(__file__), *(path for found in _sources(root).values() for path in found)]
    states = [path.stat() for path in files]
    listing = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in zip(files, states, strict=True)]
    name = hashlib.sha256("\n".join([platform.python_version(), *listing]).encode()).hexdigest()[:32]
    kept = cache_folder() / "docstrings" / f"{name}.json"
    try:
        areas = json.loads(kept.read_text(encoding="utf-8"))
        return tuple((area, {t: tuple(Function(*f) for f in behind) for t, behind in found}) for area, found in areas)
    except (OSError, ValueError, TypeError):
        read = _parsed(root)  # not kept, or not readable
    plain = [(area, [(t, [(f.arguments, f.returns) for f in behind]) for t, behind in of.items()]) for area, of in read]
    keep(kept, lambda part: part.write_text(json.dumps(plain), encoding="utf-8"))
    return read


def _parsed(root: Path) -> Read:
    areas_of: dict[str, set[str]] = {}  # text in lower case -> areas in which it occurs
    found: dict[str, dict[str, str]] = {}
    behind: dict[str, list[Function | None]] = {}
    for area, files in _sources(root).items():
        found[area] = {}
        for path in files:
            for text, function in _paragraphs(path):
                areas_of.setdefault(text.lower(), set()).add(area)
                found[area].setdefault(text.lower(), text)
                behind.setdefault(text.lower(), []).append(function)
    kept = []
    for area, by_key in found.items():
        own = [text for key, text in by_key.items() if len(areas_of[key]) == 1]
        if len(own) < LEAST:
            raise LookupError(_absent(f"the area {area!r} has {len(own)} texts in {root}, and needs {LEAST}"))
        own.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        kept.append((area, {text: _all(behind[text.lower()]) for text in own[:MOST]}))
    return tuple(kept)


def _all(behind: list[Function | None]) -> tuple[Function, ...]:
    """Every one of them, or none if one is no function."""
    found = tuple(function for function in behind if function is not None)
    return found if len(found) == len(behind) else ()


def _paragraphs(path: Path) -> Iterator[tuple[str, Function | None]]:
    """The first paragraph of every docstring in a file, if it is long enough, and the function that it is about, if it is."""
    tree = ast.parse(path.read_bytes(), filename=path.name)
    pending: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]  # a node, and the definition around it
    while pending:
        node, around = pending.pop()
        if isinstance(node, Definition):
            words = (ast.get_docstring(node) or "").partition("\n\n")[0].split()
            if sum(word.strip(".,:;()").isalpha() for word in words) >= WORDS[0]:
                yield " ".join(words[: WORDS[1]]), _function(node, isinstance(around, ast.ClassDef))
            around = node
        pending += [(inner, around) for inner in ast.iter_child_nodes(node) if not isinstance(inner, ast.expr)]


def _function(node: Definition, method: bool) -> Function | None:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    static = any(isinstance(name, ast.Name) and name.id == "staticmethod" for name in node.decorator_list)
    named = [*node.args.posonlyargs, *node.args.args]
    bound = 1 if method and named and not static else 0
    starred = [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
    return Function(len(named) - bound + len(node.args.kwonlyargs) + len(starred), _returns(node.body))


def _returns(body: list[ast.stmt]) -> bool | None:
    empty = lambda statement: isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    if all(empty(statement) or isinstance(statement, ast.Pass | ast.Raise) for statement in body):
        return None
    pending: list[ast.AST] = [*body]
    while pending:
        node = pending.pop()
        value = node.value if isinstance(node, ast.Return) else None
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            return True
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return False
