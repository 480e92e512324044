"""What a check is given: a function to call, not what it made."""

from __future__ import annotations

from inspect import signature
from typing import Any

__all__ = ["check_factory"]


def check_factory(factory: Any, example: str) -> None:
    """Raise the TypeError of what cannot be called without arguments, and so is not a factory.

    Example:
        >>> check_factory(dict, "dict")
        >>> check_factory("sam", "flat.sam")
        Traceback (most recent call last):
        TypeError: a check takes what makes one, which it calls anew for each law without arguments, such as flat.sam; got 'sam'
    """
    try:
        signature(factory).bind()
    except ValueError:  # one that does not say
        return
    except TypeError:
        raise TypeError(
            f"a check takes what makes one, which it calls anew for each law without arguments, such as {example}; got "
            f"{factory!r}"
        ) from None
