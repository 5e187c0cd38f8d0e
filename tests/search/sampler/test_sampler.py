"""Behaviour in real Optuna studies."""

from __future__ import annotations

import itertools
import math
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas import pareto
from nas.search.sampler.known_cost import KnownCostSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Params = dict[str, Any]
Space = dict[str, BaseDistribution]

LEVELS = (1, 2, 3, 4, 6)
SMALL: Space = {f"t{i}": CategoricalDistribution(LEVELS) for i in range(4)}  # 625 points
LARGE: Space = {f"t{i:02d}": CategoricalDistribution(LEVELS) for i in range(20)}  # 9.5e13


def size(params: Params) -> float:
    return float(sum((i + 1) * value for i, (_, value) in enumerate(sorted(params.items()))))


def error(params: Params) -> float:
    values = [value for _, value in sorted(params.items())]
    main = sum(math.sqrt(value) * (1.0 + (i * 7 % 5)) for i, value in enumerate(values))
    return 10.0 * math.exp(-0.02 * main) + 0.05 * float(abs(values[0] - values[1]))


def run(
    sampler: optuna.samplers.BaseSampler,
    count: int,
    objective: Callable[[Params], Sequence[float]],
    space: Space,
    directions: Sequence[str] = ("minimize", "minimize"),
) -> optuna.Study:
    study = optuna.create_study(directions=list(directions), sampler=sampler)  # type: ignore[arg-type]
    extend(study, count, objective, space)
    return study


def extend(study: optuna.Study, count: int, objective: Callable[[Params], Sequence[float]], space: Space) -> None:
    for _ in range(count):
        trial = study.ask(space)
        study.tell(trial, [float(value) for value in objective(trial.params)])


def two(params: Params) -> tuple[float, float]:
    return error(params), size(params)


def all_params(study: optuna.Study) -> list[Params]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def distinct(params: Sequence[Params]) -> int:
    return len({tuple(sorted(p.items())) for p in params})


# --- what it finds ---


def relative_hypervolume(study: optuna.Study) -> float:
    names = sorted(SMALL)
    table = np.array([two(dict(zip(names, v, strict=True))) for v in itertools.product(LEVELS, repeat=4)])
    front = table[pareto.front_mask(table)]
    low, high = front.min(axis=0), front.max(axis=0)
    found = np.array([two(p) for p in all_params(study)])
    return pareto.hypervolume((found - low) / (high - low), [1.1, 1.1]) / pareto.hypervolume(
        (front - low) / (high - low), [1.1, 1.1]
    )


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


def test_define_by_run_with_a_conditional_parameter() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        t = trial.suggest_int("t", 1, 8)
        kind = trial.suggest_categorical("kind", ["plain", "deep"])
        depth = trial.suggest_int("depth", 1, 4) if kind == "deep" else 1
        return 1.0 / (t + depth), float(t)

    sampler = KnownCostSampler(known={1: lambda params: float(params["t"])})
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=40)
    assert not sampler.is_exhausted  # although its 16 points of t and kind have been seen: depth is not among them
    assert len({trial.params["t"] for trial in study.best_trials}) >= 5


def test_a_known_function_that_needs_more_than_all_trials_have_is_named() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if trial.number % 2:
            return 1.0, float(trial.suggest_int("extra", 0, 3) + trial.suggest_int("t", 0, 3))
        return 1.0, float(trial.suggest_int("t", 0, 3))

    sampler = KnownCostSampler(known={1: lambda params: float(params["t"] + params["extra"])})
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    with pytest.raises(ValueError, match=r"known\[1\] asks for the parameter 'extra'"):
        study.optimize(objective, n_trials=10)


# --- repeatable, resumable, parallel ---


def test_the_same_seed_repeats_and_another_one_does_not() -> None:
    first, second, other = (run(KnownCostSampler(known={1: size}, seed=s), 25, two, LARGE) for s in (0, 0, 1))
    assert all_params(first) == all_params(second)
    assert all_params(first) != all_params(other)


