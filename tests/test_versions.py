"""The surgery knows how transformers names its modules: tested on a second minor version, where one is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ["tests/test_shrink.py", "tests/test_units.py"]
HOW = "pip install --no-deps --target DIR transformers==5.22.2, and name DIR in TRAINFLAT_TRANSFORMERS"


@pytest.fixture
def other() -> dict[str, str]:
    """The environment of a process that imports the other version."""
    folder = os.environ.get("TRAINFLAT_TRANSFORMERS")
    if not folder:
        pytest.skip(f"needs another minor version of transformers: {HOW}")
    return {**os.environ, "PYTHONPATH": str(Path(folder).resolve()), "OMP_NUM_THREADS": "1"}


def run(other: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=other, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_every_architecture_is_read_and_shrunk_on_another_minor_version_of_transformers(other):
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
    found = run(other, "-c", "import transformers; print(transformers.__version__)").strip()
    assert found.split(".")[:2] != transformers.__version__.split(".")[:2], f"{found} is the same minor version; {HOW}"
    passed = run(other, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES).strip().splitlines()[-1]
    assert int(passed.split()[0]) > 100, passed
    assert "failed" not in passed
    assert "skipped" not in passed
