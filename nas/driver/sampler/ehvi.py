"""Expected hypervolume improvement in closed form, for any mix of exactly known and predicted objectives.

The improvement of a point Y is the volume that it newly dominates. The part of objective space that no front point
dominates is cut into boxes once; then, the predictions of the objectives being independent,

    EHVI = sum over boxes of  prod over objectives of  G_d(upper) - G_d(lower),   G_d(t) = E[max(t - Y_d, 0)]

(Emmerich et al., 2011; Yang et al., 2019). For a known objective ``G_d(t) = max(t - c, 0)``, so exact costs need no
case of their own and no sampling. Everything is minimised.

All of it is computed as logarithms (Ament et al., 2023): where a model is sure that a point is worse than the front,
the expectation is far below the smallest float, and candidates that differ by orders of magnitude would all score 0.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import erfcx, ndtr

from nas.driver.sampler.encoding import Array

#: Maps thresholds of shape (t,) to log E[max(threshold - Y, 0)] of shape (points, t); -inf where that is 0.
Shortfall: TypeAlias = Callable[[Array], Array]

_TAIL = -1.0  # below so many standard deviations the density is taken out, so that nothing cancels


def known(values: Array) -> Shortfall:
    """Return the shortfall of exact values, shape (points,)."""

    def shortfall(thresholds: Array) -> Array:
        return _log(np.maximum(thresholds - values[:, None], 0.0))

    return shortfall


def normal(mean: Array, std: Array) -> Shortfall:
    """Return the shortfall of normal predictions, each of shape (points,)."""

    def shortfall(thresholds: Array) -> Array:
        finite = np.isfinite(thresholds)
        z = (thresholds[finite] - mean[:, None]) / std[:, None]
        result = np.full((len(mean), len(thresholds)), -np.inf)
        result[:, finite] = np.log(std)[:, None] + _log_normal(z)
        return result

    return shortfall


def _log_normal(z: Array) -> Array:
    """Compute log(density(z) + z ndtr(z)), the shortfall of a standard normal."""
    body = z > _TAIL
    result = np.empty_like(z)
    result[body] = np.log(np.exp(_log_density(z[body])) + z[body] * ndtr(z[body]))
    result[~body] = _log_density(z[~body]) + _log(np.maximum(1.0 + z[~body] * _mills(-z[~body]), 0.0))
    return result


def shifted_lognormal(mean: Array, std: Array, shift: float) -> Shortfall:
    """Return the shortfall of ``shift + exp(Z)`` with normal Z: a put option (Black and Scholes, 1973)."""

    def shortfall(thresholds: Array) -> Array:
        above = thresholds > shift
        log_strike = np.log(thresholds[above] - shift)
        d = (log_strike - mean[:, None]) / std[:, None]
        result = np.full((len(mean), len(thresholds)), -np.inf)
        result[:, above] = log_strike + _log_lognormal(d, np.broadcast_to(std[:, None], d.shape))
        return result

    return shortfall


def _log_lognormal(d: Array, std: Array) -> Array:
    """Compute log(ndtr(d) - exp(std^2 / 2 - d std) ndtr(d - std)), the put in units of its strike.

    The second term is also density(d) mills(std - d), and the first one density(d) mills(-d).
    """
    result = np.empty_like(d)
    body = d > _TAIL
    x, s = d[body], std[body]
    inside = x > s
    second = np.empty_like(x)
    second[inside] = np.exp((0.5 * s - x)[inside] * s[inside]) * ndtr((x - s)[inside])
    second[~inside] = np.exp(_log_density(x[~inside])) * _mills((s - x)[~inside])
    result[body] = _log(np.maximum(ndtr(x) - second, 0.0))
    x, s = d[~body], std[~body]
    result[~body] = _log_density(x) + _log(np.maximum(_mills(-x) - _mills(s - x), 0.0))
    return result


def _log_density(z: Array) -> Array:
    return np.asarray(-0.5 * z * z - 0.5 * np.log(2.0 * np.pi))


def _mills(x: Array) -> Array:
    """Compute Mills' ratio ndtr(-x) / density(x), for x that are not far below 0."""
    return np.asarray(np.sqrt(0.5 * np.pi) * erfcx(x / np.sqrt(2.0)))


