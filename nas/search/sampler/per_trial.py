"""Optuna's samplers, with a generator per trial: a study that is resumed gets the proposals it would have got.

Optuna's samplers draw from one generator, which lives as long as the process. After a resume it stands at its beginning
again, and the search proposes what it proposed first.
"""

import copy
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class PerTrialSampler(BaseSampler):
    """Gives every trial a sampler of its own, whose seed follows from the search's and the trial's number.

    So a proposal is a function of the seed, the trial's number and the study. That needs a sampler which keeps nothing
    but caches beside its generator: TPE and the Gaussian process read the study anew each time, NSGA-II keeps its
    populations in the study.

    Args:
        make: the sampler with a seed, in [0, 2^32).
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], *, seed: int) -> None:
        self._make = make
        self._seed = seed
        self._current: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(_in_space(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(_in_space(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(_in_space(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of(trial).after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._current = trial.number, self._make(seed)
        return self._current[1]


def _in_space(study: Study) -> Study:
    """The study without finished trials of networks outside the space, which have no parameters.

    Optuna's samplers search the parameters that all trials share: one such trial, and TPE, NSGA-II and the Gaussian
    process draw at random.
    """
    view = copy.copy(study)

    def trials(
        deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        found = study._get_trials(deepcopy, states, use_cache)
        return [trial for trial in found if trial.distributions or not trial.state.is_finished()]

    view._get_trials = trials  # type: ignore[method-assign]
    return view
