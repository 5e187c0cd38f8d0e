"""The members of a space's supernet: the largest, the smallest, and random ones."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from nas.architecture.document import Architecture
from nas.architecture.space import Space, Value
from nas.costs.analytic import Cost, cost


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


def draw_members(
    space: Space, count: int, rng: np.random.Generator, *, among: Sequence[Architecture] = ()
) -> list[Architecture]:
    """Draw members in which the options of every choice are equally frequent.

    Source: Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search", 2021.

    Args:
        space: whose members.
        count: of members; they may repeat.
        rng: source of the draws.
        among: members to draw from, whatever their options; none: all.
    """
    if among:
        return [among[place] for place in rng.integers(len(among), size=count)]
    turns = {
        name: [each.values[turn] for turn in rng.permutation(np.resize(rng.permutation(len(each.values)), count))]
        for name, each in space.parameters_by_name.items()
    }
    return [space.architecture({name: turn[place] for name, turn in turns.items()}) for place in range(count)]
