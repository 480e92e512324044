"""Models that do not run module by module: what ``torch.compile`` has compiled, and torch's own encoder layers in evaluation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["uncompiled", "unfused"]


@contextmanager
def unfused() -> Iterator[None]:
    """While open, ``nn.TransformerEncoder``, its layers and ``nn.MultiheadAttention`` call the modules inside them.

    In evaluation one kernel does a layer's work otherwise, with the weights of the modules inside and without calling them, and
    between layers padded tokens are left out, in a nested tensor, which hooks and other layers do not bear.

    Example:
        >>> with unfused():
        ...     torch.backends.mha.get_fastpath_enabled()
        False
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def uncompiled() -> Iterator[None]:
    """While open, compiled models run as they were before, and are compiled again afterwards, without compiling anew; `unfused`.

    For what hooks do to a model or read in it: torch does not look whether hooks have come to a module since it was compiled, and
    leaves those out without a word.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> with uncompiled():
        ...     handle = model.register_forward_hook(lambda module, args, output: output + 1)
        ...     bool(model(torch.zeros(1, 1)) == model.bias + 1)
        True
    """
    with unfused():
        if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and to import it takes a second
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield
