"""Figures as people read them, and what may be put on an axis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.search.objectives import OBJECTIVES

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

    def show(self, value: float | None) -> str:
        """The value with three digits and its unit; accuracy with two decimals."""
        if value is None:
            return "–"
        _, factor, unit = next((row for row in self.units if abs(value) >= row[0]), self.units[-1])
        number = value * factor
        text = f"{number:.2f}" if unit == "%" else three_digits(number)
        return f"{text} {unit}".rstrip()

    def axis_unit(self, values: Iterable[float]) -> tuple[float, str]:
        """Factor and unit for an axis: one that the largest value reaches."""
        largest = max((abs(value) for value in values), default=self.units[0][0])
        _, factor, unit = next((row for row in self.units if largest >= row[0]), self.units[-1])
        return factor, unit


QUANTITIES: Mapping[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("accuracy", "Validation accuracy", _PERCENT, maximise=True, log=False),
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

    >>> log_ticks(0.4, 9.3)
    [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    """
    decades = math.log10(high / low) if low > 0 else 0.0
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 3 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [float(f"{step * 10.0**exponent:.2g}") for exponent in range(first - 1, last + 1) for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    below = [tick for tick in ticks if tick < low][-1:]
    above = [tick for tick in ticks if tick > high][:1]
    return [*below, *inside, *above]


def three_digits(number: float) -> str:
    """Three significant digits, never in exponents.

    >>> three_digits(3.7282), three_digits(435.296), three_digits(12345)
    ('3.73', '435', '12345')
    """
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.2f}" if abs(number) >= 1 or number == 0 else f"{number:.3g}"


def show(key: str, value: float | None) -> str:
    """A figure's value as people read it; see :meth:`Quantity.show`."""
    return QUANTITIES[key].show(value)


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
