"""What a person sees while a run goes, in a terminal and where there is none."""

from __future__ import annotations

import builtins
import io
import re
import sys
from types import ModuleType

import pytest

from trainflat.experiments import plan as planning
from trainflat.experiments import progress
from trainflat.experiments.recipe import read

RECIPE = """
name = "trial"
[stage.train]
kind = "Finetune"
task = "mylab:blobs"
steps = 100
[sweep.optimizer]
Adam = { gradient = "plain" }
SAM = { gradient = "sam" }
"""
DONE = {"seconds": 1.5, "rows": [{"metric": "accuracy", "value": 0.875, "sparsity": 0.6}]}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def plan(tmp_path, plugins):
    path = tmp_path / "trial.toml"
    path.write_text(RECIPE)
    return planning.plan(read(str(path)))


def step(done: int, **about) -> dict:
    return {"done": done, "of": 100, "loss": 0.25, "round": 0, **about}


def test_without_a_terminal_there_is_one_line_a_stage(plan):
    adam, sam = plan.jobs
    out = io.StringIO()
    with progress.shown(plan, to=out) as say:
        say("started", adam, {})
        say("step", adam, step(1))
        say("finished", adam, DONE)
        say("waiting", sam, {"why": "its worker died; it goes on from its last checkpoint"})
        say("failed", sam, {"why": "the loss [of step 3] is not finite"})
    assert out.getvalue().splitlines() == [
        "+ [1/2] train      Adam  seed 0  1.5 s  accuracy 0.875 at 60%",
        "  train      SAM  seed 0: its worker died; it goes on from its last checkpoint",
        "! [2/2] train      SAM  seed 0  failed: the loss [of step 3] is not finite",
    ]


def test_without_a_terminal_a_long_stage_is_told_of_now_and_then(plan, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    out = io.StringIO()
    with progress.shown(plan, to=out) as say:
        say("started", plan.jobs[0], {})
        say("step", plan.jobs[0], step(7, round=2))
    assert out.getvalue() == "  train      Adam  seed 0: 7/100 round 3 loss 0.250\n"


def shown_in_a_terminal(plan, monkeypatch, *said) -> tuple[str, list[str]]:
    """The last picture of the bars, and the lines that stay."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    now = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    out = Terminal()
    with progress.shown(plan, to=out) as say:
        for event, job, about in said:
            say(event, job, about)
        say.bars.stop()
        with say.bars.console.capture() as picture:
            say.bars.console.print(say.bars.get_renderable())
    escapes = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
    return escapes.sub("", picture.get()), escapes.sub("", out.getvalue()).splitlines()


def test_a_terminal_has_a_bar_for_every_stage_at_work(plan, monkeypatch):
    adam, sam = plan.jobs
    said = [("started", job, {}) for job in (adam, sam)]
    said += [("step", adam, step(10)), ("step", sam, step(1)), ("step", adam, step(12)), ("step", sam, step(2))]
    bars, _ = shown_in_a_terminal(plan, monkeypatch, *said)
    first, second = bars.splitlines()
    assert re.search(r"train +Adam +seed 0 .*loss 0.250 +0\.\d steps/s", first)
    assert re.search(r"train +SAM +seed 0 .*loss 0.250 +0\.\d steps/s", second)


def test_a_bar_says_what_a_rule_does_to_the_loss_how_far_it_goes_and_what_it_costs(plan, monkeypatch):
    adam, sam = plan.jobs
    ascent = {"rise": 0.12, "share": 0.0021, "cost": 2.0, "times": 1.957}
    said = [("started", job, {}) for job in (adam, sam)]
    said += [("step", adam, step(10) | {"cost": 1.0}), ("step", sam, step(1) | ascent)]
    bars, _ = shown_in_a_terminal(plan, monkeypatch, *said)
    first, second = bars.splitlines()
    assert "passes" not in first
    assert "rising 12% at 2.1e-03 |w| 2.00 passes 1.96 x a plain step" in second


def test_a_bar_goes_when_its_stage_ends_however_that_is(plan, monkeypatch):
    adam, sam = plan.jobs
    said = [
        ("step", adam, step(10)),
        ("step", sam, step(1)),
        ("finished", adam, DONE),
        ("waiting", sam, {"why": "gone"}),
    ]
    bars, lines = shown_in_a_terminal(plan, monkeypatch, *said)
    assert bars.strip() == ""
    assert "+ [1/2] train      Adam  seed 0  1.5 s  accuracy 0.875 at 60%" in "\n".join(lines)


def test_the_rate_counts_from_the_first_step_that_this_run_saw(monkeypatch):
    now = iter([100.0, 101.0, 102.0, 103.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    bar = progress._Bar(task=0)
    assert bar.begins(501)  # resumed at step 500, at second 100
    assert not bar.begins(506)
    assert bar.rate(506) == "5.0 steps/s"  # at second 101
    assert bar.begins(1)  # the next round
    assert bar.rate(11) == "10.0 steps/s"


class ZMQInteractiveShell:
    """What a notebook's kernel calls itself, and by what rich knows it."""


def test_in_a_notebook_without_widgets_there_are_the_plain_lines_whatever_the_stream_says_it_is(plan, monkeypatch):
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    out = Terminal()
    with progress.shown(plan, to=out, first="reviews: 200 rows [of 210]") as say:
        say("started", plan.jobs[0], {})
        say("step", plan.jobs[0], step(1))
        say("finished", plan.jobs[0], DONE)
    assert out.getvalue().splitlines() == [
        "reviews: 200 rows [of 210]",
        "+ [1/2] train      Adam  seed 0  1.5 s  accuracy 0.875 at 60%",
    ]


def test_in_a_notebook_with_widgets_there_are_lines_and_a_bar_that_goes_at_the_end(plan, monkeypatch):
    told, closed = [], []

    class Output:
        """A widget: what is displayed within it stays in it."""

        def __enter__(self):
            told.append("bar")

        def __exit__(self, *error):
            told.append("end")

        def clear_output(self, wait=False):
            pass

        def close(self):
            closed.append(self)

    display = ModuleType("IPython.display")
    display.display = lambda *shown, **more: told.extend(getattr(one, "text", "widget") for one in shown)
    widgets = ModuleType("ipywidgets")
    widgets.Output = Output
    fakes = {"IPython": ModuleType("IPython"), "IPython.display": display, "ipywidgets": widgets}
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr(progress, "find_spec", lambda name: True)
    with progress.shown(plan, to=io.StringIO()) as say:
        say("started", plan.jobs[0], {})
        say("step", plan.jobs[0], step(50))
        say("finished", plan.jobs[0], DONE)
    assert "widget" in told
    assert "bar" in told
    assert any("+ [1/2] train      Adam  seed 0  1.5 s" in str(one) for one in told)
    assert len(closed) == 1
