"""The members of a space's supernet: the largest, the smallest, and random ones drawn by cost."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from nas.architecture.document import Architecture
from nas.architecture.space import Space, Value
from nas.costs.analytic import Cost, cost

DRAWS = 8
"""A random member is the one of so many whose cost is nearest to a cost drawn evenly."""


def largest(space: Space) -> Architecture:
    """Return the network whose every choice has the most parameters, of equal ones the most MACs; largest images.

    Parameters come first: what a stride adds, such as a shortcut's convolution, members can be slices of.
    """
    return _extreme(space, lambda figures: (figures.params, figures.macs), max(space.resolutions))


def smallest(space: Space) -> Architecture:
    """Return the network whose every choice has the fewest parameters, of equal ones the fewest MACs."""
    return _extreme(space, lambda figures: (-figures.params, -figures.macs), min(space.resolutions))


def _extreme(space: Space, wanted: Callable[[Cost], tuple[int, int]], resolution: int) -> Architecture:
    fixed = space.with_input(channels=space.sample(0).input.channels, resolution=resolution)
    choices = fixed.parameters_by_name
    chosen: dict[str, Value] = {name: each.values[0] for name, each in choices.items()}

    def worth(name: str, value: Value) -> tuple[int, int]:
        return wanted(cost(fixed.architecture({**chosen, name: value}), 1))

    for _ in range(2):  # a choice's effect may show only beside another's, such as `combine` with several kernels
        for name, each in choices.items():
            chosen[name] = max(each.values, key=functools.partial(worth, name))
    return fixed.architecture(chosen)


def every_option(space: Space) -> list[Architecture]:
    """Return networks that have every option of every choice between them."""
    choices = space.parameters_by_name
    turns = range(max((len(each.values) for each in choices.values()), default=1))
    return [
        space.architecture({name: each.values[turn % len(each.values)] for name, each in choices.items()})
        for turn in turns
    ]


class Members:
    """Draws members so that small and large ones are met equally often: evenly over the logarithm of their MACs.

    Args:
        space: whose members.
        among: members to draw from; none: all.
    """

    def __init__(self, space: Space, among: Sequence[Architecture] = ()) -> None:
        self.space = space
        self.smallest = smallest(space)
        macs = [math.log(_macs(each)) for each in among or (self.smallest, largest(space))]
        self._among = list(zip(among, macs, strict=False))
        self._ends = min(macs), max(macs)

    def draw(self, rng: np.random.Generator) -> Architecture:
        wanted = rng.uniform(*self._ends)
        drawn = [self._any(rng) for _ in range(DRAWS)]
        return min(drawn, key=lambda each: abs(each[1] - wanted))[0]

    def _any(self, rng: np.random.Generator) -> tuple[Architecture, float]:
        if self._among:
            return self._among[rng.integers(len(self._among))]
        member = self.space.sample(rng)
        return member, math.log(_macs(member))


def _macs(architecture: Architecture) -> int:
    return cost(architecture, 1).macs