def _log(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


@dataclass(frozen=True)
class Boxes:
    """Disjoint boxes that fill the region below ``reference`` which no front point dominates.

    Attributes:
        lower: Shape (boxes, objectives); -inf where a box is open.
        upper: Shape (boxes, objectives).
    """

    lower: Array
    upper: Array


def log_expected_improvement(boxes: Boxes, objectives: Sequence[Shortfall]) -> Array:
    """Compute the log expected hypervolume improvement of each point, shape (points,); -inf where it is exactly 0."""
    total: Array | None = None
    for d, shortfall in enumerate(objectives):
        # A front has few distinct coordinates beside its many boxes.
        edges, places = np.unique(np.concatenate([boxes.lower[:, d], boxes.upper[:, d]]), return_inverse=True)
        heights = shortfall(edges)
        lower, upper = np.split(places, 2)
        extent = _log_difference(heights[:, upper], heights[:, lower])
        total = extent if total is None else total + extent
    assert total is not None
    largest = total.max(axis=1)
    scale = np.where(np.isfinite(largest), largest, 0.0)
    return np.asarray(scale + _log(np.exp(total - scale[:, None]).sum(axis=1)))


def _log_difference(larger: Array, smaller: Array) -> Array:
    """Compute log(exp(larger) - exp(smaller)), elementwise; -inf where there is none."""
    with np.errstate(invalid="ignore"):
        ratio = np.where(smaller < larger, smaller - larger, 0.0)
    return np.asarray(larger + _log(-np.expm1(ratio)))


def open_boxes(front: Array, reference: Array) -> Boxes:
    """Cut up the non-dominated region.

    One or two objectives are a sweep along the third in which nothing moves.

    Args:
        front: Mutually non-dominated points, shape (points, objectives), 1 to 4 objectives.
        reference: Shape (objectives,).
    """
    objectives = len(reference)
    inside = front[np.all(front < reference, axis=1)]
    points = np.pad(inside, ((0, 0), (0, max(3 - objectives, 0))), constant_values=_OPEN)
    corner = np.pad(reference, (0, max(3 - objectives, 0)))
    sweep = _sweep_fourth if objectives == 4 else _sweep_third
    boxes = np.array(sweep([tuple(row) for row in points.tolist()], tuple(corner.tolist())))
    return Boxes(boxes[:, 0, :objectives], boxes[:, 1, :objectives])


_Point: TypeAlias = tuple[float, ...]
_Box: TypeAlias = tuple[_Point, _Point]
_OPEN = -np.inf


def _sweep_third(points: list[_Point], reference: _Point) -> list[_Box]:
    """Sweep along the third objective and keep the strips of the first two; a point touches only strips near it.

    O(n log n) steps and at most 2 n + 1 boxes.
    """
    boxes: list[_Box] = []
    # Strip j reaches from lefts[j] to lefts[j + 1], lies below tops[j], and is as it is since level since[j].
    lefts, tops, since = [_OPEN], [reference[1]], [_OPEN]

    def close(j: int, level: float) -> None:
        right = lefts[j + 1] if j + 1 < len(lefts) else reference[0]
        if level > since[j] and right > lefts[j] and tops[j] > _OPEN:
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


def _sweep_fourth(points: list[_Point], reference: _Point) -> list[_Box]:
    """Sweep along the fourth objective; boxes that two neighbouring slabs share are joined."""
    boxes: list[_Box] = []
    active: dict[_Box, float] = dict.fromkeys(_sweep_third([], reference[:3]), _OPEN)
    below: list[_Point] = []
    for point in sorted(points, key=lambda p: (p[3], p)):
        below.append(point[:3])
        level = point[3]
        current = dict.fromkeys(_sweep_third(below, reference[:3]), level)
        for box, start in active.items():
            if box in current:
                current[box] = start
            elif level > start:
                boxes.append(((*box[0], start), (*box[1], level)))
        active = current
    boxes.extend(((*box[0], start), (*box[1], reference[3])) for box, start in active.items())
    return boxes