@pytest.mark.parametrize("given", [SMALL, None])
@pytest.mark.parametrize("stop", [1, 9, 20])
def test_a_resumed_search_goes_on_as_it_would_have(tmp_path: Path, stop: int, given: Space | None) -> None:
    def sampler() -> KnownCostSampler:
        return KnownCostSampler(known={1: size}, seed=3, search_space=given)

    def study(name: str) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(tmp_path / name)))
        directions: list[Any] = ["minimize", "minimize"]
        return optuna.create_study(
            study_name="s", storage=storage, directions=directions, sampler=sampler(), load_if_exists=True
        )

    whole = study("whole")
    extend(whole, 26, two, SMALL)
    extend(study("parts"), stop, two, SMALL)
    extend(study("parts"), 26 - stop, two, SMALL)
    assert all_params(study("parts")) == all_params(whole)


@pytest.mark.parametrize("finished", [0, 3, 20])
@pytest.mark.parametrize("space", [SMALL, LARGE])
def test_ten_parallel_asks_are_ten_different_points(space: Space, finished: int) -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=space), finished, two, space)
    trials = [study.ask(space) for _ in range(10)]
    assert distinct([trial.params for trial in trials]) == 10
    assert distinct(all_params(study)) == finished + 10


def test_asks_whose_parameters_are_read_late_are_no_twins() -> None:
    study = run(KnownCostSampler(known={1: size}), 12, two, SMALL)
    trials = [study.ask() for _ in range(10)]
    for trial in trials:
        for name in SMALL:
            trial.suggest_categorical(name, LEVELS)
    assert distinct([trial.params for trial in trials]) == 10


def test_threads_do_not_get_twins() -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 10, two, SMALL)

    def one(_: int) -> None:
        trial = study.ask(SMALL)
        study.tell(trial, two(trial.params))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(24)))
    assert distinct(all_params(study)) == 34


def test_parallel_proposals_spread_over_the_front() -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 30, two, SMALL)
    costs = [size(study.ask(SMALL).params) for _ in range(8)]
    assert np.ptp(costs) > 10.0


def test_it_can_be_pickled_and_used_for_another_study() -> None:
    sampler = KnownCostSampler(known={1: size}, seed=2)
    first = run(sampler, 15, two, SMALL)
    again = run(pickle.loads(pickle.dumps(sampler)), 15, two, SMALL)
    second = run(sampler, 15, two, SMALL)
    assert all_params(first) == all_params(again) == all_params(second)


# --- nothing twice, limits, constraints ---


def test_a_small_space_is_seen_whole_before_anything_repeats_and_then_it_says_so() -> None:
    space: Space = {"a": CategoricalDistribution([1, 2, 3]), "b": IntDistribution(0, 3), "c": IntDistribution(0, 1)}
    sampler = KnownCostSampler(known={1: size}, search_space=space)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        study = run(sampler, 24, lambda p: (p["a"] * p["b"], size(p)), space)
    assert distinct(all_params(study)) == 24
    assert not sampler.is_exhausted
    with pytest.warns(UserWarning, match="has been seen") as said:
        extend(study, 3, lambda p: (p["a"] * p["b"], size(p)), space)
    assert len([w for w in said if "has been seen" in str(w.message)]) == 1
    assert sampler.is_exhausted


def test_points_of_one_identity_are_one_point() -> None:
    def identity(params: Params) -> int:
        return int(params["t0"] * params["t1"])

    space = {name: SMALL[name] for name in ("t0", "t1")}
    names = {a * b for a in LEVELS for b in LEVELS}
    study = run(KnownCostSampler(known={1: size}, identity=identity), len(names), two, space)
    assert {identity(p) for p in all_params(study)} == names


def test_infeasible_points_are_never_proposed_nor_priced() -> None:
    priced: list[float] = []

    def cost(params: Params) -> float:
        priced.append(size(params))
        return size(params)

    sampler = KnownCostSampler(known={1: cost}, feasible=lambda p: size(p) <= 25.0, search_space=SMALL)
    study = run(sampler, 30, two, SMALL)
    assert max(size(p) for p in all_params(study)) <= 25.0
    assert max(priced) <= 25.0


