"""Limits on known costs: the network that keeps them most easily, and what to say where none does."""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nas.architecture.space import Space, Value
from nas.driver.objectives import Limit
from nas.driver.study import CostFunction, Costs
from nas.errors import UserError
from nas.units import counted, listed

RESTARTS = 4
"""Further descents, from random networks, before it is said that nothing keeps the limits."""
SUGGESTED = 1_000
"""So many networks keep the looser limits that are suggested."""


def keeps(limits: Sequence[Limit], costs: Costs) -> bool:
    """Return whether costs keep all limits."""
    return all(limit.excess(costs) <= 0 for limit in limits)


def leaves_some(space: Space, limits: Sequence[Limit], costs: CostFunction) -> bool:
    """Return whether a network that keeps all limits is found."""
    return keeps(limits, costs(space.architecture(easiest(space, limits, costs))))


def check_limits(space: Space, limits: Sequence[Limit], costs: CostFunction) -> None:
    """Find out before anything is trained whether limits leave anything.

    Raises:
        UserError: no network that keeps them all was found; the line names the limit that binds, the nearest network
            and limits that leave some.
    """
    if not limits:
        return
    best = easiest(space, limits, costs)
    figures = costs(space.architecture(best))
    if keeps(limits, figures):
        return
    reached = {limit: costs(space.architecture(easiest(space, [limit], costs))) for limit in limits}
    alone = [limit for limit, least in reached.items() if limit.excess(least) > 0]
    if alone:
        said = f"no network of space {space.name} keeps {'it' if len(alone) == 1 else 'any of them'}"
        nearest = [(limit, reached[limit]) for limit in alone]
    else:
        said = f"no network of space {space.name} keeps all of them, though each alone can be kept"
        nearest = [(limit, figures) for limit in limits]
    shown = [f"{limit.objective.name} {limit.show(has)}" for limit, has in nearest]
    raise UserError(
        f"limit{'s' if len(nearest) > 1 else ''} {listed([limit.text for limit, _ in nearest])}: {said}; "
        f"the nearest has {listed(shown)}; {_suggestion(space, limits, costs, best)}"
    )


def easiest(space: Space, limits: Sequence[Limit], costs: CostFunction) -> dict[str, Value]:
    """Parameters of the cheapest network that keeps the limits; where none is found, of the one nearest to them.

    Goes downhill one parameter at a time. Costs rise with nearly every parameter whatever the others are, so that this
    ends at the cheapest network; where it does not keep the limits, random starts are tried as well.
    """

    def burden(parameters: Mapping[str, Value]) -> tuple[float, float]:
        figures = costs(space.architecture(parameters))
        # The second part leads across plateaus: of two equal largest activations one stays when the other shrinks.
        return max(0.0, *(limit.excess(figures) for limit in limits)), sum(map(math.log1p, figures.values()))

    best = _descend(space, burden, {name: parameter.values[0] for name, parameter in space.parameters_by_name.items()})
    for seed in range(RESTARTS):
        if burden(best)[0] <= 0:
            break
        best = min(best, _descend(space, burden, space.sample_parameters(seed)), key=burden)
    return best


def _descend(space: Space, burden: Callable[[Mapping[str, Value]], Any], start: dict[str, Value]) -> dict[str, Value]:
    best, lowest, improved = start, burden(start), True
    while improved:
        improved = False
        for name, parameter in space.parameters_by_name.items():
            for value in parameter.values:
                if value != best[name] and (found := burden({**best, name: value})) < lowest:
                    best, lowest, improved = {**best, name: value}, found, True
    return best


def _suggestion(space: Space, limits: Sequence[Limit], costs: CostFunction, best: dict[str, Value]) -> str:
    """Return how far the limits that the nearest network breaks have to be loosened to leave some networks."""
    figures = costs(space.architecture(best))
    kept = [limit for limit in limits if limit.excess(figures) <= 0]
    broken = [limit.loosened(1 + limit.excess(figures)) for limit in limits if limit not in kept]

    def strain(figures: Costs) -> float:
        return 1 + max(limit.excess(figures) for limit in broken)

    strains: dict[str, float] = {}
    for parameters in _cheapest_first(space, lambda chosen: strain(costs(space.architecture(chosen))), best):
        architecture = space.architecture(parameters)
        if keeps(kept, costs(architecture)):
            strains[architecture.id] = strain(costs(architecture))
    found = sorted(strains.values())[:SUGGESTED]
    looser = [limit.loosened(found[-1]).text for limit in broken]
    return f"{listed(looser)} would leave about {counted(len(found), 'network')}"


def _cheapest_first(
    space: Space, strain: Callable[[Mapping[str, Value]], float], best: dict[str, Value]
) -> Iterator[dict[str, Value]]:
    """Choices of parameters, about in the order of their strain: as if each value's share simply added up.

    Two for every one that is suggested, since it is not quite the order. What does not change the network is left out.
    """
    lowest, same = strain(best), space.architecture(best).id
    axes: list[list[tuple[float, Value]]] = []
    for name, parameter in space.parameters_by_name.items():
        others = [{**best, name: value} for value in parameter.values if value != best[name]]
        changed = [chosen for chosen in others if space.architecture(chosen).id != same]
        dearer = [(max(strain(chosen) - lowest, 0.0), chosen[name]) for chosen in changed]
        axes.append([(0.0, best[name]), *sorted(dearer, key=lambda pair: pair[0])])
    names = list(space.parameters_by_name)
    queue: list[tuple[float, tuple[int, ...], int]] = [(0.0, (0,) * len(axes), 0)]
    for _ in range(2 * SUGGESTED):
        if not queue:
            return
        added, steps, last = heapq.heappop(queue)
        yield {name: axis[step][1] for name, axis, step in zip(names, axes, steps, strict=True)}
        # Each choice has one predecessor: the one with its last changed parameter a step lower.
        for place in range(last, len(axes)):
            step = steps[place] + 1
            if step < len(axes[place]):
                dearer_by = axes[place][step][0] - axes[place][step - 1][0]
                heapq.heappush(queue, (added + dearer_by, (*steps[:place], step, *steps[place + 1 :]), place))
