"""Differences and their intervals against SciPy's tests and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from trainflat.reports.stats import Difference, compare, paired, summary, welch

SAMPLES = [(n, seed) for n in (2, 3, 5, 12) for seed in range(3)]


def draw(n, seed, shift=0.0):
    return dict(enumerate((np.random.default_rng(seed).normal(0.8 + shift, 0.05, n)).tolist()))


@pytest.mark.parametrize(("n", "seed"), SAMPLES)
def test_the_summary_is_numpys_mean_and_sample_deviation(n, seed):
    values = list(draw(n, seed).values())
    assert summary(values).mean == np.mean(values)
    assert summary(values).sd == np.std(values, ddof=1)
    assert summary(values).n == n


@pytest.mark.parametrize(("n", "seed"), SAMPLES)
def test_the_paired_interval_is_that_of_ttest_rel(n, seed):
    a, b = draw(n, seed), draw(n, seed + 100, shift=0.02)
    expected = scipy.stats.ttest_rel(list(b.values()), list(a.values())).confidence_interval(0.95)
    d = paired(a, b)
    assert (d.low, d.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert d.n == n


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (12, 4)])
def test_welchs_interval_is_that_of_ttest_ind(n, m):
    a, b = draw(n, 1).values(), draw(m, 2, shift=0.1).values()
    expected = scipy.stats.ttest_ind(list(b), list(a), equal_var=False).confidence_interval(0.95)
    d = welch(a, b)
    assert (d.low, d.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_student_at_three_pairs_is_4303_standard_errors():
    d = paired({0: 0.0, 1: 0.0, 2: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert d.high - d.mean == pytest.approx(4.302652729749464 / math.sqrt(3))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    trials = rng.normal(0.3, 1.0, (4000, 3))
    held = [(d := paired(dict.fromkeys(range(3), 0.0), dict(enumerate(t)))).low <= 0.3 <= d.high for t in trials]
    assert np.mean(held) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))  # three binomial standard errors


def test_one_pair_has_no_interval_and_tells_nothing():
    assert paired({0: 0.5}, {0: 0.75}) == Difference(0.25, None, None, 1, "paired")
    assert paired({0: 0.5}, {0: 0.75}).verdict == "cannot tell"


def test_equal_differences_have_an_interval_of_width_zero():
    d = paired({0: 0.5, 1: 0.25, 2: 0.0}, {0: 0.75, 1: 0.5, 2: 0.25})
    assert (d.low, d.mean, d.high, d.verdict) == (0.25, 0.25, 0.25, "better")
    same = paired({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25})
    assert (same.low, same.high, same.verdict) == (0.0, 0.0, "cannot tell")


def test_only_shared_seeds_are_paired():
    assert paired({0: 0.0, 1: 0.0, 7: 9.0}, {1: 3.0, 0: 1.0, 8: 9.0}).mean == 2.0
    assert compare({0: 0.0, 1: 0.0, 7: 9.0}, {1: 3.0, 0: 1.0, 8: 9.0}).n == 2


def test_without_shared_seeds_the_comparison_is_welchs_and_says_so():
    d = compare({0: 0.1, 1: 0.2}, {2: 0.4, 3: 0.5})
    assert d == welch([0.1, 0.2], [0.4, 0.5])
    assert d.method == "unpaired"


def test_swapping_the_arms_mirrors_the_difference():
    a, b = draw(4, 3), draw(4, 4)
    there, back = paired(a, b), paired(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.2, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.1, "cannot tell"),
        (0.0, 0.1, "cannot tell"),
        (None, None, "cannot tell"),
    ],
)
def test_the_word_follows_from_whether_the_interval_excludes_zero(low, high, word):
    assert Difference(0.0, low, high, 3, "paired").verdict == word


def test_a_value_that_is_not_a_number_is_never_better_or_worse():
    assert paired({0: 0.1, 1: math.nan}, {0: 0.3, 1: 0.4}).verdict == "cannot tell"


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no seed is shared"):
        paired({0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="at least one seed"):
        summary([])
    with pytest.raises(ValueError, match="confidence must be in"):
        paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}, confidence=95)
