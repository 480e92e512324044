"""A model that ``torch.compile`` has compiled: it has no second derivatives, and does not run hooks that come to it later."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["uncompiled"]


@contextmanager
def uncompiled() -> Iterator[None]:
    """While open, compiled models run as they were before, and are compiled again afterwards, without compiling anew.

    For what hooks do to a model or read in it: torch does not look whether hooks have come to a module since it was compiled, and
    leaves those out without a word.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> with uncompiled():
        ...     handle = model.register_forward_hook(lambda module, args, output: output + 1)
        ...     bool(model(torch.zeros(1, 1)) == model.bias + 1)
        True
    """
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and to import it takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
