"""Parameters as rows of numbers: what the model and the candidate generator work on.

A row holds one number per parameter: the position of the level for a parameter with few values (any categorical one,
and integers and stepped floats of up to ``MAX_LEVELS`` values), else a coordinate in [0, 1], on the log scale where
the distribution is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

MAX_LEVELS = 64
_FAR_CONTINUOUS, _FAR_LEVELS = 0.2, 0.5  # how often a mutation goes anywhere rather than nearby
_NEIGHBOURS_FROM = 3  # with so few levels all are neighbours


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        levels: Its values in external representation, or None when it is treated as continuous.
        positions: Where each level lies in [0, 1], or None when the levels have no order.
    """

    name: str
    distribution: BaseDistribution
    levels: tuple[Any, ...] | None
    positions: tuple[float, ...] | None

    def encode(self, value: Any) -> float | None:
        """Return the number of an external value; None when the value is not one of this axis."""
        try:
            internal = self.distribution.to_internal_repr(value)
        except (ValueError, TypeError):
            return None
        if not self.distribution._contains(internal):
            return None
        if isinstance(self.distribution, CategoricalDistribution):
            return float(int(internal))
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        if self.levels is not None:
            return float(round((internal - self.distribution.low) / (self.distribution.step or 1)))
        low, high = _bounds(self.distribution)
        return (_scale(internal, self.distribution.log) - low) / (high - low)

    def decode(self, number: float) -> Any:
        """Return the external value of a number."""
        if self.levels is not None:
            return self.levels[int(number)]
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        low, high = _bounds(self.distribution)
        scaled = low + min(max(number, 0.0), 1.0) * (high - low)
        value = math.exp(scaled) if self.distribution.log else scaled
        if self.distribution.step is not None:
            step = self.distribution.step
            value = self.distribution.low + step * round((value - self.distribution.low) / step)
        value = min(max(value, self.distribution.low), self.distribution.high)
        return int(value) if isinstance(self.distribution, IntDistribution) else float(value)


@dataclass(frozen=True)
class Moves:
    """Possible changes of the parameters that have more than one value.

    Attributes:
        axes: Their positions, shape (movable,), as all of the others.
        counts: Levels; 2 for a continuous one, where it is not used.
        far: Probability of a move to anywhere.
        below, above: The neighbour of each level, shape (movable, levels); at an end both are the only one.
    """

    axes: IntArray
    counts: IntArray
    is_continuous: NDArray[np.bool_]
    far: Array
    below: IntArray
    above: IntArray


@dataclass(frozen=True)
class Encoding:
    """A search space as axes, in the order of its names."""

    axes: tuple[Axis, ...]

    @staticmethod
    def of(search_space: Mapping[str, BaseDistribution]) -> Encoding:
        return Encoding(tuple(make_axis(name, search_space[name]) for name in sorted(search_space)))

    @cached_property
    def size(self) -> float:
        """The number of points, infinite when a parameter is continuous."""
        return math.prod(math.inf if axis.levels is None else len(axis.levels) for axis in self.axes)

    @cached_property
    def moves(self) -> Moves:
        movable = [i for i, axis in enumerate(self.axes) if axis.levels is None or len(axis.levels) > 1]
        axes = [self.axes[i] for i in movable]
        counts = np.array([len(axis.levels or (0, 1)) for axis in axes], dtype=np.int64)
        far = np.ones(len(axes))
        below, above = np.zeros((2, len(axes), counts.max(initial=1)), dtype=np.int64)
        for row, axis in enumerate(axes):
            if axis.levels is None:
                far[row] = _FAR_CONTINUOUS
            elif axis.positions is not None and len(axis.positions) > _NEIGHBOURS_FROM:
                far[row] = _FAR_LEVELS
                order = np.argsort(axis.positions, kind="stable")
                below[row, order] = np.concatenate([order[1:2], order[:-1]])
                above[row, order] = np.concatenate([order[1:], order[-2:-1]])
        is_continuous = np.array([axis.levels is None for axis in axes], dtype=np.bool_)
        return Moves(np.array(movable, dtype=np.int64), counts, is_continuous, far, below, above)

    def encode(self, params: Mapping[str, Any]) -> Array | None:
        """Return the row of a parameter dict; None when a parameter is missing or lies outside the space."""
        row = np.empty(len(self.axes))
        for i, axis in enumerate(self.axes):
            number = axis.encode(params[axis.name]) if axis.name in params else None
            if number is None:
                return None
            row[i] = number
        return row

    def decode(self, row: Array) -> dict[str, Any]:
        return {axis.name: axis.decode(number) for axis, number in zip(self.axes, row.tolist(), strict=True)}

    def stack(self, rows: Sequence[Array]) -> Array:
        """Return rows as one array of shape (rows, parameters), none included."""
        return np.reshape(rows, (len(rows), len(self.axes)))

    def key(self, row: Array) -> Hashable:
        """Return a value that rows of the same parameters share."""
        if self.size == math.inf:  # many coordinates round to one integer
            same = self.encode(self.decode(row))
            assert same is not None
            row = same
        return row.tobytes()

    def point(self, index: int) -> Array:
        """Return row number ``index`` of an enumerable space; the first parameter changes fastest."""
        shape = [len(axis.levels or ()) for axis in self.axes]
        return np.array(np.unravel_index(index, shape, order="F"), dtype=np.float64)


def make_axis(name: str, distribution: BaseDistribution) -> Axis:
    """Make the axis of a parameter.

    Raises:
        TypeError: Optuna has no such distribution.
    """
    if isinstance(distribution, CategoricalDistribution):
        return Axis(name, distribution, tuple(distribution.choices), _ranks(distribution.choices))
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        raise TypeError(f"search_space[{name!r}] has the unknown distribution {distribution!r}")
    low, step = distribution.low, distribution.step
    count = 1 if distribution.single() else round((distribution.high - low) / step) + 1 if step else math.inf
    if count > MAX_LEVELS:
        return Axis(name, distribution, None, None)
    levels = tuple(low + i * (step or 0) for i in range(int(count)))
    scaled = np.array([_scale(level, distribution.log) for level in levels])
    return Axis(name, distribution, levels, tuple(((scaled - scaled[0]) / (np.ptp(scaled) or 1.0)).tolist()))


def _ranks(levels: Sequence[Any]) -> tuple[float, ...] | None:
    """Return positions by rank when all levels are numbers: 1, 2, 3, 4, 6 of an expansion are an ordered scale."""
    if len(levels) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels):
        return None
    places = np.argsort(np.argsort(np.array(levels, dtype=np.float64), kind="stable"), kind="stable")
    return tuple((places / (len(levels) - 1)).tolist())


def _bounds(distribution: IntDistribution | FloatDistribution) -> tuple[float, float]:
    return _scale(distribution.low, distribution.log), _scale(distribution.high, distribution.log)


def _scale(value: float, log: bool) -> float:
    return math.log(value) if log else float(value)
