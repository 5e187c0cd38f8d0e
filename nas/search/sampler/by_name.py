"""The samplers by name, ready for a search."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.samplers import BaseSampler

from nas.search.objectives import Limit, Objective
from nas.search.sampler.known_cost import KnownCostSampler
from nas.search.study import CostFunction, Costs
from nas.space import Space

Parameters = Mapping[str, Any]
MAX_CACHED = 50_000


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
        priced = _Priced(space, costs)

        def known(objective: Objective) -> Callable[[Parameters], float]:
            return lambda parameters: priced(parameters).costs[objective.name]

        return KnownCostSampler(
            known={index: known(objective) for index, objective in enumerate(objectives) if objective.known},
            search_space={
                key: optuna.distributions.CategoricalDistribution(parameter.values)
                for key, parameter in space.parameters_by_name.items()
            },
            seed=seed,
            feasible=(lambda parameters: keeps(limits, priced(parameters).costs)) if limits else None,
            identity=lambda parameters: priced(parameters).id,
        )
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


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


def keeps(limits: Sequence[Limit], costs: Costs) -> bool:
    """Whether costs keep all limits."""
    return all(limit.excess(costs) <= 0 for limit in limits)
