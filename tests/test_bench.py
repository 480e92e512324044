"""The benchmarks run in their small size and print their table."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each imports transformers in a process of its own

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", ["prune_round", "masked_step", "imp_overhead"])
def test_a_benchmark_prints_its_table(script):
    command = [sys.executable, "-m", f"bench.{script}", "--small", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| ratio" in done.stdout
    assert "no verdict" in done.stdout


def test_the_comparison_with_another_sam_prints_its_table():
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("needs the peer: pip install 'trainflat[bench]'; peers are never part of the product or its tests")
    command = [sys.executable, "-m", "bench.sam_step", "--small", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| ratio" in done.stdout
