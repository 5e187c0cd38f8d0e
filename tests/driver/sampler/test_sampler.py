"""What the sampler finds in real Optuna studies, and what it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from invented_problem import (
    LARGE,
    LEVELS,
    SMALL,
    Params,
    Space,
    all_params,
    distinct,
    error,
    relative_hypervolume,
    run,
    size,
    two,
)
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.driver.sampler.known_cost import KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


# --- what it finds ---


def test_finds_the_true_front_with_a_twentieth_of_the_space() -> None:
    ours = [relative_hypervolume(run(KnownCostSampler(known={1: size}, seed=s), 30, two, SMALL)) for s in range(3)]
    chance = [relative_hypervolume(run(optuna.samplers.RandomSampler(seed=s), 30, two, SMALL)) for s in range(3)]
    assert min(ours) > 0.9
    assert min(ours) > max(chance)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("is_known", [False, True])
def test_any_number_of_objectives_known_or_not(objectives: int, is_known: bool) -> None:
    def values(params: Params) -> list[float]:
        return [error(params), size(params), -float(params["t0"]), abs(size(params) - 20.0)][:objectives]

    def known(index: int) -> Callable[[Params], float]:
        return lambda params: values(params)[index]

    functions = {index: known(index) for index in range(1, objectives)} if is_known else {}
    study = run(KnownCostSampler(known=functions), 14, values, SMALL, ["minimize"] * objectives)
    assert distinct(all_params(study)) == 14


def test_all_objectives_known_needs_no_luck() -> None:
    def values(params: Params) -> tuple[float, float]:
        return size(params), -float(params["t3"])

    study = run(KnownCostSampler(known={0: lambda p: values(p)[0], 1: lambda p: values(p)[1]}), 25, values, SMALL)
    front = {values(p) for p in all_params(study)}
    assert {(6.0 + 4.0 * t, -float(t)) for t in LEVELS} <= front


def test_one_objective_and_nothing_known_is_better_than_random_search() -> None:
    def one(params: Params) -> tuple[float]:
        x, y = float(params["x"]), float(params["y"])
        return ((x - 0.3) ** 2 + (y - 7.0) ** 2 / 50.0 + (0.0 if params["k"] == "b" else 0.5),)

    space: Space = {
        "x": FloatDistribution(0.0, 1.0),
        "y": IntDistribution(0, 10),
        "k": CategoricalDistribution(["a", "b", "c"]),
    }
    ours = [run(KnownCostSampler(seed=s), 40, one, space, ["minimize"]).best_value for s in range(3)]
    chance = [run(optuna.samplers.RandomSampler(seed=s), 40, one, space, ["minimize"]).best_value for s in range(3)]
    assert np.mean(ours) < np.mean(chance)
    assert max(ours) < 0.02


def test_directions_are_a_matter_of_sign() -> None:
    """The same study with both objectives turned round gets the same proposals."""

    def turned(params: Params) -> tuple[float, float]:
        return -error(params), -size(params)

    down = run(KnownCostSampler(known={1: size}, seed=1), 25, two, SMALL)
    up = run(KnownCostSampler(known={1: lambda p: -size(p)}, seed=1), 25, turned, SMALL, ["maximize", "maximize"])
    assert all_params(down) == all_params(up)


def test_costs_over_decades_are_compared_as_logarithms() -> None:
    def cost(params: Params) -> float:
        return math.pow(10.0, params["t0"] + params["t1"])

    def values(params: Params) -> tuple[float, float]:
        return 1.0 / (params["t0"] + params["t1"] + 0.1 * params["t2"]), cost(params)

    study = run(KnownCostSampler(known={1: cost}), 40, values, SMALL)
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
            KnownCostSampler(known={1: lambda p, c=constant: log_cost(p, c)}),
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

    studies = [run(KnownCostSampler(known={1: size}, seed=seed), 30, values, SMALL) for seed in range(3)]
    assert max(sum(trial.values[0] == chance for trial in study.trials[8:]) for study in studies) <= 10


# --- kinds of parameters ---


def test_float_int_log_and_step_parameters_stay_in_their_distributions() -> None:
    space: Space = {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "drop": FloatDistribution(0.0, 0.5, step=0.1),
        "width": IntDistribution(8, 4096, log=True),
        "depth": IntDistribution(2, 20, step=3),
        "wide": IntDistribution(0, 1000, step=10),
        "one": FloatDistribution(0.5, 0.5),
        "se": CategoricalDistribution([True, False, None, "x", 1]),
    }

    def values(params: Params) -> tuple[float, float]:
        return math.log10(params["lr"]) ** 2 + params["drop"], math.log(params["width"]) + params["depth"]

    sampler = KnownCostSampler(known={1: lambda p: math.log(p["width"]) + p["depth"]}, search_space=space)
    study = run(sampler, 25, values, space)
    for params in all_params(study):
        for name, distribution in space.items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), (name, params[name])
        assert isinstance(params["width"], int)
        assert (params["depth"] - 2) % 3 == 0
        assert params["wide"] % 10 == 0


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"known": {-1: size}}, "known"),
        ({"known": {"acc": size}}, "known"),
        ({"known": {1: 3.0}}, r"known\[1\]"),
        ({"search_space": {"t": [1, 2]}}, r"search_space\['t'\]"),
        ({"seed": -1}, "seed"),
        ({"feasible": 3}, "feasible"),
        ({"identity": "id"}, "identity"),
        ({"constraints_func": 1}, "constraints_func"),
        ({"startup_trials": 1}, "startup_trials"),
        ({"pool_size": 2}, "pool_size"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        KnownCostSampler(**arguments)


def test_studies_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"known\[2\]"):
        run(KnownCostSampler(known={2: size}, search_space=SMALL), 1, two, SMALL)
    with pytest.raises(ValueError, match="1 to 4 objectives"):
        run(KnownCostSampler(search_space=SMALL), 1, lambda _: [0.0] * 5, SMALL, ["minimize"] * 5)
    with pytest.raises(ValueError, match=r"known\[1\] must be finite"):
        run(KnownCostSampler(known={1: lambda _: math.nan}, search_space=SMALL), 1, two, SMALL)


def test_known_functions_are_called_a_bounded_number_of_times() -> None:
    calls = 0

    def counted(params: Params) -> float:
        nonlocal calls
        calls += 1
        return size(params)

    run(KnownCostSampler(known={1: counted}, search_space=LARGE, pool_size=64), 30, two, LARGE)
    assert calls <= 30 * (64 + 1)


@pytest.mark.slow
def test_hundreds_of_trials_of_29_parameters_cost_little() -> None:
    """Some 60 ms of CPU per trial on a quiet machine; this bound is for a busy one."""
    space: Space = {f"t{i:02d}": CategoricalDistribution(LEVELS) for i in range(29)}

    def three(params: Params) -> tuple[float, float, float]:
        return error(params), math.log(size(params)), float(sum(params.values()))

    known = {1: lambda p: three(p)[1], 2: lambda p: three(p)[2]}
    start = time.process_time()
    run(KnownCostSampler(known=known), 400, three, space, ["minimize"] * 3)
    assert (time.process_time() - start) / 400 < 0.15