def test_limits_that_leave_nothing_are_said() -> None:
    for space in (SMALL, LARGE):
        sampler = KnownCostSampler(search_space=space, feasible=lambda _: False)
        with pytest.raises(ValueError, match="feasible"):
            run(sampler, 1, two, space)


def test_a_large_space_whose_few_allowed_points_have_been_seen_is_exhausted_and_goes_on() -> None:
    space: Space = {f"t{i}": CategoricalDistribution(LEVELS) for i in range(6)}  # too many to list
    sampler = KnownCostSampler(search_space=space, feasible=lambda p: set(list(p.values())[1:]) == {p["t1"]})
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.enqueue_trial(dict.fromkeys(space, 1))
    with pytest.warns(UserWarning, match="has been seen"):
        extend(study, 30, two, space)
    assert sampler.is_exhausted
    assert all(len(set(list(p.values())[1:])) == 1 for p in all_params(study))


def test_a_partly_enqueued_trial_may_repeat_or_break_a_limit() -> None:
    sampler = KnownCostSampler(search_space=SMALL, feasible=lambda p: bool(p["t0"] < 6))
    study = run(sampler, 5, two, SMALL)
    study.enqueue_trial({"t0": 6})
    assert study.ask(SMALL).params["t0"] == 6
    assert not sampler.is_exhausted


@pytest.mark.parametrize("way", ["constraints_func", "set_constraint"])
def test_constraints_are_learned(way: str) -> None:
    def violation(params: Params) -> float:
        return float(params["t0"] + params["t1"] - 5)  # not known beforehand

    function = (lambda trial: (violation(trial.params),)) if way == "constraints_func" else None
    sampler = KnownCostSampler(known={1: size}, search_space=SMALL, constraints_func=function)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for _ in range(50):
        trial = study.ask(SMALL)
        if function is None:
            trial.set_constraint("sum", violation(trial.params))
        study.tell(trial, two(trial.params))
    late = [violation(p) <= 0.0 for p in all_params(study)[20:]]
    assert np.mean(late) > 0.75  # a random point keeps it in 10 cases of 25
    assert all(violation(trial.params) <= 0.0 for trial in study.best_trials)


def test_an_enqueued_trial_is_not_proposed_beside_it_and_a_partly_enqueued_one_is_completed() -> None:
    space: Space = {"a": IntDistribution(0, 2), "b": IntDistribution(0, 1)}
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={1: size}, search_space=space)
    )
    study.enqueue_trial({"a": 1})
    first = study.ask(space)
    assert first.params["a"] == 1
    study.tell(first, two({"t0": 1, "t1": 1}))
    for a, b in itertools.product(range(3), range(2)):
        if {"a": a, "b": b} != first.params:
            study.enqueue_trial({"a": a, "b": b})
    taken = [study.ask(space).params for _ in range(5)]
    assert distinct([*taken, first.params]) == 6


# --- failed and stopped trials ---


def test_failed_points_are_not_tried_again_and_their_region_is_avoided() -> None:
    def broken(params: Params) -> bool:
        return bool(params["t3"] >= 4)  # two of five levels; and they would be the accurate ones

    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={1: size}, search_space=SMALL)
    )
    for _ in range(60):
        trial = study.ask(SMALL)
        if broken(trial.params):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, two(trial.params))
    assert distinct(all_params(study)) == 60
    assert np.mean([broken(p) for p in all_params(study)[20:]]) < 0.2


def test_everything_failed_so_far_is_no_dead_end() -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={1: size}, search_space=SMALL)
    )
    for _ in range(20):
        study.tell(study.ask(SMALL), state=TrialState.FAIL)
    extend(study, 15, two, SMALL)
    assert distinct(all_params(study)) == 35


