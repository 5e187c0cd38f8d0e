"""Intervals and tests against worked examples of the literature, other implementations, and simulation."""

import numpy as np
import pytest
from scipy import stats

from nas.significance import agreement, holm, over_seeds, spearman, unpaired, welch, wilson


def test_wilson_is_newcombe_s_worked_example() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), Table I: 81 of 263, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_two_proportions_are_newcombe_s_worked_example() -> None:
    # Newcombe, "Interval estimation for the difference between independent proportions" (1998), Table II, method 10:
    # 9 of 10 and 3 of 10.
    found = unpaired(0.9, 0.3, 10)
    assert (found.low, found.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert found.is_distinguishable


def test_two_proportions_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(359, (0.84, 0.80), (2_000, 2)) / 359
    covered = [found.low <= 0.04 <= found.high for found in (unpaired(a, b, 359) for a, b in counts)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_seeds_are_compared_by_welch_s_interval() -> None:
    first, second = [0.90, 0.92, 0.94], [0.85, 0.86, 0.90]
    found = over_seeds(first, second)
    variances = [np.var(values, ddof=1) / 3 for values in (first, second)]
    freedom = sum(variances) ** 2 / sum(variance**2 / 2 for variance in variances)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    assert (found.low, found.high) == pytest.approx((found.gap - reach, found.gap + reach))
    assert found.is_distinguishable == (welch(first, second) < 0.05)
    assert over_seeds([0.9, 0.9], [0.9, 0.9]).gap == 0
    assert welch([0.9, 0.9], [0.8, 0.8]) == 0


@pytest.mark.filterwarnings("error")
def test_seeds_that_agree_are_compared_without_a_warning() -> None:
    # One side varies alone: Welch's degrees of freedom are its own two.
    first, second = [0.90, 0.92, 0.94], [0.85, 0.85, 0.85]
    reach = stats.t.ppf(0.975, 2) * np.std(first, ddof=1) / np.sqrt(3)
    found = over_seeds(first, second)
    assert (found.low, found.high) == pytest.approx((0.07 - reach, 0.07 + reach))


def test_holm_by_hand() -> None:
    # Of 0.01, 0.02, 0.03, 0.04, 0.005: sorted 0.005*5, 0.01*4, 0.02*3, 0.03*2, 0.04*1, each at least the one before.
    assert holm([0.01, 0.02, 0.03, 0.04, 0.005]) == pytest.approx([0.04, 0.06, 0.06, 0.06, 0.025])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_ties_are_no_agreement() -> None:
    # 10 pairs: 4 in the same order, 6 of them tied in the second figure.
    found = agreement([1, 2, 3, 4, 5], [7, 7, 7, 7, 8])
    assert found is not None
    assert (found.same, found.opposite, found.tied, found.pairs) == (4, 0, 6, 10)
    assert found.tau == pytest.approx(4 / np.sqrt(10 * 4))  # tau-b: (4 - 0) / sqrt(untied pairs in each)
    assert agreement([1, 1, 1], [1, 2, 3]) is None
    assert agreement([1], [1]) is None


def test_spearman_by_hand() -> None:
    """1 - 6 sum(d^2) / (n (n^2 - 1)); what no two networks differ in orders nothing."""
    assert spearman([1, 2, 3, 4, 5], [2.0, 1.0, 4.0, 3.0, 50.0]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None and spearman([1, 2, 3], [0, 0, 0]) is None
