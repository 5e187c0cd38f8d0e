"""Expected hypervolume improvement in closed form, for any mix of exactly known and predicted objectives.

The improvement of a point Y is the volume that it newly dominates. The part of objective space that no front point
dominates is cut into boxes once; then, the predictions of the objectives being independent,

    EHVI = sum over boxes of  prod over objectives of  G_d(upper) - G_d(lower),   G_d(t) = E[max(t - Y_d, 0)]

(Emmerich et al., 2011; Yang et al., 2019). For a known objective ``G_d(t) = max(t - c, 0)``, so exact costs need no
case of their own and no sampling. Everything is minimised.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import ndtr

from nas.search.sampler.encoding import Array

#: Maps thresholds of shape (t,) to E[max(threshold - Y, 0)] of shape (points, t); -inf maps to 0.
Shortfall: TypeAlias = Callable[[Array], Array]


def known(values: Array) -> Shortfall:
    """Of exact values, shape (points,)."""
    return lambda thresholds: np.maximum(thresholds - values[:, None], 0.0)


def normal(mean: Array, std: Array) -> Shortfall:
    """Of normal predictions, each of shape (points,)."""

    def shortfall(thresholds: Array) -> Array:
        finite = np.isfinite(thresholds)
        z = (thresholds[finite] - mean[:, None]) / std[:, None]
        result = np.zeros((len(mean), len(thresholds)))
        result[:, finite] = std[:, None] * (z * ndtr(z) + _density(z))
        return result

    return shortfall


def shifted_lognormal(mean: Array, std: Array, shift: float) -> Shortfall:
    """Of ``shift + exp(Z)`` with normal Z: an undiscounted put option (Black and Scholes, 1973)."""

    def shortfall(thresholds: Array) -> Array:
        above = thresholds > shift
        strike = thresholds[above] - shift
        d = (np.log(strike) - mean[:, None]) / std[:, None]
        result = np.zeros((len(mean), len(thresholds)))
        expected = np.exp(np.minimum(mean + 0.5 * std**2, 700.0))[:, None]
        result[:, above] = np.maximum(strike * ndtr(d) - expected * ndtr(d - std[:, None]), 0.0)
        return result

    return shortfall


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))


@dataclass(frozen=True)
class Boxes:
    """Disjoint boxes that fill the region below ``reference`` which no front point dominates.

    Attributes:
        lower: Shape (boxes, objectives); -inf where a box is open.
        upper: Shape (boxes, objectives).
    """

    lower: Array
    upper: Array


def expected_improvement(boxes: Boxes, objectives: Sequence[Shortfall]) -> Array:
    """Expected hypervolume improvement of each point, shape (points,)."""
    product: Array | None = None
    for d, shortfall in enumerate(objectives):
        # A front has few distinct coordinates beside its many boxes.
        edges, places = np.unique(np.concatenate([boxes.lower[:, d], boxes.upper[:, d]]), return_inverse=True)
        heights = shortfall(edges)
        lower, upper = np.split(places, 2)
        extent = heights[:, upper]
        extent -= heights[:, lower]
        if product is None:
            product = extent
        else:
            product *= extent
    assert product is not None
    return np.asarray(product.sum(axis=1))


def open_boxes(front: Array, reference: Array) -> Boxes:
    """Cut up the non-dominated region.

    Args:
        front: Mutually non-dominated points, shape (points, objectives), 1 to 4 objectives.
        reference: Shape (objectives,).
    """
    inside = front[np.all(front < reference, axis=1)]
    points = [tuple(row) for row in inside.tolist()]
    cut = _CUTS[len(reference)](points, tuple(reference.tolist()))
    lower, upper = zip(*cut, strict=True)
    return Boxes(np.array(lower), np.array(upper))


_Point: TypeAlias = tuple[float, ...]
_Box: TypeAlias = tuple[_Point, _Point]
_OPEN = -np.inf


def _cut1(points: list[_Point], reference: _Point) -> list[_Box]:
    return [((_OPEN,), min([*points, reference]))]


def _cut2(points: list[_Point], reference: _Point) -> list[_Box]:
    """Strips along the first objective, each below the lowest point to its left."""
    boxes: list[_Box] = []
    left, top = _OPEN, reference[1]
    for x, y in sorted(points):
        if y >= top:
            continue
        if x > left:
            boxes.append(((left, _OPEN), (x, top)))
        left, top = x, y
    boxes.append(((left, _OPEN), (reference[0], top)))
    return boxes


def _cut3(points: list[_Point], reference: _Point) -> list[_Box]:
    """Sweep along the third objective and keep the strips of the first two; a point touches only strips near it.

    O(n log n) steps and at most 2 n + 1 boxes.
    """
    boxes: list[_Box] = []
    # Strip j reaches from lefts[j] to lefts[j + 1], lies below tops[j], and is as it is since level since[j].
    lefts, tops, since = [_OPEN], [reference[1]], [_OPEN]

    def close(j: int, level: float) -> None:
        right = lefts[j + 1] if j + 1 < len(lefts) else reference[0]
        if level > since[j] and right > lefts[j]:
            boxes.append(((lefts[j], _OPEN, since[j]), (right, tops[j], level)))

    for x, y, z in sorted(points, key=lambda p: (p[2], p[0], p[1])):
        before = bisect_right(lefts, x) - 1
        if tops[before] <= y:
            continue
        first = bisect_left(lefts, x)
        last = first
        while last < len(lefts) and tops[last] >= y:
            last += 1
        for j in range(first - 1, last):
            close(j, z)
        since[first - 1] = z
        lefts[first:last], tops[first:last], since[first:last] = [x], [y], [z]
    for j in range(len(lefts)):
        close(j, reference[2])
    return boxes


def _cut4(points: list[_Point], reference: _Point) -> list[_Box]:
    """Sweep along the fourth objective; boxes that two neighbouring slabs share are joined."""
    boxes: list[_Box] = []
    active: dict[_Box, float] = dict.fromkeys(_cut3([], reference[:3]), _OPEN)
    below: list[_Point] = []
    for point in sorted(points, key=lambda p: (p[3], p)):
        below.append(point[:3])
        current = dict.fromkeys(_cut3(below, reference[:3]), point[3])
        for box, start in active.items():
            if box in current:
                current[box] = start
            elif point[3] > start:
                boxes.append(((*box[0], start), (*box[1], point[3])))
        active = current
    boxes.extend(((*box[0], start), (*box[1], reference[3])) for box, start in active.items())
    return boxes


_CUTS: dict[int, Callable[[list[_Point], _Point], list[_Box]]] = {1: _cut1, 2: _cut2, 3: _cut3, 4: _cut4}
