"""beartype for the arrays in a signature and for nothing else: the type checker that pyproject.toml names to jaxtyping.

Everything else in a signature is pyright's work, and a wrong word or number is to reach the sentence that refuses it.
What names no array is not even wrapped, once `spare` was called: jaxtyping would bind its arguments at every call to check
nothing, which took a quarter of the suite's time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import isclass, isfunction
from typing import Any, get_args, get_origin

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

__all__ = ["checked", "names_an_array", "parts", "spare"]

ALL = jaxtyping.jaxtyped
"""jaxtyping's decorator as it comes, which its import hook puts on every function and class."""


def spare() -> None:
    """From now on leave functions and classes alone whose annotations name no array."""
    jaxtyping.jaxtyped = _sparing


def _sparing(*, typechecker: Callable) -> Callable:
    wrap = ALL(typechecker=typechecker)
    return lambda named: wrap(named) if _may_name_an_array(named) else named


def _may_name_an_array(named: Any) -> bool:
    """Whether the annotations of a function, or of a class and its bases, name an array or cannot be read yet."""
    if not (isfunction(named) or isclass(named)):
        return True  # a property or the like: jaxtyping knows how to look inside
    for one in named.__mro__ if isclass(named) else [named]:
        of = vars(sys.modules[one.__module__]) if isclass(one) else one.__globals__
        for hint in vars(one).get("__annotations__", {}).values() if isclass(one) else one.__annotations__.values():
            try:
                read = eval(hint, of) if isinstance(hint, str) else hint
            except Exception:  # of a name that is known later, or to the type checker only
                return True
            if names_an_array(read):
                return True
    return False


def checked(function: Callable) -> Callable:
    """The function, with those of its annotations checked at every call that name a shape or a dtype."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint if names_an_array(hint) else Any for name, hint in hints.items()}
    return beartype(function) if any(hint is not Any for hint in function.__annotations__.values()) else function


def names_an_array(hint: Any) -> bool:
    """Whether an annotation says a shape or a dtype, at whatever depth, and has no list in it.

    Of a list beartype draws one item, from the random stream of Python: another one in the next run, and it is a law of
    the loop that evaluating leaves this stream alone. So what stands in a list is for the reader only.

    >>> from jaxtyping import Float
    >>> from torch import Tensor
    >>> weight = Float[Tensor, "out inp"]
    >>> names_an_array(dict[str, weight] | None), names_an_array(dict[str, Tensor]), names_an_array(list[weight])
    (True, False, False)
    """
    arrays = any(isinstance(part, type) and issubclass(part, AbstractArray) for part in parts(hint))
    return arrays and not any(get_origin(part) in (list, Sequence) or part is ... for part in parts(hint))


def parts(hint: Any) -> Iterator[Any]:
    """An annotation and everything inside its brackets."""
    yield hint
    for inner in get_args(hint):
        yield from parts(inner)
