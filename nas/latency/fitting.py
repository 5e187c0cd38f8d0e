"""Timed networks -> a table. Pure functions: the same timings give the same table, whenever they were taken."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.latency.layers import Segment
from nas.latency.machine import Provenance
from nas.latency.model import LatencyModel, Observation, fit_context, fit_prices, kinds_of, weights_of
from nas.latency.table import SCHEMA, HeldOut, SpaceName, Table
from nas.significance import spearman

FOLDS = 5
WHOLE_WEIGHT = 3.0
"""How much a whole network's relative error counts, one segment's counting 1: it is what is to be predicted."""
PASSES = 4
"""Fits in turn of the model and of the machine's slowness in each group."""
LEAST_ERROR = 0.02
"""No interval is narrower than this on either side, however well a handful of networks was predicted."""


class Timed(NamedTuple):
    """Times in ms of a network, or of a single segment."""

    segments: tuple[Segment, ...]
    parts: tuple[float, ...]
    """Of the segments, in order; empty where they were not timed one by one."""
    whole: float


class Group(NamedTuple):
    """Networks that were timed in turn, and the sentinel among them."""

    sentinel: float
    """The time in ms of the one network that is timed in every group."""
    networks: tuple[Timed, ...]
    stolen: float = 0.0
    """Share of the time in which other processes had our core."""


def steady(groups: Sequence[Group]) -> list[Timed]:
    """The networks' times as they would be at the machine's usual speed (the median over the groups).

    A processor's speed wanders by some percent from minute to minute, and for all networks alike. How slow it was in a
    group is the median, over the group's networks, of what one took over what a fit to all groups expects, and of what
    the sentinel took over its own median. The sentinel alone is one network's luck: in ONNX Runtime it wandered by a
    third where the others did not, and dividing by it left 34% of held-out networks within 10%, against 56% without
    and 66% with all of them (EPYC, 64 networks). Not at its best speed: what is measured later will not meet that one
    either.
    """
    usual = float(np.median([group.sentinel for group in groups]))
    slowness = [1.0] * len(groups)
    for _ in range(PASSES):
        model = fit_model(_at_one_speed(groups, slowness))
        found = [
            np.median(
                [group.sentinel / usual, *(item.whole / _modelled(model, item.segments) for item in group.networks)]
            )
            for group in groups
        ]
        slowness = (found / np.median(found)).tolist()
    return _at_one_speed(groups, slowness)


def _at_one_speed(groups: Sequence[Group], slowness: Sequence[float]) -> list[Timed]:
    return [
        Timed(item.segments, tuple(part / factor for part in item.parts), item.whole / factor)
        for group, factor in zip(groups, slowness, strict=True)
        for item in group.networks
    ]


def _modelled(model: LatencyModel, chain: Sequence[Segment]) -> float:
    """A network's time in ms by its layers' prices alone: no segment's own time in it."""
    ms = model.by_layers(chain)
    return ms * model.context(ms, weights_of(chain), len(kinds_of(chain)))


def fit_model(timed: Sequence[Timed]) -> LatencyModel:
    """Fit prices, the whole networks' correction, and how far a segment's own timing is to be trusted."""
    times: dict[Segment, list[float]] = {}
    for item in timed:
        for segment, part in zip(item.segments, item.parts, strict=bool(item.parts)):
            times.setdefault(segment, []).append(part)
    networks = [item for item in timed if _is_network(item)]
    observations = [Observation((segment,), float(np.median(parts))) for segment, parts in times.items()]
    observations += [Observation(item.segments, item.whole, WHOLE_WEIGHT) for item in networks]
    in_context = all(_is_network(item) and item.parts and math.isclose(sum(item.parts), item.whole) for item in timed)
    model = fit_prices(observations, per_run=bool(times) and not in_context)
    means = {segment: float(np.exp(np.mean(np.log(parts)))) for segment, parts in times.items()}
    residuals = [math.log(ms / model.alone(segment)) for segment, ms in means.items()]
    timing_variance = _within([np.log(parts) for parts in times.values()])
    noise = timing_variance * float(np.mean([1 / len(parts) for parts in times.values()])) if times else 0.0
    known = {
        "context": fit_context(
            [(item.segments, model.by_layers(item.segments), item.whole) for item in networks or timed]
        ),
        "segments": {segment.key: (ms, len(times[segment])) for segment, ms in means.items()},
        "model_variance": max(0.0, float(np.var(residuals)) - noise) if residuals else 0.0,
        "timing_variance": timing_variance,
    }
    return model.model_copy(update=known)


def make_table(
    timed: Sequence[Timed], *, space: SpaceName, num_classes: int, provenance: Provenance, complaint: str = ""
) -> Table:
    """The table that all timings give, with its error on networks held out in turn."""
    return Table(
        schema=SCHEMA,
        space=space,
        num_classes=num_classes,
        provenance=provenance,
        held_out=_cross_validated(timed),
        complaint=complaint,
        **dict(fit_model(timed)),
    )


def _cross_validated(timed: Sequence[Timed]) -> HeldOut:
    singles = [item for item in timed if not _is_network(item)]
    networks = [item for item in timed if _is_network(item)]
    predicted, actual = [], []
    for fold in range(min(FOLDS, len(networks))):
        training = [*singles, *(item for index, item in enumerate(networks) if index % FOLDS != fold)]
        if not training:
            continue
        model = fit_model(training)
        for item in networks[fold::FOLDS]:
            if all(map(model.knows, item.segments)):
                predicted.append(model.total(item.segments))
                actual.append(item.whole)
    if len(actual) < 3:
        return HeldOut(len(actual), 0.0, 0.0, 0.5)  # nothing is known: a wide interval
    errors = np.abs(np.log(predicted) - np.log(actual))
    within = float(np.mean(np.abs(np.divide(predicted, actual) - 1) <= 0.1))
    rank = spearman(predicted, actual) or 0.0
    error = max(LEAST_ERROR, float(np.quantile(errors, 0.95, method="higher")))
    return HeldOut(len(actual), within, rank, error)


def _is_network(item: Timed) -> bool:
    return len(item.segments) > 1


def _within(groups: Sequence[Any]) -> float:
    """Variance within groups, pooled."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return squares / freedom if freedom else 0.0
