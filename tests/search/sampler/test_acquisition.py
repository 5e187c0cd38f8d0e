"""The closed forms against brute force: hypervolume differences and sampling."""

from __future__ import annotations

import numpy as np
import pytest

from nas import pareto
from nas.search.sampler import acquisition


def fronts(objectives: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Every second one has many ties.
    points = rng.random((25, objectives)) if seed % 2 else rng.integers(0, 5, (25, objectives)) / 5.0
    return np.asarray(points[pareto.front_mask(points)])


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_improvement_of_a_known_point_is_the_difference_of_hypervolumes(objectives: int) -> None:
    reference = np.full(objectives, 0.9)  # some front points and some candidates lie beyond it
    for seed in range(20):
        front = fronts(objectives, seed)
        points = np.random.default_rng(seed + 100).random((15, objectives)) * 1.1 - 0.1
        boxes = acquisition.open_boxes(front, reference)
        found = acquisition.expected_improvement(boxes, [acquisition.known(column) for column in points.T])
        before = pareto.hypervolume(front, reference)
        expected = [pareto.hypervolume(np.vstack([front, point]), reference) - before for point in points]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_boxes_are_disjoint_and_open_boxes_of_no_front_are_everything(objectives: int) -> None:
    reference = np.full(objectives, 0.9)
    boxes = acquisition.open_boxes(np.zeros((0, objectives)), reference)
    assert boxes.upper.tolist() == [reference.tolist()]
    boxes = acquisition.open_boxes(fronts(objectives, 3), reference)
    samples = np.random.default_rng(0).random((500, objectives)) * 0.9
    inside = np.all((boxes.lower <= samples[:, None]) & (samples[:, None] < boxes.upper), axis=2).sum(axis=1)
    front = fronts(objectives, 3)
    is_open = ~np.any(np.all(front <= samples[:, None], axis=2), axis=1)
    np.testing.assert_array_equal(inside, is_open.astype(int))


@pytest.mark.parametrize("shift", [None, -0.2])
def test_the_expectation_is_the_mean_over_samples(shift: float | None) -> None:
    rng = np.random.default_rng(0)
    front, reference = fronts(3, 1), np.full(3, 1.1)
    boxes = acquisition.open_boxes(front, reference)
    costs, mean, std = rng.random((4, 2)), rng.normal(-1.0, 0.3, 4), np.full(4, 0.4)
    first = acquisition.normal(mean, std) if shift is None else acquisition.shifted_lognormal(mean, std, shift)
    found = acquisition.expected_improvement(boxes, [first, *(acquisition.known(column) for column in costs.T)])
    normal = mean[:, None] + std[:, None] * rng.standard_normal((4, 20_000))
    sampled = normal if shift is None else shift + np.exp(normal)
    flat = [sampled.ravel(), *(np.repeat(column, 20_000) for column in costs.T)]
    each = acquisition.expected_improvement(boxes, [acquisition.known(column) for column in flat])
    np.testing.assert_allclose(found, each.reshape(4, -1).mean(axis=1), rtol=0.03)
