from __future__ import annotations

import math
from itertools import pairwise

import pytest

from trainflat import testing, train
from trainflat.train import schedules

EXAMPLES = {
    "constant": schedules.constant(0.3),
    "cosine": schedules.cosine(2.0, 0.5, warmup=0.1),
    "cubic": schedules.cubic(0.1, 0.9),
    "linear": schedules.linear(1.0, 0.1, warmup=0.25),
    "steps": schedules.steps([1.0, 0.1, 0.01], at=[0.5, 0.75]),
}


def test_every_public_schedule_has_an_example_here():
    assert set(EXAMPLES) == set(schedules.__all__) - {"at"}
    assert all(getattr(train, name) is getattr(schedules, name) for name in EXAMPLES)


@pytest.mark.parametrize("schedule", EXAMPLES.values(), ids=EXAMPLES)
def test_a_schedule_obeys_the_laws(schedule):
    testing.check_schedule(schedule)


@pytest.mark.parametrize("make", [train.linear, train.cosine])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_warmup_rises_from_zero_to_the_start_and_the_end_is_reached(make, warmup):
    schedule = make(2.0, 0.5, warmup=warmup)
    assert schedule(warmup) == pytest.approx(2.0)
    assert schedule(1.0) == pytest.approx(0.5)
    if warmup:
        assert schedule(0.0) == 0.0
        assert schedule(warmup / 2) == pytest.approx(1.0)
        assert schedule(warmup - 1e-9) == pytest.approx(2.0)  # no jump


def test_linear_falls_by_the_same_amount_each_step():
    values = [train.linear(1.0, 0.2, warmup=0.2)(0.2 + 0.8 * i / 10) for i in range(11)]
    assert [b - a for a, b in pairwise(values)] == pytest.approx([-0.08] * 10)


def test_cosine_is_half_a_cosine_between_its_ends():
    schedule = train.cosine(1.0, 0.2, warmup=0.5)
    for t in (0.5, 0.6, 0.9, 1.0):
        assert schedule(t) == pytest.approx(0.6 + 0.4 * math.cos(math.pi * (t - 0.5) / 0.5))


def test_cubic_has_its_closed_form_and_never_falls():
    values = [train.cubic(0.1, 0.9)(i / 50) for i in range(51)]
    assert values == pytest.approx([0.9 - 0.8 * (1 - i / 50) ** 3 for i in range(51)])
    assert values == sorted(values)


def test_steps_change_at_their_boundaries_and_nowhere_else():
    schedule = train.steps([3.0, 2.0, 1.0], at=[0.25, 0.5])
    assert [schedule(t) for t in (0.0, 0.2499, 0.25, 0.4999, 0.5, 1.0)] == [3.0, 3.0, 2.0, 2.0, 1.0, 1.0]


def test_a_number_serves_as_a_schedule_wherever_one_is_taken():
    assert schedules.at(0.5, 0.9) == 0.5
    assert schedules.at(train.linear(1.0, 0.0), 0.25) == 0.75


@pytest.mark.parametrize("make", [train.linear, train.cosine])
@pytest.mark.parametrize("warmup", [-0.1, 1.0, float("nan")])
def test_a_warmup_outside_its_range_is_refused(make, warmup):
    with pytest.raises(ValueError, match=rf"warmup is a share of the run and must be in \[0, 1\), got {warmup}"):
        make(warmup=warmup)


@pytest.mark.parametrize(
    ("values", "at", "message"),
    [
        ([1.0, 0.1], [0.3, 0.6], "2 values need 1 boundaries, got 2"),
        ([1.0, 0.1, 0.01], [0.6, 0.3], r"the boundaries must rise, got \[0.6, 0.3\]"),
        ([1.0, 0.1, 0.01], [0.3, 0.3], "the boundaries must rise"),
    ],
)
def test_steps_that_do_not_fit_are_refused(values, at, message):
    with pytest.raises(ValueError, match=message):
        train.steps(values, at=at)
