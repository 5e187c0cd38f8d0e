"""Samplers by name, ready for a search."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.architecture.space import Space
from nas.driver.limits import easiest, keeps
from nas.driver.objectives import Limit, Objective
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.sampler.per_trial import PerTrialSampler
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
) -> BaseSampler:
    """Make a sampler for this search; `name` is one of :data:`nas.driver.settings.SAMPLERS`.

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
    return KnownCostSampler(known=functions, decided=[str(limit) for limit in limits], **common)
