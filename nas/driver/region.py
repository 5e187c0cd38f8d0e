"""The part of a space that limits allow, in which a supernet's random members are drawn.

A supernet that is trained for a limit should not spend its steps on networks over it (Wang et al., "AttentiveNAS:
Improving Neural Architecture Search via Attentive Sampling", 2021, chooses by accuracy within the constraint's range).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from nas.architecture.document import Architecture
from nas.architecture.space import Space, Value
from nas.driver.limits import easiest, keeps
from nas.driver.objectives import OBJECTIVES, Limit
from nas.driver.prepare import Prepared
from nas.driver.settings import Settings
from nas.driver.study import CostFunction
from nas.errors import damaged
from nas.training.members import draw_parameters

DRAWN = 500
"""Networks of the region from which a training draws its members: their costs are worked out once."""
OF_A_TARGET, OF_A_DEVICE = ("size", "memory"), ("latency",)
"""Costs that are others on another target or device."""


class Region(BaseModel, frozen=True):
    """Limits that hold for a supernet's random members; without any, they are drawn in the whole space.

    Attributes:
        limits: largest values in stored units, by the name of the cost.
        target: whose costs are limited.
        device: whose latency is limited; empty where none is.
    """

    limits: dict[str, FiniteFloat] = Field(default_factory=dict)
    target: str = "torch"
    device: str = ""

    @classmethod
    def read(cls, document: Any, where: str) -> Self:
        """Read what :meth:`pydantic.BaseModel.model_dump` wrote; of an older supernet, that there is none.

        Raises:
            UserError: it is damaged.
        """
        try:
            region = cls.model_validate({} if document is None else document)
        except ValidationError as error:
            raise damaged(where, error) from None
        return region.model_copy(update={"limits": {k: v for k, v in region.limits.items() if k in OBJECTIVES}})

    def __str__(self) -> str:
        return ", ".join(str(Limit(OBJECTIVES[name], value)) for name, value in self.limits.items())

    def holds(self, asked: Self) -> bool:
        """Return whether all networks that another search allows are in this region."""
        return all(
            asked.limits.get(name, np.inf) <= value * (1 + 1e-9)
            and (name not in OF_A_TARGET or asked.target == self.target)
            and (name not in OF_A_DEVICE or asked.device == self.device)
            for name, value in self.limits.items()
        )


def region_of(settings: Settings, prepared: Prepared, *, several_devices: bool = False) -> Region:
    """Return the region of a search; a supernet for several devices has none of the first one's latency."""
    strictest: dict[str, float] = {}
    for limit in settings.parsed_limits:
        name = limit.objective.name
        if not (several_devices and name in OF_A_DEVICE):
            strictest[name] = min(limit.value, strictest.get(name, np.inf))
    timed = prepared.table is not None and not strictest.keys().isdisjoint(OF_A_DEVICE)
    device = prepared.table.provenance.device if prepared.table is not None and timed else ""
    return Region(limits=strictest, target=settings.target, device=device)


def members_within(region: Region, space: Space, costs: CostFunction, *, seed: int) -> list[Architecture]:
    """Draw the networks of a region that a training's members come from; none where nothing is limited."""
    limits = [Limit(OBJECTIVES[name], value) for name, value in region.limits.items()]
    if not limits:
        return []
    rng = np.random.default_rng(seed)
    return allowed_networks(space, limits, costs, draw_parameters(space, DRAWN, rng), rng)


def allowed_networks(
    space: Space,
    limits: Sequence[Limit],
    costs: CostFunction,
    wanted: Iterable[Mapping[str, Value]],
    rng: np.random.Generator,
) -> list[Architecture]:
    """Bring the wanted parameters within all limits, which some network of the space keeps.

    Where limits refuse a network, the one that keeps them most easily takes over what they allow of it, choice by
    choice in random order: of some spaces one network in 10^9 keeps a limit.
    """
    names = list(space.parameters_by_name)
    start = easiest(space, limits, costs)

    def allows(parameters: Mapping[str, Value]) -> bool:
        return keeps(limits, costs(space.architecture(parameters)))

    def nearest(parameters: Mapping[str, Value]) -> Mapping[str, Value]:
        if allows(parameters):
            return parameters
        chosen = start
        for place in rng.permutation(len(names)):
            step = {**chosen, names[place]: parameters[names[place]]}
            chosen = step if allows(step) else chosen
        return chosen

    return [space.architecture(nearest(parameters)) for parameters in wanted]
