"""What every test has: one torch thread, no network, a cache of its own, and the real data where it is at hand."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import shapecheck
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

CACHE = tempfile.mkdtemp(prefix="trainflat-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"  # before a test module imports huggingface_hub or matplotlib
os.environ["MPLBACKEND"] = "Agg"
os.environ["TRAINFLAT_CACHE"] = CACHE

shapecheck.spare()  # before a module of ours is imported
torch.set_num_threads(1)  # several torch processes with two threads each on two cores are ten times slower
set_hypothesis_home_dir(CACHE)
settings.register_profile("trainflat", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("trainflat")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real data; the tests that ask for it say so where it is absent."""
    named = os.environ.get("TRAINFLAT_SHARED")
    folder = Path(named) if named else Path(__file__).parents[1] / ".." / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real data: {folder} has no folder 'data'; name the right one in TRAINFLAT_SHARED")
    return folder.resolve()


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random stream, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def plugins(monkeypatch) -> None:
    """Makes ``mylab:...`` importable, as a user's own folder on PYTHONPATH would."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))


def pytest_unconfigure():
    shutil.rmtree(CACHE, ignore_errors=True)
