"""Names in a recipe become objects. The namespace is the registry: there is nothing to register."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Spec", "build", "check", "component", "find", "near", "parent", "sentence"]


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
    """A stage's field that names something in one of the modules ``homes``, called with ``given`` positional arguments first."""
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
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def find(name: str, homes: Iterable[str]) -> Callable[..., Any]:
    """``"sam"`` is the public ``sam`` of one of the modules; ``"mylab.flat:noisy"`` is anybody's own.

    Raises:
        LookupError: If there is no such module or name, with the near miss.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise LookupError(f"{name!r} was not found: {error}; is its folder on PYTHONPATH?") from error
    known: dict[str, Any] = {}
    for home in homes:
        module = importlib.import_module(home)
        if name in getattr(module, "__all__", ()):
            return getattr(module, name)
        known |= dict.fromkeys(getattr(module, "__all__", ()))
    raise LookupError(
        f"there is no {name!r} in {' or '.join(homes)}{near(name, known)}; your own is written 'package.module:name'"
    )


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
