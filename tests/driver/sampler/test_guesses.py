"""Guesses beside trials: what they are worth is fitted, and predictions and proposals are better for them."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from invented_problem import LEVELS, SMALL, all_params, distinct, error, relative_hypervolume, run, size, two
from scipy.stats import spearmanr

from nas.driver.sampler.guesses import Guess
from nas.driver.sampler.known_cost import KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


GRID = [dict(zip(sorted(SMALL), values, strict=True)) for values in itertools.product(LEVELS, repeat=4)]


def biased_guesses(noise: float) -> list[Guess]:
    """Guesses of a third of the points, on another scale and level than the error."""
    rng = np.random.default_rng(0)
    return [(point, 0.3 * error(point) + 7.0 + noise * rng.normal()) for point in GRID[::3]]


def spearman_of(guesses: list[Guess], trained: int = 8) -> float:
    """How the model orders all points after a few trials of random ones."""
    sampler = KnownCostSampler(known={1: size}, search_space=SMALL)
    sampler.learn_from(guesses)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for place in np.random.default_rng(1).permutation(len(GRID))[:trained]:
        study.add_trial(optuna.trial.create_trial(values=two(GRID[place]), params=GRID[place], distributions=SMALL))
    expected = sampler.expected(study, GRID)
    assert expected is not None and list(expected[:, 1]) == [size(point) for point in GRID]
    return float(spearmanr(expected[:, 0], [error(point) for point in GRID]).statistic)


def test_few_trials_and_guesses_tell_more_than_either_though_one_option_is_favoured() -> None:
    """As a supernet favours members of one head: their errors seem smaller by more than half of the guesses' range."""
    by_trials = spearman_of([])
    shift = 0.6 * np.ptp([value for _, value in biased_guesses(0.0)])
    favoured = [(point, value - shift * (point["t3"] < 3)) for point, value in biased_guesses(0.1)]
    alone = spearmanr([value for _, value in favoured], [error(point) for point, _ in favoured]).statistic
    assert spearman_of(favoured) > max(by_trials, alone) + 0.02
    assert spearman_of(biased_guesses(0.1)) > by_trials + 0.05


def test_guesses_of_nothing_do_little_harm() -> None:
    rng = np.random.default_rng(3)
    assert spearman_of([(point, rng.normal()) for point in GRID[::3]]) > spearman_of([]) - 0.05


@pytest.mark.parametrize(
    "guesses", [biased_guesses(0.0)[:3], [(point, 1.0) for point in GRID[:9]]], ids=["few", "all the same"]
)
def test_guesses_that_tell_nothing_change_nothing(guesses: list[Guess]) -> None:
    assert all_params(guided(guesses, 0, 10)) == all_params(guided([], 0, 10))


def test_nothing_is_expected_after_few_trials() -> None:
    sampler = KnownCostSampler(known={1: size}, search_space=SMALL)
    study = run(sampler, 3, two, SMALL)
    assert sampler.expected(study, GRID[:2]) is None


def guided(guesses: list[Guess], seed: int, count: int = 12) -> optuna.Study:
    sampler = KnownCostSampler(known={1: size}, seed=seed, search_space=SMALL)
    sampler.learn_from(guesses)
    return run(sampler, count, two, SMALL)


def test_guesses_lead_to_a_better_front_and_are_proposed_themselves() -> None:
    alone = [relative_hypervolume(guided([], seed)) for seed in range(3)]
    helped = [guided(biased_guesses(0.05), seed) for seed in range(3)]
    assert np.mean([relative_hypervolume(study) for study in helped]) > np.mean(alone)
    guessed = [point for point, _ in biased_guesses(0.0)]
    assert any(params in guessed for study in helped for params in all_params(study)[8:])
    assert all(distinct(all_params(study)) == 12 for study in helped)
