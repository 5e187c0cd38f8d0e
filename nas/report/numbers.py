"""Figures as people read them, and what may be put on an axis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.driver.objectives import OBJECTIVES
from nas.units import percent

_BYTES = ((1e6, 1e-6, "MB"), (0.0, 1e-3, "kB"))
_COUNTS = ((1e9, 1e-9, "G"), (1e6, 1e-6, "M"), (1e3, 1e-3, "k"), (0.0, 1.0, ""))
_PERCENT = ((0.0, 100.0, "%"),)
_MILLISECONDS = ((0.0, 1.0, "ms"),)


@dataclass(frozen=True)
class Quantity:
    """A figure of a network that is shown and drawn.

    Attributes:
        key: an objective's name, or ``test_accuracy`` or ``measured_latency``.
        units: (from this value on, factor, unit), largest first.
        log: whether it is drawn on a logarithmic scale: costs span orders of magnitude.
    """

    key: str
    title: str
    units: tuple[tuple[float, float, str], ...]
    maximise: bool = False
    log: bool = True

    def show(self, value: float | None, images: int | None = None) -> str:
        """The value with three digits and its unit; an accuracy with those that its number of images supports."""
        if value is None or self.units == _PERCENT:
            return percent(value, images)
        _, factor, unit = next((row for row in self.units if abs(value) >= row[0]), self.units[-1])
        return f"{three_digits(value * factor)} {unit}".rstrip()

    def axis_unit(self, values: Iterable[float]) -> tuple[float, str]:
        """Factor and unit for an axis: one that the largest value reaches."""
        largest = max((abs(value) for value in values), default=self.units[0][0])
        _, factor, unit = next((row for row in self.units if largest >= row[0]), self.units[-1])
        return factor, unit


QUANTITIES: Mapping[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("accuracy", OBJECTIVES["accuracy"].title, _PERCENT, maximise=True, log=False),
        Quantity("size", OBJECTIVES["size"].title, _BYTES),
        Quantity("latency", "Latency (predicted)", _MILLISECONDS),
        Quantity("params", OBJECTIVES["params"].title, _COUNTS),
        Quantity("macs", OBJECTIVES["macs"].title, _COUNTS),
        Quantity("peak_memory", OBJECTIVES["peak_memory"].title, _BYTES),
        Quantity("test_accuracy", "Test accuracy", _PERCENT, maximise=True, log=False),
        Quantity("measured_latency", "Latency (measured)", _MILLISECONDS),
    )
}


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis; the more of each decade, the fewer decades there are.

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
    """1, 2 and 5 of the decade of `reach` and the next, the largest first."""
    power = 10.0 ** math.floor(math.log10(reach))
    return [5 * power, 2 * power, power, power / 2]


def whole_ticks(count: int) -> dict[str, Any]:
    """Labels of an axis that counts from 1: whole numbers, none twice, at most a dozen."""
    step = max(1, math.ceil(count / 12))
    power = 10 ** math.floor(math.log10(step))
    return {"tickmode": "linear", "tick0": 0, "dtick": next(f * power for f in (1, 2, 5, 10) if f * power >= step)}


def three_digits(number: float) -> str:
    """Three significant digits, never in exponents.

    >>> three_digits(3.7282), three_digits(435.296), three_digits(12345)
    ('3.73', '435', '12345')
    """
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.2f}" if abs(number) >= 1 or number == 0 else f"{number:.3g}"


def show(key: str, value: float | None, images: int | None = None) -> str:
    """A figure's value as people read it; see :meth:`Quantity.show`."""
    return QUANTITIES[key].show(value, images)


def show_seconds(seconds: float) -> str:
    """A duration: ``43 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(count: int, noun: str, nouns: str = "") -> str:
    """``1 network``, ``3 networks``; `nouns` is a plural that does not end so."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
