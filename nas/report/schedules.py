"""Expansion schedules: which networks are drawn, and whether they widen early or late."""

from collections.abc import Sequence
from statistics import fmean

from scipy.stats import binomtest

from nas.architecture.document import Architecture
from nas.report.points import Point

LEAST_NETWORKS = 6
"""With fewer no sign test can tell a preference from chance."""


def drawn(points: Sequence[Point]) -> list[int]:
    """Return the indices of the front's members, the user's own and the published networks, the smallest first.

    A network that is only printed is drawn where it has as many stages as one of those: others cannot be compared stage
    by stage.
    """
    trained = {point.name for point in points if point.kind == "published"}
    depths = {
        len(point.architecture.stages)
        for point in points
        if point.architecture is not None and (point.rank is not None or point.kind in ("own", "published"))
    }
    chosen = [
        index
        for index, point in enumerate(points)
        if point.architecture is not None
        and (
            point.rank is not None
            or point.kind in ("own", "published")
            or (point.kind == "printed" and point.name not in trained and len(point.architecture.stages) in depths)
        )
    ]
    once: dict[str, int] = {}
    for index in chosen:  # a network may be printed in several papers
        once.setdefault(f"{points[index].run} {points[index].name}", index)
    return sorted(once.values(), key=lambda index: points[index].values.get("size", 0))


def verdict(points: Sequence[Point]) -> str:
    """Say whether the networks found on the front expand more in early or in late stages; empty where few were found.

    A preference is stated where more of them share it than heads or tails would (sign test, 5 %).
    """
    found = [point.architecture for point in points if point.kind == "found" and point.rank is not None]
    halves = [half for architecture in found if architecture is not None and (half := _halves(architecture))]
    if len(halves) < LEAST_NETWORKS:
        return ""
    early, late = (fmean(half[place] for half in halves) for place in (0, 1))
    wide_early, wide_late = sum(a > b for a, b in halves), sum(a < b for a, b in halves)
    counted = (
        f"Of the {len(halves)} networks found on the front {wide_early} have larger expansions t in the first half of "
        f"their stages and {wide_late} in the second (t is {early:.1f} and {late:.1f} on average)"
    )
    if binomtest(wide_early, max(1, wide_early + wide_late)).pvalue > 0.05:
        return f"{counted}: no preference that chance would not give, where Han and Kwon argue for large t early."
    agrees = "as Han and Kwon argue" if wide_early > wide_late else "the opposite of what Han and Kwon argue"
    return f"{counted}: {agrees} (large t early, small t late)."


def _halves(architecture: Architecture) -> tuple[float, float] | None:
    """Return the mean t of both halves of the stages; a first stage of t = 1 is fixed and left out."""
    expansions = [t for stage in architecture.stages if (t := getattr(stage, "expansion", None)) is not None]
    if expansions and expansions[0] == 1:
        expansions = expansions[1:]
    middle = len(expansions) // 2
    return (fmean(expansions[:middle]), fmean(expansions[middle:])) if middle else None
