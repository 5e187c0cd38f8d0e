"""Early stopping by dominance: which trial goes on past a rung.

Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020) over all
objectives (Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021): at a rung a trial is compared,
at equal epochs, with all that reached that rung. They are sorted into fronts, each front in an order that keeps it
spread; the first 1 / reduction go on. What a network costs is part of the comparison from the start, so a small network
of low accuracy survives where nothing better is as small.

Unlike there, a trial that no other dominates goes on however many they are. Among few trials a third of them is less
than a front, and what is stopped for its place in the front's order may be the best of all: in the worst of 50 orders
of 60 recorded networks (`benchmarks/early_stopping.py`) that left 0.09 of the hypervolume, and this rule 0.92.

Pure: no Ray, no study. The caller feeds values and asks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nas import pareto

FEWEST_STEPS = 32
"""Steps of the optimizer before which accuracies say little, and costs and luck would decide what is stopped."""


def first_rung(steps_per_epoch: int) -> int:
    """The first epoch after which trials may be compared."""
    return math.ceil(FEWEST_STEPS / steps_per_epoch)


def rungs(epochs: int, first: int = 1) -> tuple[int, ...]:
    """The epochs at which trials are compared: `first`, doubled again and again while half of the budget is left.

    Li et al. space rungs by the reduction, so that each costs the same. Here more than one in `reduction` goes on,
    since what no other dominates does: at a reduction of 3, 0.40, 0.54 and 0.78 of the trials at the rungs (1, 2, 4),
    about a half, and so rungs double. Rungs (1, 3) instead saved 3.20 times the epochs, not 3.66, and kept 0.973 of the
    hypervolume in the median of 50 orders, not 0.985; 0.943 in the worst one, not 0.930
    (`benchmarks/early_stopping.py`).

    >>> rungs(18, first=2)
    (2, 4, 8)
    """
    levels: list[int] = []
    level = first
    while 2 * level <= epochs:
        levels.append(level)
        level *= 2
    return tuple(levels)


def survives(own: Sequence[float], others: Sequence[Sequence[float]], reduction: int) -> bool:
    """Return whether a trial goes on: no other dominates it, or it is among the best 1 / reduction of all.

    Args:
        own: the trial's values at the rung, every objective minimised.
        others: the values of all other trials that reached this rung, at that epoch.
        reduction: of this many trials one goes on.
    """
    points = np.array([own, *others], dtype=float)
    ranks = pareto.ranks(points)
    if ranks[0] == 0:
        return True
    keep = math.ceil(len(points) / reduction)
    better = int((ranks < ranks[0]).sum())
    peers = np.flatnonzero(ranks == ranks[0])
    if better + len(peers) <= keep:
        return True
    order = pareto.spread_order(points[peers])
    place = better + int(np.flatnonzero(peers[order] == 0)[0])
    return place < keep


@dataclass
class DominanceStopping:
    """The rule with its memory: what trials reached at the rungs. Rebuilt from the study when a run is resumed."""

    levels: tuple[int, ...]
    reduction: int
    reached: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)

    def record(self, trial: int, epoch: int, values: Sequence[float]) -> None:
        """Note what a trial reached; only rungs matter."""
        if epoch in self.levels:
            self.reached.setdefault(epoch, {})[trial] = tuple(values)

    def stops(self, trial: int, epoch: int, values: Sequence[float]) -> bool:
        """Note what a trial reached and say whether it ends here.

        Args:
            trial: its number.
            epoch: epochs trained, from 1.
            values: every objective minimised.
        """
        self.record(trial, epoch, values)
        if epoch not in self.levels:
            return False
        others = [point for number, point in self.reached[epoch].items() if number != trial]
        return not survives(values, others, self.reduction)
