"""The machine's speed while networks were timed in turn, told from the networks themselves.

A host that others use too changes its speed by 5 to 30% from second to second. A network's fastest runs are then those
that a fast second met by luck, and the fewer such seconds the more of a lottery: over two halves of the same ten rounds
of 138 networks, the fastest rounds of one and the same network differed by 8.3% (standard deviation of one), their 20%
quantiles by 3.4%, their medians by 3.1%; the medians after the drift told by the neighbours was divided out, by 2.6%
(Intel Xeon, ONNX Runtime, one run of 240 s).
"""

import math
import warnings

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

NEIGHBOURS = 8
"""Visits before and after one that tell how fast the machine was; fewer networks tell nothing."""
PASSES = 5


def slowness(times: Times, at: npt.NDArray[np.int64]) -> Times:
    """Return how slow the machine was at every visit, 1 at its usual speed.

    A network's time over its own median says how slow the machine was, and the network's luck; the median over the
    visits around it, without its own, says how slow the machine was.

    Args:
        times: (networks, rounds); NaN where a visit does not count.
        at: of the same shape: each visit's place in the order of all.

    Returns:
        Factors of the same shape; ones where there are too few networks to tell.
    """
    networks, rounds = times.shape
    if networks < NEIGHBOURS or rounds < 2:
        return np.ones_like(times)
    logs = np.log(times)
    drift = np.zeros_like(logs)
    order = np.argsort(at, axis=None)
    back = np.argsort(order)
    reach = np.array([*range(-NEIGHBOURS, 0), *range(1, NEIGHBOURS + 1)])
    near = np.arange(logs.size)[:, None] + reach
    outside = (near < 0) | (near >= logs.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about medians of nothing
        for _ in range(PASSES):
            usual = np.nanmedian(logs - drift, axis=1, keepdims=True)
            excess = (logs - usual).ravel()[order]
            around = np.where(outside, np.nan, excess[near.clip(0, logs.size - 1)])
            drift = np.nan_to_num(np.nanmedian(around, axis=1))
            drift *= _certainty(drift, excess - drift)
            drift = drift[back].reshape(logs.shape)
    return np.exp(drift - np.median(drift))


def _certainty(drift: Times, luck: Times) -> float:
    """Return the share of the medians' changes that is drift and not their own noise, in [0, 1] (Wiener's filter)."""
    luck_of_a_median = math.pi / 2 * float(np.nanvar(luck)) / (2 * NEIGHBOURS)
    variance = float(np.var(drift))
    return max(0.0, 1 - luck_of_a_median / variance) if variance > 0 else 0.0