def stopped_study(has_partial: bool, seed: int) -> optuna.Study:
    """20 stopped trials that tell which level is good, then one proposal."""
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={1: size}, seed=seed, search_space=LARGE)
    )
    rng = np.random.default_rng(seed)
    for i in range(24):
        params = {name: int(rng.choice(LEVELS)) for name in LARGE}
        values = [20.0 - 3.0 * params["t00"], size(params)]
        partial = {"epoch": 4, "budget": 8, "values": [values[0] + 2.0, values[1]]}
        is_complete = i % 6 == 0
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=LARGE,
                state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
                values=values if is_complete else None,
                user_attrs={"partial": partial} if has_partial and not is_complete else {},
            )
        )
    return study


def test_what_stopped_trials_had_reached_is_used() -> None:
    def share_of_good(has_partial: bool) -> float:
        asked = [stopped_study(has_partial, seed).ask(LARGE).params["t00"] for seed in range(8)]
        return float(np.mean([level == 6 for level in asked]))

    assert share_of_good(True) > share_of_good(False)


def test_a_stopped_trial_is_no_front_member_and_no_final_value() -> None:
    """A stopped trial that looked perfect does not keep the sampler from the true front around it."""
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 10, two, SMALL)
    best = dict.fromkeys(SMALL, 1)
    study.add_trial(
        optuna.trial.create_trial(
            params=best,
            distributions=SMALL,
            state=TrialState.PRUNED,
            user_attrs={"partial": {"epoch": 1, "budget": 8, "values": [0.0, size(best)]}},
        )
    )
    extend(study, 20, two, SMALL)
    assert relative_hypervolume(study) > 0.9
    assert best not in all_params(study)[11:]


def test_an_optuna_pruner_of_a_single_objective_works_along() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        for step in range(8):
            trial.report((x - 0.7) ** 2 + 1.0 / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return (x - 0.7) ** 2

    study = optuna.create_study(sampler=KnownCostSampler(), pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    study.optimize(objective, n_trials=40)
    assert any(trial.state == TrialState.PRUNED for trial in study.trials)
    assert study.best_value < 1e-3


@pytest.mark.parametrize("note", [None, {}, {"epoch": 0, "budget": 3, "values": [1.0, 1.0]}, {"epoch": "x"}, "text"])
def test_a_stopped_trial_without_usable_values_is_only_seen(note: Any) -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 9, two, SMALL)
    trial = study.ask(SMALL)
    trial.set_user_attr("partial", note)
    study.tell(trial, state=TrialState.PRUNED)
    extend(study, 5, two, SMALL)
    assert distinct(all_params(study)) == 15


def test_infinite_values_do_not_break_the_model() -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 9, two, SMALL)
    trial = study.ask(SMALL)
    study.tell(trial, [math.inf, size(trial.params)])
    extend(study, 5, two, SMALL)
    assert distinct(all_params(study)) == 15


def test_constant_objectives_do_not_break_the_model() -> None:
    study = run(KnownCostSampler(known={1: lambda _: 2.0}, search_space=SMALL), 20, lambda _: (1.0, 2.0), SMALL)
    assert distinct(all_params(study)) == 20


def test_trials_from_outside_the_space_stand_on_the_front() -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 10, two, SMALL)
    study.add_trial(
        optuna.trial.create_trial(params={"y": 3}, distributions={"y": IntDistribution(0, 9)}, values=[0.1, 0.1])
    )
    extend(study, 3, two, SMALL)
    assert len(study.trials) == 14


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
def test_a_thousand_trials_of_29_parameters_cost_little() -> None:
    """The claim is 20 ms per trial on a quiet machine (benchmarks/search_quality.py); this bound is for a busy one."""
    space: Space = {f"t{i:02d}": CategoricalDistribution(LEVELS) for i in range(29)}

    def three(params: Params) -> tuple[float, float, float]:
        return error(params), math.log(size(params)), float(sum(params.values()))

    known = {1: lambda p: three(p)[1], 2: lambda p: three(p)[2]}
    start = time.process_time()
    run(KnownCostSampler(known=known), 1000, three, space, ["minimize"] * 3)
    assert (time.process_time() - start) / 1000 < 0.08
