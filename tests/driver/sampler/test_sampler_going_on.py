"""The sampler in real Optuna studies: repeatable, resumable, parallel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from invented_problem import LARGE, SMALL, Space, all_params, distinct, extend, run, size, two
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.driver.sampler.known_cost import KnownCostSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_the_same_seed_repeats_and_another_one_does_not() -> None:
    first, second, other = (
        run(KnownCostSampler(known={1: size}, seed=s, search_space=LARGE), 25, two, LARGE) for s in (0, 0, 1)
    )
    assert all_params(first) == all_params(second)
    assert all_params(first) != all_params(other)


@pytest.mark.parametrize("stop", [1, 9, 20])
def test_a_resumed_search_goes_on_as_it_would_have(tmp_path: Path, stop: int) -> None:
    def sampler() -> KnownCostSampler:
        return KnownCostSampler(known={1: size}, seed=3, search_space=SMALL)

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


def test_parallel_proposals_spread_over_the_front() -> None:
    study = run(KnownCostSampler(known={1: size}, search_space=SMALL), 30, two, SMALL)
    costs = [size(study.ask(SMALL).params) for _ in range(8)]
    assert np.ptp(costs) > 10.0


def test_it_can_be_used_for_another_study() -> None:
    sampler = KnownCostSampler(known={1: size}, seed=2, search_space=SMALL)
    first = run(sampler, 15, two, SMALL)
    second = run(sampler, 15, two, SMALL)
    assert all_params(first) == all_params(second)
