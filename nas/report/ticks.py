"""Ticks of axes that plotly labels badly."""

import math
from typing import Any


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers for a logarithmic axis; the more of each decade, the fewer decades there are.

    Within a factor of three they are as far apart as on a linear axis, at least three between the lowest value and the
    highest: of 119 to 130 kB no power of ten and none of its halves is among them.

    >>> log_ticks(0.4, 9.3)
    [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    >>> log_ticks(119, 130)
    [118.0, 120.0, 122.0, 124.0, 126.0, 128.0, 130.0]
    """
    if high < 3 * low:
        reach = (high - low) / 2 or low / 10
        step = next(step for step in _round_steps(reach) if step <= reach)
        first = math.floor(low / step if high > low else (low - reach) / step)
        last = math.ceil(high / step if high > low else (high + reach) / step)
        return [float(f"{index * step:.6g}") for index in range(first, last + 1)]
    decades = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 3 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [float(f"{step * 10.0**exponent:.2g}") for exponent in range(first - 1, last + 1) for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    below = [tick for tick in ticks if tick < low][-1:]
    above = [tick for tick in ticks if tick > high][:1]
    return [*below, *inside, *above]


def _round_steps(reach: float) -> list[float]:
    """Return 1, 2 and 5 of the decade of `reach` and the next, the largest first."""
    power = 10.0 ** math.floor(math.log10(reach))
    return [5 * power, 2 * power, power, power / 2]


def whole_ticks(count: int) -> dict[str, Any]:
    """Label an axis that counts from 1: whole numbers, none twice, at most a dozen."""
    step = max(1, math.ceil(count / 12))
    power = 10 ** math.floor(math.log10(step))
    return {"tickmode": "linear", "tick0": 0, "dtick": next(f * power for f in (1, 2, 5, 10) if f * power >= step)}
