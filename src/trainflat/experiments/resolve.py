"""Names in a recipe become objects. The namespace is the registry: there is nothing to register."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import importlib
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Spec", "build", "check", "component", "files_behind", "find", "look_anew", "near", "parent", "sentence"]

WAYS_OUT = {
    errno.EACCES: "cannot read or write {path}: permission denied; name another place, or change the permissions of {near}",
    errno.EEXIST: "cannot make {path}: something of this name is already there; name another place, or move it away",
    errno.EISDIR: "cannot use {path} as a file: it is a folder; name a file",
    errno.ENOENT: "cannot use {path}: there is no {missing}; make it, or name another place",
    errno.ENOSPC: "cannot write {path}: no space is left on its disk; free some, or name another place",
    errno.ENOTDIR: "cannot use {path}: {near} is a file, not a folder; name another place",
    errno.EROFS: "cannot write {path}: its disk can only be read; name another place",
}
WAYS_OUT[errno.EPERM] = WAYS_OUT[errno.EACCES]


@dataclass(frozen=True)
class Spec:
    """A component by name and keyword arguments: plain data, so it can be hashed, stored and printed."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Any, where: str) -> Spec:
        """From ``"sam"`` or ``{name = "sam", rho = 0.1}``."""
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return cls(value["name"], {key: item for key, item in value.items() if key != "name"})
        raise ValueError(
            f'{where} must be a name or a table with a name, such as {{name = "sam", rho = 0.05}}; got {value!r}'
        )

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.kwargs.items())
        return f"{self.name}({inside})" if inside else self.name


def component(*homes: str, default: Any = dataclasses.MISSING, given: int = 0) -> Any:
    """A stage's field that names something in one of ``homes`` (see `find`), called with ``given`` positional arguments first."""
    default = Spec(default) if isinstance(default, str) else default
    return field(default=default, metadata={"homes": homes, "given": given})


def parent(default: Any = dataclasses.MISSING) -> Any:
    """A stage's field that names another stage, whose result this one builds on."""
    return field(default=default, metadata={"parent": True})


def near(name: str, known: Iterable[str]) -> str:
    """The end of an error: the near miss if there is one, and the accepted names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {close[0]!r}?" if close else "") + f" (known: {', '.join(known) or 'none'})"


def sentence(error: BaseException) -> str:
    """An error in one line, as it is told to a person.

    >>> sentence(KeyError("there is no such thing"))
    'there is no such thing'
    >>> sentence(FileExistsError(errno.EEXIST, "File exists", "easy.csv"))
    'cannot make easy.csv: something of this name is already there; name another place, or move it away'
    """
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return _refused(error)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def find(name: str, homes: Iterable[str]) -> Callable[..., Any]:
    """``"sam"`` is the public ``sam`` of one of the ``homes``; ``"mylab.flat:noisy"`` is anybody's own.

    Args:
        name: The name.
        homes: Modules, of which all public names are meant; of ``"module -> Gradient"`` those functions only that are
            annotated to return one. Somebody's own is taken as it is.

    Raises:
        LookupError: If there is no such module or name, or it returns something else; with the near miss.

    Example:
        >>> find("swa", ["trainflat.flat -> Average"]).__name__
        'swa'
        >>> find("sam", ["trainflat.flat -> Average"])
        Traceback (most recent call last):
        LookupError: 'sam' of trainflat.flat gives no Average; did you mean 'swa'? (known: ema, last, swa)
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise LookupError(f"{name!r} was not found: {error}; is its folder on PYTHONPATH?") from error
    known: set[str] = set()
    for home in homes:
        offered = _offered(home)
        if name in offered:
            return getattr(importlib.import_module(_parts(home)[0]), name)
        known |= {*offered}
    _check_gives(name, homes, known)
    places = " or ".join(_parts(home)[0] for home in homes)
    raise LookupError(f"there is no {name!r} in {places}{near(name, known)}; your own is written 'package.module:name'")


