"""Accuracies are printed with the digits that their images support."""

import math

import pytest

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
