"""Accuracies are printed with the digits that their images support."""

import math

import pytest

from nas.report.distance import difference_in_words
from nas.report.summary import interval, with_interval
from nas.significance import over_seeds
from nas.units import accuracy_decimals, percent


@pytest.mark.parametrize(
    ("images", "shown"), [(77, "83 %"), (359, "83 %"), (2_500, "83 %"), (10_000, "83.5 %"), (1_000_000, "83.49 %")]
)
def test_an_accuracy_has_the_digits_that_its_images_support(images: int, shown: str) -> None:
    assert percent(0.8349, images) == shown
    error = 100 * math.sqrt(0.25 / images)  # points, of a coin thrown so often
    digit = 10.0 ** -accuracy_decimals(images)
    assert digit == 1 or digit <= error < 10 * digit


def test_an_unknown_accuracy_or_number_of_images() -> None:
    assert percent(None, 100) == "–"
    assert percent(0.8349) == "83.5 %"


def test_an_interval_whose_ends_are_printed_alike_is_left_out() -> None:
    assert interval(0.9, 400) == "87 to 93 %"
    assert interval(1.0, 2_000) == ""  # 99.8 to 100.0, in whole per cent
    assert with_interval(1.0, 2_000) == "100 %"
    assert difference_in_words(over_seeds([0.8] * 3, [0.7] * 3)) == "10.0 points more accurate"
    assert difference_in_words(over_seeds([0.8] * 3, [0.8] * 3)) == "not distinguishable in accuracy"
    assert difference_in_words(over_seeds([0.80, 0.81], [0.7, 0.7])).startswith("10.5 points more accurate (")
