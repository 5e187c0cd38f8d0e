"""Early stopping by dominance: which trial goes on past a rung.

Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020) over all
objectives (Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021): at a rung a trial is compared,
at equal epochs, with all that reached that rung. They are sorted into fronts, each front in an order that keeps it
spread; the first 1 / reduction go on. What a network costs is part of the comparison from the start, so a small network
of low accuracy survives where nothing better is as small.

Pure: no Ray, no study. The caller feeds values and asks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nas import pareto

FEWEST_STEPS = 50
"""Steps of the optimizer before which accuracies say nothing: networks are at chance, and costs and luck would decide
which of them are stopped. Of 57 networks drawn from `inverted_residual`, half stood at 10% on digits after 76 steps
within a warm-up of two epochs, and rungs at epochs 1 and 3 of 9 kept as little as 0.46 of the hypervolume."""


def first_rung(steps_per_epoch: int, warmup_epochs: float) -> int:
    """The first epoch after which trials may be compared: one after the warm-up of the learning rate, and no fewer
    steps than :data:`FEWEST_STEPS`."""
    return max(math.ceil(FEWEST_STEPS / steps_per_epoch), math.ceil(warmup_epochs) + 1)


def rungs(epochs: int, reduction: int, first: int = 1) -> tuple[int, ...]:
    """The epochs at which trials are compared: `first`, times the reduction again and again.

    As long as half of the budget is left to be saved.

    >>> rungs(18, 3, first=3)
    (3, 9)
    """
    levels: list[int] = []
    level = first
    while reduction > 1 and 2 * level <= epochs:
        levels.append(level)
        level *= reduction
    return tuple(levels)


def survives(own: Sequence[float], others: Sequence[Sequence[float]], reduction: int) -> bool:
    """Whether a trial goes on.

    Args:
        own: the trial's values at the rung, every objective minimised.
        others: the values of all other trials that reached this rung, at that epoch.
        reduction: of this many trials one goes on.
    """
    points = np.array([own, *others], dtype=float)
    keep = math.ceil(len(points) / reduction)
    ranks = pareto.ranks(points)
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
