"""Invented timings, where they say that they come from, and the space that they are of."""

from collections.abc import Sequence

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.latency.calibration import draw_networks
from nas.latency.engines import Runtime
from nas.latency.fitting import Group, Timed, make_table, steady
from nas.latency.layers import Segment, segments
from nas.latency.machine import describe
from nas.latency.table import SpaceName, Table, space_id
from nas.latency.timing import Visit

PROVENANCE = describe(Runtime(), layout="contiguous", foreign_load=0)

DOCUMENT = {
    "name": "tiny",
    "input": {"channels": 1, "resolution": 8},
    "width": {"choice": [0.5, 1.0]},
    "stem": {"channels": 16},
    "stages": [
        {
            "block": "inverted_residual",
            "channels": 16,
            "expansion": {"choice": [1, 2, 4]},
            "se_ratio": {"choice": [0, 0.25]},
        },
        {
            "block": "inverted_residual",
            "channels": 24,
            "stride": 2,
            "repeats": 2,
            "expansion": {"choice": [1, 3]},
            "kernels": {"choice": [[3], [3, 5]]},
            "experts": {"choice": [1, 2]},
        },
    ],
}
SPACE = Space(DOCUMENT)


def visit(runs: Sequence[Sequence[int]], *, preempted: bool = False, stolen: float = 0.0, probe: int = 100) -> Visit:
    """Runs given by their parts."""
    return Visit(
        [sum(run) for run in runs],
        [preempted] * len(runs),
        [sorted(part)[round(0.2 * (len(runs) - 1))] for part in zip(*runs, strict=True)],
        probe,
        stolen,
        at=0,
    )


def true_ms(segment: Segment) -> float:
    """A device on which the model holds exactly."""
    return sum(0.02 + layer.macs / 2e7 + layer.moved / 5e6 + layer.weights / 1e7 for layer in segment.layers)


def timed(architecture: Architecture, factor: float = 1.0) -> Timed:
    chain = tuple(segments(architecture, 10))
    parts = tuple(factor * true_ms(segment) for segment in chain)
    return Timed(chain, parts, sum(parts))


def groups(count: int = 6, drift: float = 0.0) -> list[Group]:
    drawn = list(draw_networks(SPACE, 8 * count, 10))
    factors = [1 + drift * (index < 2) for index in range(count)]
    return [
        Group(timed(drawn[0], factor).whole, tuple(timed(item, factor) for item in drawn[1 + 8 * at : 9 + 8 * at]))
        for at, factor in enumerate(factors)
    ]


def table_of(timings: list[Group]) -> Table:
    space = SpaceName(name="tiny", id=space_id(SPACE))
    return make_table(steady(timings), space=space, num_classes=10, provenance=PROVENANCE)
