"""Samplers by name, as a search needs them: the same after a resume, within the limits, no network twice.

Optuna's samplers draw from one generator, which lives as long as the process. After a resume it stands at its beginning
again, and the search proposes what it proposed first. They also know nothing of exact limits: where one network in 10^9
keeps them, no sampler learns that from refusals.
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.architecture.space import Space
from nas.driver.limits import easiest, keeps
from nas.driver.objectives import Limit, Objective
from nas.driver.sampler.candidates import KnownFunctions, Source, SpaceExhaustedError
from nas.driver.sampler.encoding import Encoding
from nas.driver.sampler.history import Identity, Params
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.sampler.whole_space import WholeSpaceSampler
from nas.driver.study import CostFunction, Costs, distributions

Parameters = Mapping[str, Any]
MAX_CACHED = 1_000
"""Enough for one proposal; what it has asked before, the sampler remembers itself."""

OPTUNAS: Mapping[str, Callable[[int], BaseSampler]] = MappingProxyType(
    {
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True),
        "nsga2": lambda seed: NSGAIISampler(seed=seed),
        "gp": lambda seed: GPSampler(seed=seed),
        "random": lambda seed: RandomSampler(seed=seed),
    }
)
"""Optuna's own samplers by name, given a seed."""


def make_sampler(
    name: str,
    *,
    space: Space,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    costs: CostFunction,
    seed: int,
) -> WholeSpaceSampler:
    """Make a sampler for this search; `name` is one of :data:`nas.driver.settings.Sampler`.

    With any of them a proposal is a function of the seed, the trial's number and the study so far: a search that was
    stopped between two trials and resumed goes on as it would have.
    """
    names = tuple(space.parameters_by_name)

    @lru_cache(maxsize=MAX_CACHED)
    def described(values: tuple[Any, ...]) -> tuple[str, Costs]:
        architecture = space.architecture(dict(zip(names, values, strict=True)))
        return architecture.id, costs(architecture)

    def identity(parameters: Parameters) -> str:
        return described(tuple(parameters[name] for name in names))[0]

    def costs_of(parameters: Parameters) -> Costs:
        return described(tuple(parameters[name] for name in names))[1]

    def feasible(parameters: Parameters) -> bool:
        return keeps(limits, costs_of(parameters))

    def known(objective: Objective) -> Callable[[Parameters], float]:
        return lambda parameters: costs_of(parameters)[objective.name]

    common: dict[str, Any] = {
        "seed": seed,
        "search_space": distributions(space),
        "identity": identity,
        "feasible": feasible if limits else None,
        # Of some spaces one network in 10^9 keeps a limit: nobody meets that by drawing.
        "allowed": [easiest(space, limits, costs)] if limits else [],
    }
    if name != "known-cost":
        return PerTrialSampler(OPTUNAS[name], **common)
    functions = {index: known(objective) for index, objective in enumerate(objectives) if objective.known}
    return KnownCostSampler(known=functions, **common)


class PerTrialSampler(WholeSpaceSampler):
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
        super().__init__(search_space)
        self._make = make
        self._seed = seed
        self._encoding = Encoding.of(search_space)
        self._functions = KnownFunctions(self._encoding, {}, np.ones(0), feasible, identity)
        self._allowed = [row for params in allowed if (row := self._encoding.encode(params)) is not None]
        self._current: tuple[int, BaseSampler] | None = None

    def is_spent(self, study: Study) -> bool:
        return self._source(study, None, np.random.default_rng(0)).is_spent()

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
