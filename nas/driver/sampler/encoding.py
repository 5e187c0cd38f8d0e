"""Parameters as rows of numbers: what the model and the candidate generator work on.

A row holds the position of each parameter's level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

_FAR = 0.5  # how often a mutation goes anywhere rather than nearby
_NEIGHBOURS_FROM = 3  # with so few levels all are neighbours


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        levels: Its values.
        positions: Where each level lies in [0, 1], or None when the levels have no order.
    """

    name: str
    distribution: CategoricalDistribution
    levels: tuple[Any, ...]
    positions: tuple[float, ...] | None

    @staticmethod
    def of(name: str, distribution: BaseDistribution) -> Axis:
        """Make the axis of a parameter.

        Raises:
            TypeError: It is not categorical.
        """
        if not isinstance(distribution, CategoricalDistribution):
            raise TypeError(f"search_space[{name!r}] is {distribution!r}; only categorical parameters are searched")
        return Axis(name, distribution, tuple(distribution.choices), _ranks(distribution.choices))

    def encode(self, value: Any) -> float | None:
        """Return the position of a level; None when the value is none."""
        try:
            return float(self.distribution.to_internal_repr(value))
        except ValueError:
            return None


@dataclass(frozen=True)
class Moves:
    """Possible changes of the parameters that have more than one level.

    Attributes:
        axes: Their positions, shape (movable,), as all of the others.
        counts: Levels.
        far: Probability of a move to anywhere.
        below, above: The neighbour of each level, shape (movable, levels); at an end both are the only one.
    """

    axes: IntArray
    counts: IntArray
    far: Array
    below: IntArray
    above: IntArray


@dataclass(frozen=True)
class Encoding:
    """A search space as axes, in the order of its names."""

    axes: tuple[Axis, ...]

    @staticmethod
    def of(search_space: Mapping[str, BaseDistribution]) -> Encoding:
        return Encoding(tuple(Axis.of(name, search_space[name]) for name in sorted(search_space)))

    @cached_property
    def size(self) -> int:
        """The number of points."""
        return math.prod(len(axis.levels) for axis in self.axes)

    @cached_property
    def moves(self) -> Moves:
        movable = [i for i, axis in enumerate(self.axes) if len(axis.levels) > 1]
        counts = np.array([len(self.axes[i].levels) for i in movable], dtype=np.int64)
        far = np.ones(len(movable))
        below, above = np.zeros((2, len(movable), counts.max(initial=1)), dtype=np.int64)
        for row, i in enumerate(movable):
            positions = self.axes[i].positions
            if positions is not None and len(positions) > _NEIGHBOURS_FROM:
                far[row] = _FAR
                order = np.argsort(positions, kind="stable")
                below[row, order] = np.concatenate([order[1:2], order[:-1]])
                above[row, order] = np.concatenate([order[1:], order[-2:-1]])
        return Moves(np.array(movable, dtype=np.int64), counts, far, below, above)

    def encode(self, params: Mapping[str, Any]) -> Array | None:
        """Return the row of a parameter dict; None when a parameter is missing or lies outside the space."""
        row = [axis.encode(params[axis.name]) if axis.name in params else None for axis in self.axes]
        return None if None in row else np.array(row, dtype=np.float64)

    def decode(self, row: Array) -> dict[str, Any]:
        return {axis.name: axis.levels[int(number)] for axis, number in zip(self.axes, row.tolist(), strict=True)}

    def stack(self, rows: Sequence[Array]) -> Array:
        """Return rows as one array of shape (rows, parameters), none included."""
        return np.reshape(rows, (len(rows), len(self.axes)))

    def point(self, index: int) -> Array:
        """Return row number ``index`` of the space; the first parameter changes fastest."""
        shape = [len(axis.levels) for axis in self.axes]
        return np.array(np.unravel_index(index, shape, order="F"), dtype=np.float64)


def _ranks(levels: Sequence[Any]) -> tuple[float, ...] | None:
    """Return positions by rank when all levels are numbers: 1, 2, 3, 4, 6 of an expansion are an ordered scale."""
    if len(levels) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels):
        return None
    places = np.argsort(np.argsort(np.array(levels, dtype=np.float64), kind="stable"), kind="stable")
    return tuple((places / (len(levels) - 1)).tolist())
