"""Every function against the plain loop that defines it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas import pareto

# Few distinct values, so that ties and duplicates are the rule.
small_sets = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.5, np.inf]))
)
finite_sets = st.tuples(st.integers(1, 10), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 5).map(float))
)


def brute_dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def brute_front(points: np.ndarray) -> list[bool]:
    return [not any(brute_dominates(other, point) for other in points) for point in points]


def brute_ranks(points: np.ndarray) -> list[int]:
    result = [-1] * len(points)
    rank = 0
    while -1 in result:
        left = [i for i, r in enumerate(result) if r == -1]
        for i, on_front in zip(left, brute_front(points[left]), strict=True):
            if on_front:
                result[i] = rank
        rank += 1
    return result


def brute_hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Unit cells of an integer grid that some point dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return float(sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells))


@given(small_sets)
def test_front_mask_is_brute_force(points: np.ndarray) -> None:
    assert pareto.front_mask(points).tolist() == brute_front(points)


@given(small_sets)
def test_ranks_are_brute_force(points: np.ndarray) -> None:
    assert pareto.ranks(points).tolist() == brute_ranks(points)


@settings(max_examples=60, deadline=None)
@given(finite_sets)
def test_hypervolume_counts_grid_cells(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 4.0)  # some points lie on or beyond it
    assert pareto.hypervolume(points, reference) == pytest.approx(brute_hypervolume(points, reference))


def test_front_keeps_every_copy() -> None:
    points = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    assert pareto.front_mask(points).tolist() == [True, True, True, False]
    assert pareto.ranks(points).tolist() == [0, 0, 0, 1]


def test_points_beyond_the_reference_add_nothing() -> None:
    inside = [[0.5, 0.5]]
    assert pareto.hypervolume([*inside, [0.0, 1.0], [-5.0, 2.0]], [1.0, 1.0]) == pytest.approx(0.25)
    assert pareto.hypervolume([[2.0, 2.0]], [1.0, 1.0]) == 0.0
    assert pareto.hypervolume([[np.inf, 0.0]], [1.0, 1.0]) == 0.0


def test_empty_sets() -> None:
    empty = np.zeros((0, 3))
    assert pareto.front_mask(empty).shape == (0,)
    assert pareto.ranks(empty).shape == (0,)
    assert pareto.spread_order(empty).shape == (0,)
    assert pareto.hypervolume(empty, [1.0, 1.0, 1.0]) == 0.0


@given(small_sets)
def test_spread_order_is_a_farthest_point_traversal(points: np.ndarray) -> None:
    order = pareto.spread_order(points)
    assert sorted(order.tolist()) == list(range(len(points)))
    assert points[order[0]].tolist() == min(points.tolist())
    if np.isfinite(points).all():
        width = np.ptp(points, axis=0)
        scaled = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
        for k in range(1, len(points)):
            gap = np.linalg.norm(scaled[:, None] - scaled[order[:k]][None], axis=2).min(axis=1)
            assert gap[order[k]] == pytest.approx(gap.max())


@given(small_sets, st.randoms(use_true_random=False))
def test_spread_order_does_not_depend_on_the_input_order(points: np.ndarray, random: object) -> None:
    shuffled = points[np.random.default_rng(random.randrange(2**32)).permutation(len(points))]  # type: ignore[attr-defined]
    assert points[pareto.spread_order(points)].tolist() == shuffled[pareto.spread_order(shuffled)].tolist()


def test_spread_order_keeps_both_ends_first_and_copies_last() -> None:
    front = np.array([[0.0, 10.0], [0.1, 9.0], [0.1, 9.0], [0.5, 5.0], [1.0, 0.0]])
    order = pareto.spread_order(front).tolist()
    assert order[:3] == [0, 4, 3]
    assert set(order[3:]) == {1, 2}


def test_spread_order_ignores_units() -> None:
    points = np.random.default_rng(0).random((20, 3))
    np.testing.assert_array_equal(pareto.spread_order(points), pareto.spread_order(points * [1.0, 1024.0, 2.0**-20]))


@pytest.mark.parametrize("function", [pareto.front_mask, pareto.ranks, pareto.spread_order])
def test_mistakes_are_named(function: object) -> None:
    with pytest.raises(ValueError, match=r"NaN.*row 1"):
        function([[0.0, 1.0], [np.nan, 1.0]])  # type: ignore[operator]
    with pytest.raises(ValueError, match="shape"):
        function([0.0, 1.0])  # type: ignore[operator]


def test_mistakes_of_references_are_named() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pareto.hypervolume([[np.nan, 0.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"reference has shape \(3,\), points have 2"):
        pareto.hypervolume([[0.0, 0.0]], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="reference must be finite"):
        pareto.hypervolume([[0.0, 0.0]], [np.inf, 1.0])
    with pytest.raises(ValueError, match="-inf"):
        pareto.hypervolume([[-np.inf, 0.0]], [1.0, 1.0])
