"""Choose the published networks that a search trains beside what it finds: its references."""

import math
from collections.abc import Callable, Mapping, Sequence

from nas.architecture import catalogue
from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver.objectives import Limit
from nas.driver.study import CostFunction
from nas.errors import UserError

E = "han-e"
MOBILENETV2 = ("mobilenetv2-cifar", "mobilenetv2")
"""For small images and for large ones."""
PYDMOBILENETS = ("pydmobilenet-add-29-", "pydmobilenet-concat-29-")
"""Each kind has a network for each width."""
MADE_FOR = 4
"""A reference is trained on images whose side is at most so many times smaller or larger than its paper's."""
SHARE = 5
"""Further networks that the space contains are references as long as all are at most one in so many trials; of a small
budget references have at most half."""


def published_here(space: Space, channels: int) -> dict[str, Architecture]:
    """The published networks by name, in an input of so many channels at the space's largest resolution.

    Those whose strides do not fit are left out.
    """
    networks = {}
    for network in catalogue.published():
        try:
            networks[network.name] = network.with_input(channels=channels, resolution=max(space.resolutions))
        except UserError:
            continue
    return networks


def chosen(
    which: str,
    networks: Mapping[str, Architecture],
    *,
    trials: int,
    space: Space,
    limits: Sequence[Limit],
    costs: CostFunction,
) -> list[Architecture]:
    """The networks (of :func:`published_here`) that a search's option `published` means, within its budget of trials.

    Raises:
        UserError: a network that was asked for by name does not fit the images.
    """
    contained = [network for network in networks.values() if space.contains(network)]
    if which in ("none", "contained", "all"):
        return {"none": [], "contained": contained, "all": list(networks.values())}[which]
    if which != "references":
        names = which.split(",")
        for name in names:
            if name not in networks:
                raise UserError(f"--published {name}: its strides do not fit images of {max(space.resolutions)} pixels")
        return [networks[name] for name in names]
    middle = middle_params(space, limits, costs)

    def far(name: str) -> float:
        return abs(math.log(costs(networks[name])["params"] / middle))

    first = [networks[name] for name in reference_names(list(networks), max(space.resolutions), far)]
    others = [network for network in contained if network not in first]
    others.sort(key=lambda network: costs(network)["params"])  # the cheapest take least of the search's time
    return first[: trials // 2] + others[: max(0, trials // SHARE - len(first))]


def reference_names(names: Sequence[str], side: int, far: Callable[[str], float]) -> list[str]:
    """E, MobileNetV2 and a PydMobileNet of each kind, where their papers are about images of about this size.

    `far` tells how far a network's cost is from those that the search is about; it chooses the PydMobileNets' width.
    """

    def times(name: str) -> float:
        return abs(math.log(side / catalogue.load(name).input.resolution))

    widths = [min(same, key=far) for kind in PYDMOBILENETS if (same := [n for n in names if n.startswith(kind)])]
    wanted = [E, min(MOBILENETV2, key=times), *widths]
    return [name for name in wanted if name in names and times(name) <= math.log(MADE_FOR)]


def middle_params(space: Space, limits: Sequence[Limit], costs: CostFunction) -> float:
    """Parameters half way, on a log scale, from the space's cheapest network to its dearest one within the limits.

    The front is not known before the search; it begins near the cheapest network, and does not go beyond the limits.
    """
    corners = [
        costs(space.architecture({name: parameter.values[end] for name, parameter in space.parameters_by_name.items()}))
        for end in (0, -1)
    ]
    low, high = sorted(corners, key=lambda figures: figures["params"])
    share = 1.0
    for limit in limits:
        name = limit.objective.name
        if name in low and high[name] > low[name]:
            share = min(share, math.log(limit.value / low[name]) / math.log(high[name] / low[name]))
    return low["params"] * (high["params"] / low["params"]) ** (max(share, 0) / 2)
