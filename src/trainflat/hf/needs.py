"""What `trainflat.hf` needs beyond a plain installation: packages, asked for where they are used, and the hub."""

from __future__ import annotations

import importlib
import os
import threading
import urllib.error
import urllib.request
from functools import cache
from types import ModuleType

__all__ = ["hub_answers", "hub_endpoint", "need"]

SECONDS = 4.0


def need(module: str, extra: str = "hf") -> ModuleType:
    """Import an optional module.

    Raises:
        ImportError: If it is not installed; says which extra brings it.

    >>> need("json").loads("[1]")
    [1]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"{module.split('.')[0]} is not installed; it comes with: pip install 'trainflat[{extra}]'"
        ) from None


def hub_endpoint() -> str:
    """The address of the hub; ``HF_ENDPOINT`` names a mirror."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the environment forbids the network (``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``)."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def hub_answers() -> bool:
    """Whether the hub can be reached, found out once and within four seconds.

    The hub's own client retries for more than twenty seconds before it says that there is no network.
    """
    return not offline() and _answers(hub_endpoint())


@cache
def _answers(endpoint: str) -> bool:
    reached: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not the one hoped for
        except (OSError, ValueError):
            return
        reached.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no timeout of its own
    thread.start()
    thread.join(SECONDS)
    return bool(reached)
