"""Timed networks -> a table. Pure functions: the same timings give the same table, whenever they were taken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from nas.architecture.document import Architecture
from nas.latency.layers import Segment, segments
from nas.latency.machine import Provenance
from nas.latency.model import Context, LayerModel, Observation, fit, fit_context, kinds_of, weights_of
from nas.latency.table import HeldOut, Table

FOLDS = 5
WHOLE_WEIGHT = 3.0
"""How much a whole network's relative error counts, one segment's counting 1: it is what is to be predicted."""
PASSES = 4
"""Fits in turn of the model and of the machine's slowness in each group."""
LEAST_ERROR = 0.02
"""No interval is narrower than this on either side, however well a handful of networks was predicted."""


class Timed(NamedTuple):
    """One network's times in ms."""

    document: dict[str, Any]
    parts: tuple[float, ...]
    """Of its segments, in order; empty where the engine cannot time them one by one."""
    whole: float


class Group(NamedTuple):
    """Networks that were timed in turn, and the sentinel among them."""

    sentinel: float
    """The time in ms of the one network that is timed in every group."""
    networks: tuple[Timed, ...]
    stolen: float = 0.0
    """Share of the time in which other processes had our core."""


class Chain(NamedTuple):
    """A network, or a single segment, that was timed; the machine's drift is divided out."""

    segments: tuple[Segment, ...]
    parts: tuple[float, ...]
    whole: float


@dataclass(frozen=True)
class Fit:
    """Layer prices, context and variances that were fitted to timed networks."""

    model: LayerModel
    context: Context
    measured: dict[str, tuple[float, int]]
    model_variance: float
    timing_variance: float

    def modelled(self, chain: Sequence[Segment]) -> float:
        """The time in ms of a network by its layers' prices alone."""
        ms = self.model.whole(chain)
        return ms * self.context(ms, weights_of(chain), len(kinds_of(chain)))


def steady(groups: Sequence[Group], num_classes: int, whole_weight: float = WHOLE_WEIGHT) -> list[Chain]:
    """The networks' times as they would be at the machine's usual speed (the median over the groups).

    A processor's speed wanders by some percent from minute to minute, and for all networks alike. How slow it was in a
    group is the median, over the group's networks, of what one took over what a fit to all groups expects, and of what
    the sentinel took over its own median. The sentinel alone is one network's luck: in ONNX Runtime it wandered by a
    third where the others did not, and dividing by it left 34% of held-out networks within 10%, against 56% without
    and 66% with all of them (EPYC, 64 networks). Not at its best speed: what is measured later will not meet that one
    either.
    """
    chains = [
        [
            Chain(tuple(segments(Architecture.from_dict(document), num_classes)), parts, whole)
            for document, parts, whole in group.networks
        ]
        for group in groups
    ]
    usual = float(np.median([group.sentinel for group in groups]))
    slowness = [1.0] * len(groups)
    for _ in range(PASSES):
        fitted = fit_chains(_at_one_speed(chains, slowness), whole_weight)
        found = [
            np.median([group.sentinel / usual, *(chain.whole / fitted.modelled(chain.segments) for chain in members)])
            for group, members in zip(groups, chains, strict=True)
        ]
        slowness = (found / np.median(found)).tolist()
    return _at_one_speed(chains, slowness)


def _at_one_speed(groups: Sequence[Sequence[Chain]], slowness: Sequence[float]) -> list[Chain]:
    return [
        Chain(chain.segments, tuple(part / factor for part in chain.parts), chain.whole / factor)
        for chains, factor in zip(groups, slowness, strict=True)
        for chain in chains
    ]


def fit_chains(chains: Sequence[Chain], whole_weight: float = WHOLE_WEIGHT) -> Fit:
    """Fit prices, the whole networks' correction, and how far a segment's own timing is to be trusted."""
    times: dict[Segment, list[float]] = {}
    for chain in chains:
        for segment, part in zip(chain.segments, chain.parts, strict=bool(chain.parts)):
            times.setdefault(segment, []).append(part)
    observations = [Observation((segment,), float(np.median(parts))) for segment, parts in times.items()]
    observations += [Observation(chain.segments, chain.whole, whole_weight) for chain in chains if _is_network(chain)]
    in_context = all(
        _is_network(chain) and chain.parts and math.isclose(sum(chain.parts), chain.whole) for chain in chains
    )
    model = fit(observations, per_run=bool(times) and not in_context)
    timing_variance = _within([np.log(parts) for parts in times.values()])
    measured = {segment: (float(np.exp(np.mean(np.log(parts)))), len(parts)) for segment, parts in times.items()}
    residuals = [math.log(ms / model.alone(segment)) for segment, (ms, _) in measured.items()]
    noise = timing_variance * float(np.mean([1 / len(parts) for parts in times.values()])) if times else 0.0
    model_variance = max(0.0, float(np.var(residuals)) - noise) if residuals else 0.0
    wholes = [chain for chain in chains if _is_network(chain)] or chains
    context = fit_context([(chain.segments, model.whole(chain.segments), chain.whole) for chain in wholes])
    return Fit(
        model,
        context,
        {segment.key: value for segment, value in measured.items()},
        model_variance,
        timing_variance,
    )


def make_table(
    chains: Sequence[Chain],
    *,
    space_name: str,
    space_id: str,
    num_classes: int,
    provenance: Provenance,
    complaint: str = "",
    whole_weight: float = WHOLE_WEIGHT,
) -> Table:
    """The table that all timings give, with its error on networks held out in turn."""

    def table(fitted: Fit, held_out: HeldOut) -> Table:
        return Table(
            space_name=space_name,
            space_id=space_id,
            num_classes=num_classes,
            provenance=provenance,
            model=fitted.model,
            context=fitted.context,
            measured=fitted.measured,
            model_variance=fitted.model_variance,
            timing_variance=fitted.timing_variance,
            held_out=held_out,
            complaint=complaint,
        )

    singles = [chain for chain in chains if not _is_network(chain)]
    networks = [chain for chain in chains if _is_network(chain)]
    predicted, actual = [], []
    for fold in range(min(FOLDS, len(networks))):
        training = [chain for index, chain in enumerate(networks) if index % FOLDS != fold]
        if not singles and not training:
            continue
        partial = table(fit_chains([*singles, *training], whole_weight), HeldOut(0, 0.0, 0.0, 0.0))
        for chain in networks[fold::FOLDS]:
            if all(partial.knows(segment) for segment in chain.segments):
                predicted.append(partial.total(chain.segments))
                actual.append(chain.whole)
    return table(fit_chains(chains, whole_weight), _held_out(predicted, actual))


def _is_network(chain: Chain) -> bool:
    return len(chain.segments) > 1


def _held_out(predicted: Sequence[float], actual: Sequence[float]) -> HeldOut:
    if len(actual) < 3:
        return HeldOut(len(actual), 0.0, 0.0, 0.5)  # nothing is known: a wide interval
    errors = np.abs(np.log(predicted) - np.log(actual))
    within = float(np.mean(np.abs(np.divide(predicted, actual) - 1) <= 0.1))
    rank = float(spearmanr(predicted, actual)[0]) if np.ptp(predicted) and np.ptp(actual) else 0.0
    error = max(LEAST_ERROR, float(np.quantile(errors, 0.95, method="higher")))
    return HeldOut(len(actual), within, rank, error)


def _within(groups: Sequence[Any]) -> float:
    """Variance within groups, pooled."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return squares / freedom if freedom else 0.0
