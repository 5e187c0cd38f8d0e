"""Every sampler by name, on plain Optuna: a study that is resumed gets the proposals it would have got."""

from typing import get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from nas.driver.objectives import parse_objectives
from nas.driver.prepare import cost_function
from nas.driver.sampler.registry import make_sampler
from nas.driver.settings import Sampler

TRIALS = {"nsga2": 70, "gp": 12}
"""Others: 16. NSGA-II draws its first 50 at random, TPE and the Gaussian process their first 10."""


def proposals(space, name, *, seed, lives):
    """The parameters of all trials, where the process dies after each of `lives` trials and another one goes on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives, costs = parse_objectives("accuracy,size"), cost_function(10)
    distributions = {key: CategoricalDistribution(p.values) for key, p in space.parameters_by_name.items()}
    storage = optuna.storages.InMemoryStorage()
    for life in lives:
        sampler = make_sampler(name, space=space, objectives=objectives, limits=(), costs=costs, seed=seed)
        study = optuna.create_study(
            study_name="study",
            storage=storage,
            sampler=sampler,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        for _ in range(life):
            trial = study.ask(distributions)
            size = costs(space.architecture(trial.params))["size"]
            if trial.number % 5 == 3:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, [size / (size + 8000) + trial.number % 2 / 20, size])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", get_args(Sampler))
def test_a_resumed_study_gets_the_proposals_it_would_have_got(small_space, name):
    trials = TRIALS.get(name, 16)
    whole = proposals(small_space, name, seed=1, lives=[trials])
    assert proposals(small_space, name, seed=1, lives=[1, 4, 6, trials - 12, 1]) == whole
    assert len({tuple(params.values()) for params in whole}) > 8
    assert proposals(small_space, name, seed=2, lives=[trials]) != whole
