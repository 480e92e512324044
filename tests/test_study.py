"""Where the stages of a plan stand while others work at them: counted with hands that do nothing but answer."""

from __future__ import annotations

from collections import deque

import pytest

from trainflat.experiments import plan as planning
from trainflat.experiments import study
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store
from trainflat.experiments.study import Study
from trainflat.experiments.work import Interrupted

RECIPE = """
name = "trial"
[defaults]
task = "mylab:blobs"
[stage.a]
kind = "Finetune"
steps = 1
[stage.b]
kind = "OneShot"
model = "a"
[stage.c]
kind = "Quantize"
model = "a"
[stage.d]
kind = "Finetune"
steps = 2
"""


class Scripted:
    """Answers each stage with the next line of its script, "finished" when that is over; remembers what it was asked to do."""

    def __init__(self, **scripts):
        self.scripts = {name: deque(answers) for name, answers in scripts.items()}
        self.handed, self.cancelled, self.letters, self.tasks = [], [], {}, {}

    def hand_out(self, job):
        self.handed.append(job.name)
        self.tasks[len(self.handed)] = job
        return len(self.handed)

    def lacking(self, job):
        return None

    def some(self, tasks):
        return tasks[:1]

    def answer(self, task):
        job = self.tasks[task]
        script = self.scripts.get(job.name)
        about = script.popleft() if script else {"event": "finished", "document": {"rows": [], "seconds": 0.0}}
        if "step" in about:
            self.letters[job.key] = {"done": about["step"], "of": 9}
        return about

    def news(self):
        letters, self.letters = self.letters, {}
        return letters

    def cancel(self, task, *, force=False):
        self.cancelled.append(self.tasks[task].name)


@pytest.fixture
def go(tmp_path, plugins, monkeypatch):
    monkeypatch.setattr(study, "LOOK_AGAIN", 0.01)

    def run(hands, stop=lambda: False):
        path = tmp_path / "trial.toml"
        path.write_text(RECIPE)
        said = []
        plan = planning.plan(read(str(path)))
        one = Study(plan, Store(tmp_path / "store"), lambda event, job, about: said.append((event, job.name, about)))
        try:
            one.go(hands, stop)
        finally:
            run.said = said
        return one, [(event, name) for event, name, _ in said]

    return run


def test_a_stage_is_handed_out_once_what_it_builds_on_is_done(go):
    hands = Scripted()
    one, said = go(hands)
    assert sorted(hands.handed) == ["a", "b", "c", "d"]
    assert hands.handed.index("a") < min(hands.handed.index("b"), hands.handed.index("c"))
    assert sorted(name for event, name in said if event == "finished") == ["a", "b", "c", "d"]
    assert not one.failed


def test_a_failed_stage_stops_only_those_that_build_on_it(go):
    one, said = go(Scripted(a=[{"failed": "the loss is not finite", "trace": "Traceback: far away"}]))
    assert ("failed", "a") in said
    assert ("finished", "d") in said
    error = one.error()
    assert "1 failed, 2 that build on it left out, 1 done" in str(error)
    assert "a seed 0" in str(error)
    assert "the loss is not finite" in str(error)
    assert error.__notes__ == ["Traceback: far away"]


def test_a_stage_that_another_process_is_at_is_asked_for_again_and_told_once(go):
    hands = Scripted(a=[{"busy": "here"}, {"busy": "here"}])
    _, said = go(hands)
    assert hands.handed.count("a") == 3
    assert said.count(("waiting", "a")) == 1


def test_a_dead_worker_has_its_stage_handed_out_again(go):
    hands = Scripted(a=[{"died": "its worker died"}])
    one, said = go(hands)
    assert hands.handed.count("a") == 2
    assert ("waiting", "a") in said
    assert not one.failed
    assert "its worker died; it goes on from its last checkpoint" in [about.get("why") for *_, about in go.said]


def test_workers_that_die_at_the_same_step_are_a_failure_with_a_way_out(go):
    hands = Scripted(a=[{"died": "its machine ran out of memory"}] * 9)
    one, _ = go(hands)
    assert hands.handed.count("a") == study.DEATHS
    assert (
        "ran out of memory, 3 times without a step more; if it needs more memory, reserve it with --set 'a.memory=16'"
        in str(one.error())
    )


def test_workers_that_get_ahead_may_die_as_often_as_they_like(go):
    class Busy(Scripted):
        def news(self):
            running = {
                job.key: {"done": self.handed.count("a"), "of": 9} for job in self.tasks.values() if job.name == "a"
            }
            return running if self.handed.count("a") < 9 else {}

    class Slow(Busy):
        def some(self, tasks):
            self.turn = not getattr(self, "turn", False)
            return () if self.turn else tasks[:1]

    one, _ = go(Slow(a=[{"died": "its worker died"}] * 7))
    assert not one.failed


def test_news_of_a_stage_that_has_ended_are_not_told(go):
    hands = Scripted()
    hands.letters = {"unknown-key": {"done": 1, "of": 2}}
    _, said = go(hands)
    assert {event for event, _ in said} == {"finished"}


def test_stopping_asks_all_that_run_and_waits_for_them(go):
    hands = Scripted(a=[{"stopped": "there"}])
    asked = iter([False, True])
    hands.some = lambda tasks: () if not hands.cancelled else tasks[:1]
    with pytest.raises(Interrupted):
        go(hands, stop=lambda: next(asked, True))
    assert sorted(hands.cancelled) == ["a", "d"]
    assert [name for event, name, _ in go.said if event == "finished"] == ["d"]  # it ended before it heard of it


@pytest.mark.parametrize(
    ("answer", "started"),
    [({"began": True}, ["a"]), ({"began": False}, []), ({}, [])],
    ids=["begun", "not begun", "taken back"],
)
def test_a_stage_that_had_begun_when_it_was_stopped_is_said_to_have_started_though_no_news_came(go, answer, started):
    hands = Scripted(a=[{"stopped": "there", **answer}])
    asked = iter([False, True])
    hands.some = lambda tasks: () if not hands.cancelled else tasks[:1]
    with pytest.raises(Interrupted):
        go(hands, stop=lambda: next(asked, True))
    assert [name for event, name, _ in go.said if event == "started"] == started


def test_what_is_in_the_store_is_not_handed_out(go, tmp_path):
    path = tmp_path / "trial.toml"
    path.write_text(RECIPE)
    jobs = planning.plan(read(str(path))).jobs
    Store(tmp_path / "store").finish(jobs[0].key, {"rows": [], "seconds": 1.0})
    hands = Scripted()
    _, said = go(hands)
    assert "a" not in hands.handed
    assert said[0] == ("cached", "a")
