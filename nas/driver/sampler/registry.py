"""The samplers by name, ready for a search."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
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
    names = tuple(space.parameters_by_name)

    @lru_cache(maxsize=MAX_CACHED)
    def described(values: tuple[Any, ...]) -> _Described:
        architecture = space.architecture(dict(zip(names, values, strict=True)))
        return _Described(architecture.id, costs(architecture))

    def describe(parameters: Parameters) -> _Described:
        return described(tuple(parameters[name] for name in names))

    # Of some spaces one network in 10^9 keeps a limit: nobody meets that by drawing.
    allowed = [easiest(space, limits, costs)] if limits else []
    distributions = {
        key: optuna.distributions.CategoricalDistribution(parameter.values)
        for key, parameter in space.parameters_by_name.items()
    }

    def feasible(parameters: Parameters) -> bool:
        return keeps(limits, describe(parameters).costs)

    def identity(parameters: Parameters) -> str:
        return describe(parameters).id

    def known(objective: Objective) -> Callable[[Parameters], float]:
        return lambda parameters: describe(parameters).costs[objective.name]

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


class _Described(NamedTuple):
    id: str
    costs: Costs
