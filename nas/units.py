"""Figures with as many digits as what they were measured on supports."""

import math

UNKNOWN_DIGITS = 1
"""Decimals of a percentage where the number of images is not known."""


def decimals(standard_error: float) -> int:
    """Decimals such that the last one printed is no finer than the standard error; both in the printed unit.

    >>> decimals(5.7), decimals(0.5), decimals(0.05)
    (0, 1, 2)
    """
    return max(0, math.ceil(-math.log10(standard_error)))


def accuracy_decimals(images: int | None) -> int:
    """Decimals of an accuracy in % that was counted on so many images.

    From the largest standard error that they allow, 50/sqrt(images) points, so that a column of accuracies has one
    format: whole per cent up to 2,500 images, one decimal above.
    """
    return decimals(50 / math.sqrt(images)) if images else UNKNOWN_DIGITS


def percent(accuracy: float | None, images: int | None = None) -> str:
    """An accuracy in [0, 1] as text.

    Args:
        accuracy: None where it is not known.
        images: on which it was counted, where that is known.

    >>> percent(0.90909, 77), percent(0.90909, 10_000), percent(None)
    ('91 %', '90.9 %', '–')
    """
    return "–" if accuracy is None else f"{100 * accuracy:.{accuracy_decimals(images)}f} %"
