"""The benchmarks: the harness by counting, and that every script runs on a thin model."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    *("by_hand", "imp_overhead", "masked_step", "prune_round", "radius"),
    *("ray_sweep", "rules", "sam_step", "service", "shrunk", "trainer"),
]


@pytest.fixture
def pairs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("bench.pairs")


def test_candidates_take_turns_and_warm_up(pairs):
    order = []
    times = pairs.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert [len(t.seconds) for t in times.values()] == [3, 3]


def test_a_candidate_may_measure_itself(pairs):
    own = iter([9.0, 1.0, 3.0, 2.0])
    times = pairs.take_turns({"a": lambda: next(own)}, rounds=3, warmup=1)
    assert times["a"].seconds == [1.0, 3.0, 2.0]
    assert (times["a"].median, times["a"].fastest) == (2.0, 1.0)


def test_a_ratio_compares_within_rounds(pairs):
    ours, peer = pairs.Times([1.0, 10.0, 2.0]), pairs.Times([2.0, 20.0, 8.0])  # the second round was disturbed
    assert pairs.ratio("", ours, peer).ratio == 0.5
    assert pairs.ratio("", ours, peer, faster=True).ratio == 2.0


@pytest.mark.parametrize(
    ("ratio", "target", "at_least", "verdict"),
    [(0.2, 0.25, False, "pass"), (0.3, 0.25, False, "FAIL"), (1.4, 1.3, True, "pass"), (1.2, 1.3, True, "FAIL")],
)
def test_the_verdict_follows_the_target(pairs, ratio, target, at_least, verdict):
    assert pairs.Line("", "", "", ratio, target, at_least).verdict == verdict
    assert pairs.Line("", "", "", ratio).verdict == ""


def test_small_runs_get_no_verdict(pairs, capsys):
    options = argparse.Namespace(small=True, clock="wall", rounds=1)
    pairs.show("title", [pairs.Line("what", "1 s", "2 s", 0.5, 0.1)], options, pairs.load(), ["a note"])
    printed = capsys.readouterr().out
    assert "| what | 1 s  | 2 s  | 0.500 |" in printed
    assert "FAIL" not in printed
    assert "a note" in printed


def test_every_script_is_tested_and_described():
    found = {path.stem for path in (ROOT / "bench").glob("*.py")} - {
        "__init__",
        "pairs",
        "bert",
        "by_hand_peer",
        "waiting",
    }
    assert found == set(SCRIPTS)
    readme = (ROOT / "bench" / "README.md").read_text()
    assert all(f"python -m bench.{name}" in readme for name in SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_print_one_table(name, request):
    if name == "sam_step":
        pytest.importorskip("pytorch_optimizer", reason="the peer is in the extra 'bench'")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if name in ("trainer", "by_hand"):
        env["TRAINFLAT_DATA"] = str(request.getfixturevalue("shared") / "data")
    command = [sys.executable, "-m", f"bench.{name}", "--small", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n### ") == 1
    assert len([line for line in done.stdout.splitlines() if line.startswith("| ")]) >= 4


@pytest.mark.slow
def test_a_missing_data_folder_is_one_sentence(tmp_path):
    command = [sys.executable, "-m", "bench.trainer", "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("bench.trainer needs MRPC: name a folder")
