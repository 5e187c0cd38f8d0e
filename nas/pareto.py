"""Dominance, fronts and hypervolume: pure functions on arrays of shape (points, objectives), every objective minimised.

Conventions
-----------
- A point dominates another one when it is no worse in every objective and better in at least one; equal points do not
  dominate each other, so exact duplicates share a front and a rank.
- ``NaN`` is a ``ValueError`` everywhere: a point that cannot be compared belongs to the caller, who knows why it
  failed. Infinite values compare as usual.

Sorting and hypervolume are those of `moocore <https://multi-objective.github.io/moocore/python/>`_ (Fonseca, Paquete
and López-Ibáñez, 2006), which is exact and needs well under a millisecond for the fronts of a search.
"""

from __future__ import annotations

from typing import TypeAlias

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points: TypeAlias = NDArray[np.float64]


def front_mask(points: ArrayLike) -> NDArray[np.bool_]:
    """Return which points no other point dominates; shape (points,). Every copy of a front point is on the front.

    Raises:
        ValueError: ``points`` is not two-dimensional, or holds NaN.
    """
    array = _matrix(points)
    if len(array) == 0:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(_places(array), keep_weakly=True), dtype=np.bool_)


def ranks(points: ArrayLike) -> NDArray[np.int64]:
    """Sort by dominance (Deb et al., 2002): 0 for the front, 1 for the front of what remains, and so on.

    Raises:
        ValueError: ``points`` is not two-dimensional, or holds NaN.
    """
    array = _matrix(points)
    if len(array) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(_places(array)), dtype=np.int64)


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that ``points`` dominate below ``reference``; points beyond the reference add nothing.

    Raises:
        ValueError: Shapes do not fit, NaN is met, the reference is not finite, or a point is -inf in an objective (the
            volume would be infinite).
    """
    array, corner = _matrix(points), np.asarray(reference, dtype=np.float64)
    if corner.shape != array.shape[1:]:
        raise ValueError(f"reference has shape {corner.shape}, points have {array.shape[1]} objectives")
    if not np.all(np.isfinite(corner)):
        raise ValueError(f"reference must be finite, got {corner.tolist()}")
    inside = array[np.all(array < corner, axis=1)]
    if np.any(np.isneginf(inside)):
        raise ValueError("points must not hold -inf: the hypervolume would be infinite")
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


def spread_order(points: ArrayLike) -> NDArray[np.int64]:
    """Order points so that every prefix covers them well: farthest-point traversal of one rank's points.

    It is the epsilon-net of MO-ASHA (Schmucker et al., 2021): begin somewhere, then always take the point that is
    farthest from all taken so far. Here it begins with the best point of objective 0 (ties: of objective 1, and so on),
    objectives are scaled to [0, 1] first so that no unit counts more than another one, and ties are broken by the
    coordinates, so that the order is deterministic and does not depend on the order of the input. Copies of a point
    come last.

    Infinite values are taken as lying one range beyond the finite ones.

    Args:
        points: Shape (points, objectives).

    Returns:
        A permutation of ``range(len(points))``.

    Raises:
        ValueError: ``points`` is not two-dimensional, or holds NaN.
    """
    array = _matrix(points)
    if len(array) == 0:
        return np.zeros(0, dtype=np.int64)
    # Working in lexicographic order makes "the first of equals" mean "the least in its coordinates".
    lexicographic = np.lexsort(array.T[::-1])
    scaled = _unit_box(array)[lexicographic]
    taken = np.zeros(len(scaled), dtype=np.bool_)
    distance = np.full(len(scaled), np.inf)
    order = np.empty(len(scaled), dtype=np.int64)
    for position in range(len(scaled)):
        pick = int(np.argmax(np.where(taken, -1.0, distance)))
        order[position] = pick
        taken[pick] = True
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[pick], axis=1))
    return np.asarray(lexicographic[order], dtype=np.int64)


def _places(array: Points) -> Points:
    """Replace each value by its place among the values of its objective.

    Dominance asks only for the order, and moocore (0.3.2) sorts points that hold infinity wrongly.
    """
    columns = [np.unique(column, return_inverse=True)[1] for column in array.T]
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float64)


def _unit_box(array: Points) -> Points:
    """Scale each objective to [0, 1]; one that is constant becomes 0 and so has no say."""
    scaled = array.copy()
    for column in scaled.T:
        finite = column[np.isfinite(column)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        width = high - low or 1.0
        column[np.isposinf(column)] = high + width
        column[np.isneginf(column)] = low - width
    low_corner, high_corner = scaled.min(axis=0), scaled.max(axis=0)
    # The halves are divided, not the difference: two huge values of opposite sign would overflow.
    half_range = high_corner / 2 - low_corner / 2
    half_range[half_range == 0.0] = 1.0
    return np.asarray((scaled / 2 - low_corner / 2) / half_range, dtype=np.float64)


def _matrix(points: ArrayLike) -> Points:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"points must have the shape (points, objectives), got {array.shape}")
    unusable = np.flatnonzero(np.isnan(array).any(axis=1))
    if len(unusable):
        raise ValueError(f"points must not hold NaN, got it in row {int(unusable[0])}")
    return np.ascontiguousarray(array)
