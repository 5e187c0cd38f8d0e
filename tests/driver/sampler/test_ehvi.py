"""The closed forms against brute force: hypervolume differences and sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath
import numpy as np
import pytest

from nas import pareto
from nas.driver.sampler import ehvi


def fronts(objectives: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Every second one has many ties.
    points = rng.random((25, objectives)) if seed % 2 else rng.integers(0, 5, (25, objectives)) / 5.0
    return np.asarray(points[pareto.front_mask(points)])


def improvement(boxes: ehvi.Boxes, objectives: Sequence[ehvi.Shortfall]) -> np.ndarray:
    return np.exp(ehvi.log_expected_improvement(boxes, objectives))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_improvement_of_a_known_point_is_the_difference_of_hypervolumes(objectives: int) -> None:
    reference = np.full(objectives, 0.9)  # some front points and some candidates lie beyond it
    for seed in range(20):
        front = fronts(objectives, seed)
        points = np.random.default_rng(seed + 100).random((15, objectives)) * 1.1 - 0.1
        boxes = ehvi.open_boxes(front, reference)
        found = improvement(boxes, [ehvi.known(column) for column in points.T])
        before = pareto.hypervolume(front, reference)
        expected = [pareto.hypervolume(np.vstack([front, point]), reference) - before for point in points]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_boxes_are_disjoint_and_open_boxes_of_no_front_are_everything(objectives: int) -> None:
    reference = np.full(objectives, 0.9)
    boxes = ehvi.open_boxes(np.zeros((0, objectives)), reference)
    assert boxes.upper.tolist() == [reference.tolist()]
    boxes = ehvi.open_boxes(fronts(objectives, 3), reference)
    samples = np.random.default_rng(0).random((500, objectives)) * 0.9
    inside = np.all((boxes.lower <= samples[:, None]) & (samples[:, None] < boxes.upper), axis=2).sum(axis=1)
    front = fronts(objectives, 3)
    is_open = ~np.any(np.all(front <= samples[:, None], axis=2), axis=1)
    np.testing.assert_array_equal(inside, is_open.astype(int))


@pytest.mark.parametrize("shift", [None, -0.2])
def test_the_expectation_is_the_mean_over_samples(shift: float | None) -> None:
    rng = np.random.default_rng(0)
    front, reference = fronts(3, 1), np.full(3, 1.1)
    boxes = ehvi.open_boxes(front, reference)
    costs, mean, std = rng.random((4, 2)), rng.normal(-1.0, 0.3, 4), np.full(4, 0.4)
    first = ehvi.normal(mean, std) if shift is None else ehvi.shifted_lognormal(mean, std, shift)
    found = improvement(boxes, [first, *(ehvi.known(column) for column in costs.T)])
    normal = mean[:, None] + std[:, None] * rng.standard_normal((4, 20_000))
    sampled = normal if shift is None else shift + np.exp(normal)
    flat = [sampled.ravel(), *(np.repeat(column, 20_000) for column in costs.T)]
    each = improvement(boxes, [ehvi.known(column) for column in flat])
    np.testing.assert_allclose(found, each.reshape(4, -1).mean(axis=1), rtol=0.03)


# --- in the tails, against 60 digits ---


def exact(shift: float | None, mean: float, std: float, threshold: float) -> mpmath.mpf:
    """E[max(threshold - Y, 0)] as an integral of the distribution function, of Y itself or of its logarithm."""
    if threshold == -np.inf or (shift is not None and threshold <= shift):
        return mpmath.mpf(0)
    m, s, t = mpmath.mpf(mean), mpmath.mpf(std), mpmath.mpf(threshold)
    if shift is None:
        z = (t - m) / s
        return s * (mpmath.npdf(z) + z * mpmath.ncdf(z))
    strike = t - mpmath.mpf(shift)
    d = (mpmath.log(strike) - m) / s
    return strike * mpmath.ncdf(d) - mpmath.exp(m + s * s / 2) * mpmath.ncdf(d - s)


@pytest.mark.parametrize("shift", [None, -0.2])
@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 2.0])
def test_logarithms_are_exact_from_the_body_far_into_the_tail(shift: float | None, std: float) -> None:
    deviations = [8.0, 3.0, 0.5, -0.5, -0.999, -1.001, -2.0, -10.0, -39.0, -100.0, -299.0, -301.0, -1000.0]
    threshold = 0.5
    centre = threshold if shift is None else math.log(threshold - shift)
    mean = np.array([centre - z * std for z in deviations])
    stds = np.full(len(mean), std)
    shortfall = ehvi.normal(mean, stds) if shift is None else ehvi.shifted_lognormal(mean, stds, shift)
    found = shortfall(np.array([threshold]))[:, 0]
    with mpmath.workdps(60):
        for value, m in zip(found, mean, strict=True):
            expected = float(mpmath.log(exact(shift, float(m), std, threshold)))
            assert value == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("shift", [None, -0.2])
def test_sums_over_boxes_are_exact_where_the_plain_product_is_zero(shift: float | None) -> None:
    front, reference = fronts(3, 1), np.full(3, 1.1)
    boxes = ehvi.open_boxes(front, reference)
    mean, std = np.array([0.9, 5.0, 12.0, 40.0]), np.full(4, 0.25)
    cost = np.full(4, 0.3)
    first = ehvi.normal(mean, std) if shift is None else ehvi.shifted_lognormal(mean, std, shift)
    # Two predicted objectives: in no box are both near their largest.
    found = ehvi.log_expected_improvement(boxes, [first, ehvi.normal(mean, std), ehvi.known(cost)])
    with mpmath.workdps(60):
        for i, value in enumerate(found):
            total = mpmath.mpf(0)
            for low, high in zip(boxes.lower, boxes.upper, strict=True):
                ends = [
                    exact(kind, mean[i], std[i], high[d]) - exact(kind, mean[i], std[i], low[d])
                    for kind, d in ((shift, 0), (None, 1))
                ]
                ends.append(mpmath.mpf(max(high[2] - cost[i], 0.0)) - mpmath.mpf(max(low[2] - cost[i], 0.0)))
                total += mpmath.fprod(ends)
            assert value == pytest.approx(float(mpmath.log(total)), rel=1e-8, abs=1e-8)
    assert np.isfinite(found).all() and np.exp(found[-1]) == 0.0


@pytest.mark.parametrize("shift", [None, -0.2])
def test_a_better_mean_scores_higher_however_far_it_is_from_the_front(shift: float | None) -> None:
    boxes = ehvi.open_boxes(np.array([[0.1, 0.5]]), np.array([0.2, 1.0]))
    sigmas = np.linspace(5.0, 60.0, 56)
    mean, std = 0.2 + 0.02 * sigmas, np.full(len(sigmas), 0.02)
    if shift is not None:
        mean = math.log(0.2 - shift) + 0.02 * sigmas
    first = ehvi.normal(mean, std) if shift is None else ehvi.shifted_lognormal(mean, std, shift)
    score = ehvi.log_expected_improvement(boxes, [first, ehvi.known(np.full(len(sigmas), 0.7))])
    assert np.isfinite(score).all()
    assert (np.diff(score) < -1.0).all()


def test_a_known_gain_of_nothing_is_minus_infinity_and_no_warning() -> None:
    boxes = ehvi.open_boxes(np.array([[0.2, 0.2]]), np.ones(2))
    points = np.array([[0.3, 0.3], [0.1, 0.9], [2.0, 0.1]])
    with np.errstate(all="raise"):
        score = ehvi.log_expected_improvement(boxes, [ehvi.known(column) for column in points.T])
    assert np.isneginf(score).tolist() == [True, False, True]
    assert np.exp(score[1]) == pytest.approx(0.1 * 0.1)
