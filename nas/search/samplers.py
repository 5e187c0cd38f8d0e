"""The samplers by name, ready for a search."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from nas.search.objectives import Limit, Objective
from nas.search.sampler import KnownCostSampler
from nas.search.study import CostFunction
from nas.space import Space


def make_sampler(
    name: str,
    *,
    space: Space,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    costs: CostFunction,
    seed: int,
) -> BaseSampler:
    """A sampler for this search; `name` is one of :data:`nas.search.settings.SAMPLERS`."""
    if name == "known-cost":

        def known(objective: Objective) -> Any:
            return lambda parameters: costs(space.architecture(parameters))[objective.name]

        return KnownCostSampler(
            known={index: known(objective) for index, objective in enumerate(objectives) if objective.known},
            search_space={
                key: optuna.distributions.CategoricalDistribution(parameter.values)
                for key, parameter in space.parameters_by_name.items()
            },
            seed=seed,
            feasible=lambda parameters: keeps(limits, costs(space.architecture(parameters))) if limits else True,
            identity=lambda parameters: space.architecture(parameters).id,
        )
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def keeps(limits: Sequence[Limit], costs: Any) -> bool:
    """Whether costs keep all limits."""
    return all(limit.excess(costs) <= 0 for limit in limits)
