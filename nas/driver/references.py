"""Choose the published networks that a search trains beside what it finds: its references.

Half of what a search gains over a network of width 1 anybody gets by making that network thinner. So the references are
trained at smaller widths too: together they are the line that a search has to beat.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

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
WIDTHS = (0.25, 0.5, 0.75)
"""E and MobileNetV2 are made thinner by these; PydMobileNets are published so."""
SHARE = 5
"""Thinner references and further networks that the space contains are trained as long as all are at most one in so many
trials; of a small budget references have at most half."""
MOST_THINNER = 6
"""So many thinner references are trained where nobody says how many."""


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
    thinner: int | None = None,
    trials: int,
    space: Space,
    limits: Sequence[Limit],
    costs: CostFunction,
) -> list[Architecture]:
    """The networks that a search's options `published` and `references` mean, within its budget of trials.

    Args:
        which: the option `published`.
        networks: those of :func:`published_here` that may be trained.
        thinner: number of thinner references; None: as many as fit where `which` is the references, else none.

    Raises:
        UserError: a network that was asked for by name does not fit the images.
    """
    contained = [network for network in networks.values() if space.contains(network)]
    low, high = region = allowed_params(space, limits, costs)

    def far(name: str) -> float:
        return abs(math.log(costs(networks[name])["params"] / math.sqrt(low * high)))

    names = reference_names(list(networks), max(space.resolutions), far)
    references = [networks[name] for name in names]
    if which == "references":
        first, room = references[: trials // 2], max(0, trials // SHARE - len(references))
        count = min(MOST_THINNER, room) if thinner is None else min(thinner, trials // 2 - len(first))
    else:
        first, room = named(which, networks, contained, max(space.resolutions)), 0
        count = min(thinner or 0, trials // 2)
    line = spanning(first, thinner_references(networks, names), count, region, costs)
    others = [network for network in contained if network not in first and network not in line]
    others.sort(key=lambda network: costs(network)["params"])  # the cheapest take least of the search's time
    return [*first, *line, *others[: max(0, room - len(line))]]


def in_time(
    networks: Sequence[Architecture], sides: Sequence[int], seconds: Callable[[Architecture], float], most: float
) -> tuple[list[Architecture], int]:
    """Return the networks that fit into a limited time, and the resolution at which they do.

    That is the largest one at which all of them fit; where there is none, the smallest one, at which the cheapest are
    taken as far as the time goes.

    Args:
        networks: in any resolution.
        sides: resolutions to choose from, in pixels.
        seconds: of a network's training.
        most: seconds for all of them.
    """
    found: tuple[list[Architecture], int] = [], max(sides)
    for side in sorted(sides, reverse=True):
        try:
            placed = sorted((network.with_input(resolution=side) for network in networks), key=seconds)
        except UserError:  # strides that do not fit so small an image
            break
        totals = accumulate(map(seconds, placed))
        found = [network for network, total in zip(placed, totals, strict=True) if total <= most], side
        if len(found[0]) == len(networks):
            break
    return found


def named(
    which: str, networks: Mapping[str, Architecture], contained: list[Architecture], side: int
) -> list[Architecture]:
    """Return the networks that a word other than ``references``, or names, mean.

    Raises:
        UserError: a network does not fit images of this side.
    """
    if which in ("none", "contained", "all"):
        return {"none": [], "contained": contained, "all": list(networks.values())}[which]
    for name in which.split(","):
        if name not in networks:
            raise UserError(f"--published {name}: its strides do not fit images of {side} pixels")
    return [networks[name] for name in which.split(",")]


def thinner_references(networks: Mapping[str, Architecture], names: Sequence[str]) -> list[Architecture]:
    """Return E and MobileNetV2 at :data:`WIDTHS`, and the PydMobileNets' other widths."""
    thin = [
        Architecture.from_dict({**networks[name].to_dict(), "name": f"{name}-{width}", "width": width}, name)
        for name in names
        if not name.startswith(PYDMOBILENETS)
        for width in WIDTHS
    ]
    kinds = tuple(kind for kind in PYDMOBILENETS if any(name.startswith(kind) for name in names))
    return thin + [network for name, network in networks.items() if name.startswith(kinds) and name not in names]


def spanning(
    taken: Sequence[Architecture],
    candidates: Sequence[Architecture],
    count: int,
    region: tuple[float, float],
    costs: CostFunction,
) -> list[Architecture]:
    """Choose candidates that span a region of parameters together with what is taken.

    The next one is always the farthest, on a log scale within the region, from all before it; where none adds anything,
    the one nearest to the region.
    """
    logs = {id(network): math.log(costs(network)["params"]) for network in [*taken, *candidates]}
    low, high = map(math.log, region)

    def inside(network: Architecture) -> float:
        return min(max(logs[id(network)], low), high)

    def adds(network: Architecture) -> tuple[float, float]:
        gap = min((abs(inside(network) - inside(other)) for other in [*taken, *line]), default=high - low)
        return gap, -abs(logs[id(network)] - inside(network))

    line: list[Architecture] = []
    rest = [network for network in candidates if network not in taken]
    while rest and len(line) < count:
        line.append(max(rest, key=adds))
        rest.remove(line[-1])
    return line


def reference_names(names: Sequence[str], side: int, far: Callable[[str], float]) -> list[str]:
    """E, MobileNetV2 and a PydMobileNet of each kind, where their papers are about images of about this size.

    `far` tells how far a network's cost is from those that the search is about; it chooses the PydMobileNets' width.
    """

    def times(name: str) -> float:
        return abs(math.log(side / catalogue.load(name).input.resolution))

    widths = [min(same, key=far) for kind in PYDMOBILENETS if (same := [n for n in names if n.startswith(kind)])]
    wanted = [E, min(MOBILENETV2, key=times), *widths]
    return [name for name in wanted if name in names and times(name) <= math.log(MADE_FOR)]


def allowed_params(space: Space, limits: Sequence[Limit], costs: CostFunction) -> tuple[float, float]:
    """Return the parameters of the space's cheapest network, and about those of its dearest one within the limits.

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
    return low["params"], low["params"] * (high["params"] / low["params"]) ** max(share, 0)