def check(spec: Spec, homes: Iterable[str], given: int = 0) -> dict[str, Any]:
    """All keyword arguments of a component, defaults included; nothing is called.

    Raises:
        LookupError: As `find`.
        ValueError: If a keyword is unknown, or one without a default is missing.
    """
    signature = inspect.signature(find(spec.name, homes))
    accepted = {
        name: parameter
        for name, parameter in list(signature.parameters.items())[given:]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in spec.kwargs:
        if name not in accepted and not open_ended:
            raise ValueError(f"{spec.name} takes no {name!r}{near(name, accepted)}")
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and name not in spec.kwargs:
            raise ValueError(f"{spec.name} needs {name!r} (it takes {', '.join(accepted)})")
    defaults = {name: p.default for name, p in accepted.items() if p.default is not p.empty}
    return {**defaults, **spec.kwargs}


def build(spec: Spec, homes: Iterable[str], *args: Any, **extra: Any) -> Any:
    """Call the component with ``args`` first; ``extra`` keywords are used where the recipe says nothing and it takes them."""
    make = find(spec.name, homes)
    takes = inspect.signature(make).parameters
    usable = {key: value for key, value in extra.items() if key in takes}
    return make(*args, **{**usable, **spec.kwargs})


_files: dict[str, str | None] = {}


def files_behind(spec: Spec, homes: Iterable[str]) -> str | None:
    """The digest of the files that a component reads, None of one that reads none: as they were when `look_anew` was called last.

    Raises:
        LookupError, ValueError, FileNotFoundError, ImportError: As the component's ``fingerprint``, for what is missing.
    """
    memo = f"{homes} {spec.name} {sorted(spec.kwargs.items(), key=str)}"
    if memo not in _files:
        fingerprint = getattr(find(spec.name, homes), "fingerprint", None)
        _files[memo] = fingerprint(**spec.kwargs) if fingerprint else None
    return _files[memo]


def look_anew() -> None:
    """Forget what files held: a plan looks at them as they are, however often this process has planned before."""
    _files.clear()


def _parts(home: str) -> tuple[str, str]:
    """The module, and what its functions have to give; nothing if all of it serves.

    >>> _parts("trainflat.flat"), _parts("trainflat.flat -> Gradient")
    (('trainflat.flat', ''), ('trainflat.flat', 'Gradient'))
    """
    module, _, gives = home.partition(" -> ")
    return module, gives


def _offered(home: str) -> list[str]:
    """The public names of a home; annotations are text, since our modules postpone them."""
    name, gives = _parts(home)
    module = importlib.import_module(name)
    public: list[str] = list(getattr(module, "__all__", ()))
    if not gives:
        return public  # looked at no further: some are imported when they are asked for
    hints: dict[str, dict[str, str]] = {one: getattr(getattr(module, one), "__annotations__", {}) for one in public}
    return [one for one in public if hints[one].get("return") == gives]


def _check_gives(name: str, homes: Iterable[str], known: Iterable[str]) -> None:
    """A name that is there, but not of a function that gives what is asked for."""
    for home in homes:
        module, gives = _parts(home)
        if gives and name in getattr(importlib.import_module(module), "__all__", ()):
            raise LookupError(f"{name!r} of {module} gives no {gives}{near(name, known)}")


def _refused(error: OSError) -> str:
    """What the system refused: what cannot be done with which path, why, and the way out."""
    why = " ".join(str(error.strerror).split())
    if not isinstance(error.filename, str):
        return why
    path = Path(error.filename)
    levels = [path, *path.parents]
    missing = [level for level in levels if not os.path.exists(level)]
    here = next((level for level in levels if level not in missing), path)  # the last that is there
    about = {
        "path": path,
        "near": "this folder" if str(here) == "." else here,
        "missing": f"folder {missing[-1]}" if len(missing) > 1 else "such file or folder",
    }
    return WAYS_OUT.get(error.errno or 0, "cannot use {path}: {why}; name another place").format(why=why, **about)
