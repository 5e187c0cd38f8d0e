"""The sampler in real Optuna studies: nothing twice, limits, failed and stopped trials."""

from __future__ import annotations

import itertools
import math
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
    extend,
    relative_hypervolume,
    run,
    size,
    two,
)
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from nas.driver.sampler import acquisition
from nas.driver.sampler.known_cost import KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


# --- nothing twice, limits ---


def test_a_small_space_is_seen_whole_before_anything_repeats() -> None:
    space: Space = {name: CategoricalDistribution(range(n)) for name, n in (("a", 3), ("b", 4), ("c", 2))}
    sampler = KnownCostSampler(known={1: size}, search_space=space)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for count in range(24):
        assert not sampler.is_spent(study)
        extend(study, 1, lambda p: (p["a"] * p["b"], size(p)), space)
        assert distinct(all_params(study)) == count + 1
    assert sampler.is_spent(study)
    extend(study, 3, lambda p: (p["a"] * p["b"], size(p)), space)
    assert distinct(all_params(study)) == 24


def test_points_of_one_identity_are_one_point() -> None:
    def identity(params: Params) -> int:
        return int(params["t0"] * params["t1"])

    space = {name: SMALL[name] for name in ("t0", "t1")}
    names = {a * b for a in LEVELS for b in LEVELS}
    study = run(KnownCostSampler(known={1: size}, identity=identity, search_space=space), len(names), two, space)
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
    extend(study, 30, two, space)
    assert sampler.is_spent(study)
    assert all(len(set(list(p.values())[1:])) == 1 for p in all_params(study))


def test_constraints_that_are_known_beforehand_are_facts_and_no_model() -> None:
    """Proposals are those of a study that holds no constraints at all."""

    def proposals(constraint: bool) -> list[Params]:
        sampler = KnownCostSampler(known={1: size}, search_space=SMALL, feasible=lambda p: size(p) <= 25.0)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        for _ in range(25):
            trial = study.ask(SMALL)
            if constraint:
                trial.set_constraint("size<=25", size(trial.params) / 25.0 - 1.0)
            study.tell(trial, two(trial.params))
        return all_params(study)

    assert proposals(True) == proposals(False)


def test_a_front_of_one_point_still_tells_candidates_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prediction is many deviations behind the best trial; the expected gains are far below the least float."""
    scores: list[np.ndarray] = []
    scored = acquisition.Acquisition._scores

    def spy(self: acquisition.Acquisition, *arguments: Any) -> np.ndarray:
        scores.append(scored(self, *arguments))
        return scores[-1]

    monkeypatch.setattr(acquisition.Acquisition, "_scores", spy)
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={}, search_space=SMALL)
    )
    study.enqueue_trial(dict.fromkeys(SMALL, 1))  # the best in both, by far: everything is surely dominated

    def objective(params: Params) -> tuple[float, float]:
        first, second, third, fourth = (params[name] - 1.0 for name in SMALL)
        return 0.01 + first + second + third + fourth, 0.01 + 2.0 * first + second + third + 3.0 * fourth

    extend(study, 30, objective, SMALL)
    assert len(scores) > 20
    for score in scores:
        assert np.isfinite(score).all()
        assert len(np.unique(score)) > 0.9 * len(score)


def test_where_every_candidate_is_known_to_be_dominated_it_looks_where_nothing_has_been_seen() -> None:
    sampler = KnownCostSampler(known={0: size, 1: lambda p: -p["t0"] - p["t1"]}, search_space=SMALL)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    seen = [dict(zip(SMALL, levels, strict=True)) for levels in itertools.product(LEVELS[:2], repeat=4)]
    ideal = [-1000.0, -1000.0]  # a trial that nothing can improve on
    for params in seen:
        study.add_trial(optuna.trial.create_trial(params=params, distributions=SMALL, values=ideal))
    asked = study.ask(SMALL).params
    assert sum(level not in LEVELS[:2] for level in asked.values()) >= 3


def test_enqueued_trials_get_no_proposal_and_are_not_proposed_again() -> None:
    space: Space = {"a": CategoricalDistribution(range(3)), "b": CategoricalDistribution(range(2))}
    sampler = KnownCostSampler(known={1: size}, search_space=space)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    queued = [{"a": a, "b": b} for a in range(2) for b in range(2)]
    for params in queued:
        study.enqueue_trial(params)
    extend(study, 6, two, space)
    assert all_params(study)[:4] == queued
    assert distinct(all_params(study)) == 6


# --- failed and stopped trials ---


def test_failed_points_are_not_tried_again_and_their_region_is_avoided() -> None:
    """For 40 trials, as long as another network promises a gain."""

    def broken(params: Params) -> bool:
        return bool(params["t3"] >= 4)  # two of five levels; and they would be the accurate ones

    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=KnownCostSampler(known={1: size}, search_space=SMALL)
    )
    for _ in range(40):
        trial = study.ask(SMALL)
        if broken(trial.params):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, two(trial.params))
    assert distinct(all_params(study)) == 40
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
        optuna.trial.create_trial(params={"y": 3}, distributions={"y": CategoricalDistribution([3])}, values=[0.1, 0.1])
    )
    extend(study, 3, two, SMALL)
    assert len(study.trials) == 14
