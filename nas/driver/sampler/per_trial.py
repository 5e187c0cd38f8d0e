"""Optuna's samplers as a search needs them: the same after a resume, within the limits, no network twice.

Optuna's samplers draw from one generator, which lives as long as the process. After a resume it stands at its beginning
again, and the search proposes what it proposed first. They also know nothing of exact limits: where one network in 10^9
keeps them, no sampler learns that from refusals.
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.driver.sampler.candidates import KnownFunctions, Source, SpaceExhaustedError
from nas.driver.sampler.encoding import Encoding
from nas.driver.sampler.history import Identity, Params


class PerTrialSampler(BaseSampler):
    """Gives every trial a sampler of its own, whose seed follows from the search's and the trial's number.

    So a proposal is a function of the seed, the trial's number and the study. That needs a sampler which keeps nothing
    but caches beside its generator: TPE and the Gaussian process read the study each time, NSGA-II keeps its
    populations in the study.

    What that sampler draws is proposed as it is where it is allowed and no trial has it; else something near to it,
    which then is what the study holds and the sampler learns from.

    Args:
        make: Makes the sampler, given a seed in [0, 2^32).
        seed: Of the search.
        search_space: All parameters.
        identity, feasible, allowed: As of :class:`~nas.driver.sampler.known_cost.KnownCostSampler`.
    """

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        *,
        seed: int,
        search_space: Mapping[str, BaseDistribution],
        identity: Identity | None = None,
        feasible: Callable[[Params], bool] | None = None,
        allowed: Sequence[Params] = (),
    ) -> None:
        self._make = make
        self._seed = seed
        self._space = dict(search_space)
        self._encoding = Encoding.of(search_space)
        self._functions = KnownFunctions(self._encoding, {}, np.ones(0), feasible, identity)
        self._allowed = [row for params in allowed if (row := self._encoding.encode(params)) is not None]
        self._current: tuple[int, BaseSampler] | None = None

    def is_spent(self, study: Study) -> bool:
        """Tell whether every allowed choice of parameters is some trial's."""
        return self._source(study, None, np.random.default_rng(0)).is_spent()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if "fixed_params" in trial.system_attrs else dict(self._space)  # what is queued needs no proposal

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        inner = self._of(trial)
        view = _in_space(study)
        drawn = inner.sample_relative(view, trial, inner.infer_relative_search_space(view, trial))
        for name, distribution in search_space.items():
            if name not in drawn:
                drawn[name] = inner.sample_independent(view, trial, name, distribution)
        row = self._encoding.encode(drawn)
        assert row is not None
        source = self._source(study, trial.number, np.random.default_rng([self._seed, trial.number]))
        try:
            return self._encoding.decode(source.closest(row))
        except SpaceExhaustedError:
            return drawn if self._functions.is_allowed(row) else self._encoding.decode(source.nearest_allowed(row))

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

    def _source(self, study: Study, left_out: int | None, rng: np.random.Generator) -> Source:
        others = [trial for trial in study.get_trials(deepcopy=False) if trial.number != left_out]
        params = [{**other.system_attrs.get("fixed_params", {}), **other.params} for other in others]
        rows = [row for each in params if (row := self._encoding.encode(each)) is not None]
        seen = {self._functions.point(row)[0] for row in rows}
        return Source(self._functions, seen, [*self._allowed, *rows], rng)


def _in_space(study: Study) -> Study:
    """Hide a study's finished trials of networks outside the space, which have no parameters.

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
