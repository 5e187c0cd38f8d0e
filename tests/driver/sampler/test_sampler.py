"""What the sampler finds in real Optuna studies, and what it takes."""

from __future__ import annotations

import math
import statistics
import time

import optuna
import pytest
from checks import reference_seconds
from invented_problem import (
    LARGE,
    LEVELS,
    SMALL,
    Params,
    Space,
    all_params,
    error,
    relative_hypervolume,
    run,
    size,
    two,
)
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nas.driver.sampler.known_cost import POOL_SIZE, KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


# --- what it finds ---


def test_finds_the_true_front_with_a_twentieth_of_the_space() -> None:
    ours = [
        relative_hypervolume(run(KnownCostSampler(known={1: size}, seed=s, search_space=SMALL), 30, two, SMALL))
        for s in range(3)
    ]
    chance = [relative_hypervolume(run(optuna.samplers.RandomSampler(seed=s), 30, two, SMALL)) for s in range(3)]
    assert min(ours) > 0.9
    assert min(ours) > max(chance)


def test_directions_are_a_matter_of_sign() -> None:
    """The same study with both objectives turned round gets the same proposals."""

    def turned(params: Params) -> tuple[float, float]:
        return -error(params), -size(params)

    down = run(KnownCostSampler(known={1: size}, seed=1, search_space=SMALL), 25, two, SMALL)
    up = run(
        KnownCostSampler(known={1: lambda p: -size(p)}, seed=1, search_space=SMALL),
        25,
        turned,
        SMALL,
        ["maximize", "maximize"],
    )
    assert all_params(down) == all_params(up)


def test_costs_over_decades_are_compared_as_logarithms() -> None:
    def cost(params: Params) -> float:
        return math.pow(10.0, params["t0"] + params["t1"])

    def values(params: Params) -> tuple[float, float]:
        return 1.0 / (params["t0"] + params["t1"] + 0.1 * params["t2"]), cost(params)

    study = run(KnownCostSampler(known={1: cost}, search_space=SMALL), 40, values, SMALL)
    reached = {round(math.log10(trial.values[1])) for trial in study.best_trials}
    assert len(reached) >= 8  # of 2..12, not only the largest ones, which would fill a linear axis


def test_a_cost_that_is_a_logarithm_already_is_compared_as_it_is() -> None:
    """Near 0 its own logarithm falls without end: the smallest networks would be all that counts.

    So a constant, which no trade-off depends on, must not change a proposal.
    """

    def log_cost(params: Params, constant: float) -> float:
        return constant + math.log(sum(params.values()) - 2.99)

    near_0, far_from_0 = (
        run(
            KnownCostSampler(known={1: lambda p, c=constant: log_cost(p, c)}, search_space=SMALL),
            25,
            lambda p, c=constant: (error(p), log_cost(p, c)),
            SMALL,
        )
        for constant in (0.0, 16.0)
    )
    assert all_params(near_0) == all_params(far_from_0)


def test_networks_that_collapse_are_kept_away_from_though_they_are_the_smallest() -> None:
    """A quarter of the space is at chance, all of its smallest networks among them."""
    chance = 20.0

    def values(params: Params) -> tuple[float, float]:
        is_collapsed = size(params) < 20 or params["t1"] == LEVELS[0]
        return chance if is_collapsed else error(params), size(params)

    studies = [
        run(KnownCostSampler(known={1: size}, seed=seed, search_space=SMALL), 30, values, SMALL) for seed in range(3)
    ]
    assert max(sum(trial.values[0] == chance for trial in study.trials[8:]) for study in studies) <= 10


# --- arguments, and what it takes ---


def test_parameters_that_are_not_categorical_and_costs_that_are_not_finite_are_named() -> None:
    space: Space = {"x": FloatDistribution(0.0, 1.0)}
    with pytest.raises(TypeError, match=r"search_space\['x'\]"):
        run(KnownCostSampler(search_space=space), 1, lambda _: [0.0], space, ["minimize"])
    with pytest.raises(ValueError, match=r"known\[1\] must be finite"):
        run(KnownCostSampler(known={1: lambda _: math.nan}, search_space=SMALL), 1, two, SMALL)


def test_known_functions_are_called_a_bounded_number_of_times() -> None:
    calls = 0

    def counted(params: Params) -> float:
        nonlocal calls
        calls += 1
        return size(params)

    run(KnownCostSampler(known={1: counted}, search_space=LARGE), 10, two, LARGE)
    assert calls <= 10 * (POOL_SIZE + 1)


@pytest.mark.slow
def test_hundreds_of_trials_of_29_parameters_cost_little() -> None:
    """Some 60 ms of CPU per trial on a quiet machine, 80 times the reference; this bound is for a busy one."""
    space: Space = {f"t{i:02d}": CategoricalDistribution(LEVELS) for i in range(29)}

    def three(params: Params) -> tuple[float, float, float]:
        return error(params), math.log(size(params)), float(sum(params.values()))

    known = {1: lambda p: three(p)[1], 2: lambda p: three(p)[2]}
    reference = [reference_seconds() for _ in range(50)]
    start = time.process_time()
    run(KnownCostSampler(known=known, search_space=space), 400, three, space, ["minimize"] * 3)
    spent = time.process_time() - start
    reference += [reference_seconds() for _ in range(50)]
    assert spent / 400 < 200 * statistics.median(reference)
