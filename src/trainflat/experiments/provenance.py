"""Where and with what a result was made: recorded beside it, never part of its identity."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from trainflat.experiments.resolve import find

__all__ = ["environment", "now", "sources"]

PACKAGES = ("trainflat", "torch", "numpy", "scikit-learn", "safetensors", "tokenizers", "transformers", "datasets")


def now() -> str:
    """The time, to the second, in UTC and ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Python, packages, processor, threads and the commit of trainflat's sources where there is one."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "packages": versions,
        "commit": _commit(),
    }


def sources(stage: Any, settings: Mapping[str, Any]) -> dict[str, str]:
    """The modules that are somebody's own behind a stage and what its settings name, with twelve digits of their files' SHA-256.

    A result is found again by names and values. That the code behind a name has changed since can only be said.
    """
    names = [of["name"] for of in settings.values() if isinstance(of, Mapping) and ":" in str(of.get("name"))]
    own = {type(stage).__module__, *(getattr(find(name, ()), "__module__", "") for name in names)}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(own)}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]
        for name, file in files.items()
        if file and Path(file).is_file() and not name.startswith("trainflat.")
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
