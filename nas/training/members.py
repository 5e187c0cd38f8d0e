"""The members of a space's supernet: the largest, the smallest, and random ones."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from nas.architecture.document import Architecture
from nas.architecture.space import Space, Value
from nas.costs.analytic import Cost, cost
from nas.network.supernet import has_own_weights


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


@functools.lru_cache(maxsize=4)
def option_shares(space: Space) -> dict[str, np.ndarray]:
    """Return how often members in training have each option of each choice; of a choice, the shares sum to 1.

    What a larger option has beyond the smaller ones (channels, blocks, the border of a kernel) learns only from members
    that have it. With equal shares the last of three widths learns in a third of the steps and the first in all, and
    the supernet takes wide and deep members for worse than they are. So shares go with the square of the option's rank
    by parameters. Options with weights of their own have an equal share; equally large options have equal ones.
    """
    top = largest(space)
    chosen = space.parameters(top)
    found = {}
    for name, each in space.parameters_by_name.items():
        options = [space.architecture({**chosen, name: value}) for value in each.values]
        own = np.array([has_own_weights(top, option) for option in options])
        _, ranks = np.unique([cost(option, 1).params for option in options], return_inverse=True)
        nested = np.where(own, 0, (1.0 + ranks) ** 2)
        found[name] = own / len(own) + (1 - own.mean()) * nested / nested.sum()
    return found


def draw_parameters(space: Space, count: int, rng: np.random.Generator) -> list[dict[str, Value]]:
    """Draw parameters of members, each option as often as its share says, to less than one.

    Source, of equal shares: Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture
    Search", 2021.
    """
    places = {
        name: rng.permutation(np.searchsorted(shares.cumsum()[:-1], (np.arange(count) + rng.random()) / count, "right"))
        for name, shares in option_shares(space).items()
    }
    choices = space.parameters_by_name
    return [{name: choices[name].values[places[name][turn]] for name in choices} for turn in range(count)]


def draw_members(
    space: Space, count: int, rng: np.random.Generator, *, among: Sequence[Architecture] = ()
) -> list[Architecture]:
    """Draw members for training.

    Args:
        space: whose members.
        count: of members; they may repeat.
        rng: source of the draws.
        among: members to draw from; none: all, each option as often as its share says.
    """
    if among:
        return [among[place] for place in rng.integers(len(among), size=count)]
    return [space.architecture(parameters) for parameters in draw_parameters(space, count, rng)]
