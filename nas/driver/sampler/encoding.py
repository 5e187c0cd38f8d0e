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

    @property
    def is_continuous(self) -> bool:
        return self.levels is None

    def encode(self, value: Any) -> float | None:
        """The number of an external value; None when the value is not one of this axis."""
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
            step = self.distribution.step or 1
            return float(round((internal - self.distribution.low) / step))
        low, high = _bounds(self.distribution)
        return (_scale(internal, self.distribution.log) - low) / (high - low)

    def decode(self, number: float) -> Any:
        """The external value of a number."""
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
        return make_moves(self.axes)

    def encode(self, params: Mapping[str, Any]) -> Array | None:
        """The row of a parameter dict; None when a parameter is missing or lies outside the space."""
        row = np.empty(len(self.axes))
        for i, axis in enumerate(self.axes):
            number = axis.encode(params[axis.name]) if axis.name in params else None
            if number is None:
                return None
            row[i] = number
        return row

    def decode(self, row: Array) -> dict[str, Any]:
        return {axis.name: axis.decode(number) for axis, number in zip(self.axes, row.tolist(), strict=True)}

    def key(self, row: Array) -> Hashable:
        """Value that rows of the same parameters share."""
        if self.size == math.inf:
            # Many coordinates round to one integer.
            same = self.encode(self.decode(row))
            assert same is not None
            row = same
        return row.tobytes()

    def point(self, index: int) -> Array:
        """Row number ``index`` of an enumerable space, in mixed-radix order."""
        row = np.empty(len(self.axes))
        for i, axis in enumerate(self.axes):
            assert axis.levels is not None
            index, row[i] = divmod(index, len(axis.levels))
        return row


def make_moves(all_axes: Sequence[Axis]) -> Moves:
    movable = [i for i, axis in enumerate(all_axes) if axis.is_continuous or len(axis.levels or ()) > 1]
    axes = [all_axes[i] for i in movable]
    widest = max((len(axis.levels or ()) for axis in axes), default=0)
    below, above = np.zeros((len(axes), widest), dtype=np.int64), np.zeros((len(axes), widest), dtype=np.int64)
    far = np.ones(len(axes))
    for row, axis in enumerate(axes):
        if axis.is_continuous:
            far[row] = _FAR_CONTINUOUS
        elif axis.positions is not None and len(axis.positions) > _NEIGHBOURS_FROM:
            far[row] = _FAR_LEVELS
            order = np.argsort(axis.positions, kind="stable")
            below[row, order] = np.concatenate([order[1:2], order[:-1]])
            above[row, order] = np.concatenate([order[1:], order[-2:-1]])
    return Moves(
        axes=np.array(movable, dtype=np.int64),
        counts=np.array([len(axis.levels or (0, 1)) for axis in axes], dtype=np.int64),
        is_continuous=np.array([axis.is_continuous for axis in axes], dtype=np.bool_),
        far=far,
        below=below if widest else np.zeros((len(axes), 1), dtype=np.int64),
        above=above if widest else np.zeros((len(axes), 1), dtype=np.int64),
    )


def make_axis(name: str, distribution: BaseDistribution) -> Axis:
    """Raises: TypeError for a distribution that Optuna does not have."""
    if isinstance(distribution, CategoricalDistribution):
        levels = tuple(distribution.choices)
        return Axis(name, distribution, levels, _order(levels))
    if isinstance(distribution, IntDistribution):
        numbers = range(distribution.low, distribution.high + 1, distribution.step)
        if len(numbers) <= MAX_LEVELS:
            scaled = np.array([_scale(v, distribution.log) for v in numbers])
            return Axis(name, distribution, tuple(numbers), _unit(scaled))
        return Axis(name, distribution, None, None)
    if isinstance(distribution, FloatDistribution):
        if distribution.single():
            return Axis(name, distribution, (distribution.low,), (0.0,))
        if distribution.step is not None:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            if count <= MAX_LEVELS:
                values = tuple(distribution.low + i * distribution.step for i in range(count))
                return Axis(name, distribution, values, _unit(np.array(values)))
        return Axis(name, distribution, None, None)
    raise TypeError(f"search_space[{name!r}] has the unknown distribution {distribution!r}")


def _order(levels: tuple[Any, ...]) -> tuple[float, ...] | None:
    """Positions by rank when all levels are numbers: 1, 2, 3, 4, 6 of an expansion are an ordered scale."""
    if len(levels) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels):
        return None
    places = np.argsort(np.argsort(np.array(levels, dtype=np.float64), kind="stable"), kind="stable")
    return tuple((places / (len(levels) - 1)).tolist())


def _unit(scaled: Array) -> tuple[float, ...]:
    width = float(scaled[-1] - scaled[0])
    return tuple(((scaled - scaled[0]) / width).tolist()) if width else (0.0,)


def _bounds(distribution: IntDistribution | FloatDistribution) -> tuple[float, float]:
    return _scale(distribution.low, distribution.log), _scale(distribution.high, distribution.log)


def _scale(value: float, log: bool) -> float:
    return math.log(value) if log else float(value)
