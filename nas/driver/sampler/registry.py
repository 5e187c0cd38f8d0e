"""The samplers by name, ready for a search."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.architecture.space import Space
from nas.driver.limits import easiest, keeps
from nas.driver.objectives import Limit, Objective
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.sampler.per_trial import PerTrialSampler
from nas.driver.study import CostFunction, Costs

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
) -> BaseSampler:
    """A sampler for this search; `name` is one of :data:`nas.driver.settings.SAMPLERS`.

    With any of them a proposal is a function of the seed, the trial's number and the study so far: a search that was
    stopped between two trials and resumed goes on as it would have.
    """
    priced = _Priced(space, costs)
    # Of some spaces one network in 10^9 keeps a limit: nobody meets that by drawing.
    allowed = [easiest(space, limits, costs)] if limits else []
    distributions = {
        key: optuna.distributions.CategoricalDistribution(parameter.values)
        for key, parameter in space.parameters_by_name.items()
    }

    def feasible(parameters: Parameters) -> bool:
        return keeps(limits, priced(parameters).costs)

    def identity(parameters: Parameters) -> str:
        return priced(parameters).id

    def known(objective: Objective) -> Callable[[Parameters], float]:
        return lambda parameters: priced(parameters).costs[objective.name]

    if name == "known-cost":
        return KnownCostSampler(
            known={index: known(objective) for index, objective in enumerate(objectives) if objective.known},
            search_space=distributions,
            seed=seed,
            feasible=feasible if limits else None,
            allowed=allowed,
            decided=[str(limit) for limit in limits],
            identity=identity,
        )
    return PerTrialSampler(
        OPTUNAS[name],
        seed=seed,
        search_space=distributions,
        identity=identity,
        feasible=feasible if limits else None,
        allowed=allowed,
    )


class _Candidate(NamedTuple):
    id: str
    costs: Costs


class _Priced:
    """What a parameter choice is and costs. The sampler asks for each of these in turn, and often again later."""

    def __init__(self, space: Space, costs: CostFunction) -> None:
        self._space = space
        self._costs = costs
        self._known: dict[tuple[Any, ...], _Candidate] = {}

    def __call__(self, parameters: Parameters) -> _Candidate:
        key = tuple(parameters[name] for name in self._space.parameters_by_name)
        if key not in self._known:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            architecture = self._space.architecture(parameters)
            self._known[key] = _Candidate(architecture.id, self._costs(architecture))
        return self._known[key]
