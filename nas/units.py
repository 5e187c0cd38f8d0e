"""Numbers as people read them: one format each for the page, the tables on the screen and the text.

An accuracy has as many digits as its images support; every other figure three, with a unit that fits it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNKNOWN_DIGITS = 1
"""Decimals of a percentage where the number of images is not known."""

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

    def axis_unit(self, values: Iterable[float]) -> tuple[float, str]:
        """Choose factor and unit for an axis: one that the largest value reaches."""
        largest = max((abs(value) for value in values), default=self.units[0][0])
        _, factor, unit = next((row for row in self.units if largest >= row[0]), self.units[-1])
        return factor, unit


QUANTITIES: Mapping[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity("accuracy", "Validation accuracy", _PERCENT, maximise=True, log=False),
        Quantity("balanced_accuracy", "Balanced validation accuracy", _PERCENT, maximise=True, log=False),
        Quantity("size", "Size", _BYTES),
        Quantity("latency", "Latency (predicted)", _MILLISECONDS),
        Quantity("params", "Parameters", _COUNTS),
        Quantity("macs", "MACs", _COUNTS),
        Quantity("memory", "Memory", _BYTES),
        Quantity("peak_memory", "Peak memory", _BYTES),
        Quantity("test_accuracy", "Test accuracy", _PERCENT, maximise=True, log=False),
        Quantity("measured_latency", "Latency (measured)", _MILLISECONDS),
        Quantity("supernet_accuracy", "Accuracy in the supernet", _PERCENT, maximise=True, log=False),
    )
}


def show(key: str, value: float | None, images: int | None = None) -> str:
    """Format a quantity with its unit, ``–`` where it is not known; `images` as in :func:`percent`.

    >>> show("size", 3_728_240), show("macs", 772_000), show("latency", 0.51)
    ('3.73 MB', '772 k', '0.510 ms')
    """
    quantity = QUANTITIES[key]
    if value is None or quantity.units == _PERCENT:
        return percent(value, images)
    factor, unit = quantity.axis_unit([value])
    return f"{three_digits(value * factor)} {unit}".rstrip()


def percent(accuracy: float | None, images: int | None = None) -> str:
    """Format an accuracy in [0, 1].

    Args:
        accuracy: None where it is not known.
        images: on which it was counted, where that is known.

    >>> percent(0.90909, 77), percent(0.90909, 10_000), percent(None)
    ('91 %', '90.9 %', '–')
    """
    return "–" if accuracy is None else f"{100 * accuracy:.{accuracy_decimals(images)}f} %"


def int8_percent(accuracy: float | None, fp32: float | None, images: int | None = None) -> str:
    """Format the accuracy of what ships, and beside one of int8 that of the trained network; `fp32`: None if the same.

    >>> int8_percent(0.6119, 0.6202, 10_000), int8_percent(0.6119, None, 10_000)
    ('int8 61.2 %, fp32 62.0 %', '61.2 %')
    """
    shown = percent(accuracy, images)
    return shown if fp32 is None else f"int8 {shown}, fp32 {percent(fp32, images)}"


def accuracy_decimals(images: int | None) -> int:
    """Return the decimals of an accuracy in % that was counted on so many images.

    From the largest standard error that they allow, 50/sqrt(images) points, so that a column of accuracies has one
    format: whole per cent up to 2,500 images, one decimal above.
    """
    return decimals(50 / math.sqrt(images)) if images else UNKNOWN_DIGITS


def decimals(standard_error: float) -> int:
    """Return decimals such that the last is no finer than the standard error; both in the printed unit.

    >>> decimals(5.7), decimals(0.5), decimals(0.05)
    (0, 1, 2)
    """
    return max(0, math.ceil(-math.log10(standard_error)))


def three_digits(number: float) -> str:
    """Format a number with three significant digits or two decimals, never in exponents.

    >>> three_digits(3.7282), three_digits(435.296), three_digits(12345), three_digits(0.51)
    ('3.73', '435', '12345', '0.510')
    """
    if abs(number) >= 100:
        return f"{number:.0f}"
    if abs(number) >= 1 or number == 0:
        return f"{number:.2f}"
    return f"{number:.{2 - math.floor(math.log10(abs(number)))}f}"


def show_seconds(seconds: float) -> str:
    """Format a duration: ``43 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def listed(words: Sequence[str]) -> str:
    """Join words: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def from_to(low: str, high: str, unit: str = "") -> str:
    """Join the ends of an interval as they are printed; empty where they are the same, which says nothing more.

    >>> from_to("0.2", "1.8"), from_to("81", "88", " %"), from_to("2.0", "2.0")
    ('0.2 to 1.8', '81 to 88 %', '')
    """
    return "" if low == high else f"{low} to {high}{unit}"


def bracketed(low: str, high: str, unit: str = "") -> str:
    """Put an interval behind its value: `` (0.2 to 1.8)``; empty as :func:`from_to` is."""
    return f" ({shown})" if (shown := from_to(low, high, unit)) else ""


def counted(count: int, noun: str, nouns: str = "") -> str:
    """Count things: ``1 network``, ``3 networks``; `nouns` is a plural that does not end so."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
