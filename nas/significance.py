"""Tell differences of accuracy from chance: intervals, tests, agreement of orders. Plain numbers in and out."""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """An accuracy less another, and its 95 % interval; in [-1, 1]."""

    gap: float
    low: float
    high: float

    @property
    def is_distinguishable(self) -> bool:
        """Return whether the interval leaves no difference out."""
        return self.low > 0 or self.high < 0


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy that was counted on so many images."""
    interval = stats.binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def unpaired(first: float, second: float, images: int) -> Difference:
    """Compare two accuracies, each counted on so many images, by Newcombe's hybrid score interval (1998, method 10).

    Where both judged the same images it is too wide rather than too narrow, since networks err on the same ones.
    """
    gap = first - second
    (low_a, high_a), (low_b, high_b) = wilson(first, images), wilson(second, images)
    below = math.hypot(first - low_a, high_b - second)
    above = math.hypot(high_a - first, second - low_b)
    return Difference(gap, gap - below, gap + above)


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare mean accuracies over trainings with different seeds, at least two each, by Welch's t interval."""
    gap = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == np.ptp(second) == 0:
        return Difference(gap, gap, gap)
    interval = _welch(first, second).confidence_interval(CONFIDENCE)
    return Difference(gap, float(interval.low), float(interval.high))


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the p-value of Welch's t-test; at least two values each."""
    if np.ptp(first) == np.ptp(second) == 0:
        return float(np.mean(first) == np.mean(second))
    return float(_welch(first, second).pvalue)


def _welch(first: Sequence[float], second: Sequence[float]) -> Any:
    with warnings.catch_warnings():
        # Of equal values on one side: few seeds on few images often give the same accuracy.
        warnings.simplefilter("ignore", RuntimeWarning)
        return stats.ttest_ind(first, second, equal_var=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None of fewer than three, or where one of the figures is the same for all."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)


@dataclass(frozen=True)
class Agreement:
    """Pairs of networks that two figures order alike, in the opposite way, or tie."""

    same: int
    opposite: int
    tied: int
    tau: float

    @property
    def pairs(self) -> int:
        return self.same + self.opposite + self.tied


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement | None:
    """Count pairs in order, with Kendall's tau-b; None where one of the figures is the same for all."""
    tau = float(stats.kendalltau(first, second).statistic) if len(first) > 1 else math.nan
    if math.isnan(tau):
        return None
    signs = [
        np.sign((a[0] - b[0]) * (a[1] - b[1])) for a, b in itertools.combinations(zip(first, second, strict=True), 2)
    ]
    return Agreement(signs.count(1), signs.count(-1), signs.count(0), tau)
