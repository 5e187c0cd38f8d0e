"""Guesses beside trials: their scale and error are fitted, and proposals are better for them."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from invented_problem import LEVELS, SMALL, all_params, distinct, error, relative_hypervolume, run, size, two

from nas.driver.sampler.guesses import Guess, Line
from nas.driver.sampler.known_cost import KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def biased_guesses(noise: float, sign: float = 1.0) -> list[Guess]:
    """Guesses of a third of the points, on another scale and level than the error."""
    rng = np.random.default_rng(0)
    points = [dict(zip(sorted(SMALL), values, strict=True)) for values in itertools.product(LEVELS, repeat=4)]
    return [(point, sign * 0.3 * error(point) + 7.0 + noise * rng.normal()) for point in points[::3]]


def test_level_scale_and_variance_are_those_of_the_pairs() -> None:
    left = np.array([0.1, -0.1, -0.1, 0.1])  # across both the constant and the straight line
    line = Line.through(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.0, 5.0, 7.0]) + left)
    assert line is not None
    assert (line.level, line.scale, line.variance) == pytest.approx((1.0, 2.0, 0.04 / 2))


@pytest.mark.parametrize(
    ("guesses", "observed"),
    [([1, 2, 3], [1, 2, 3]), ([2, 2, 2, 2], [1, 2, 3, 4]), ([1, 2, 3, 4], [4, 3, 2, 1])],
    ids=["few", "all the same", "the other way round"],
)
def test_guesses_that_tell_nothing_are_left_out(guesses: list[float], observed: list[float]) -> None:
    assert Line.through(np.array(guesses, dtype=float), np.array(observed, dtype=float)) is None


def guided(guesses: list[Guess], seed: int, count: int = 12) -> optuna.Study:
    sampler = KnownCostSampler(known={1: size}, seed=seed)
    sampler.learn_from(guesses)
    return run(sampler, count, two, SMALL)


def test_guesses_lead_to_a_better_front_and_are_proposed_themselves() -> None:
    alone = [relative_hypervolume(guided([], seed)) for seed in range(3)]
    helped = [guided(biased_guesses(0.05), seed) for seed in range(3)]
    assert np.mean([relative_hypervolume(study) for study in helped]) > np.mean(alone)
    guessed = [point for point, _ in biased_guesses(0.0)]
    assert any(params in guessed for study in helped for params in all_params(study)[8:])
    assert all(distinct(all_params(study)) == 12 for study in helped)


def test_guesses_the_other_way_round_change_nothing() -> None:
    study = guided(biased_guesses(0.0, sign=-1.0), 0)
    assert all_params(study) == all_params(guided([], 0))
