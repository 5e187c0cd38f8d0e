"""A layer's time as a sum of what it does: a call, multiply-accumulates, bytes moved, bytes of weights, filling up.

Each kind of layer (kernel and stride included) has its own five prices, fitted to timed segments with prices that
cannot be negative, so that the model stays sane between and beyond the sizes that it has seen. MACs alone explain a
third of the networks to 10% because the prices differ by kind: a depthwise MAC costs several times a pointwise one
(nn-Meter, Zhang et al., MobiSys 2021, splits by kernel kind for the same reason).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import nnls

from nas.blocks.complexity import FLOAT_BYTES
from nas.errors import UserError
from nas.latency.layers import Layer, Segment

MEGA = 1e6
LANES = 16
"""Engines with a blocked memory layout (ONNX Runtime's) fill channels up to a multiple of what a vector holds: 16 in
AVX-512, in fp32. With a price for that, the errors on ONNX Runtime have a deviation of 7.6% where they had 8.9%; eager
torch, which does not fill up, keeps about its own, 3.5% and 3.3% (128 networks in 8 folds, EPYC)."""
RELUCTANCE = 0.1
"""How strongly filling up is pulled to cost nothing, so that it explains what nothing else does."""
RIDGE = 0.001
FEWEST_NETWORKS = 12
"""With fewer timed networks their context is not told from noise."""
MAX_MS = 1e9
"""No time of ours is longer, nor shorter than 1 / MAX_MS: what is computed from a table stays a number."""
MAX_LOG = 10.0
"""No logarithm of a factor is larger."""
NotNegative = Annotated[float, Field(ge=0, le=MAX_MS)]
Positive = Annotated[float, Field(ge=1 / MAX_MS, le=MAX_MS)]
Slope = Annotated[float, Field(ge=-MAX_LOG, le=MAX_LOG)]
Count = Annotated[int, Field(ge=1)]


class Quantities(NamedTuple):
    """Work of a layer: what it does, and pays for."""

    calls: float
    macs: float
    """Millions."""
    moved: float
    """MB of activations."""
    weights: float
    """MB of weights."""
    filling: float
    """Millions of MACs by which filled-up channels exceed the layer's own."""


PRICES = len(Quantities._fields)
Prices = tuple[NotNegative, NotNegative, NotNegative, NotNegative, NotNegative]
"""In ms, of the quantities in their order."""


@dataclass(frozen=True)
class Context:
    """Effect of a whole network on its layers: the more code and data it runs through, the colder the caches.

    One and the same block is 10 to 15% faster in a network of plain blocks than in one of many kinds (EPYC, eager); in
    ONNX Runtime, networks above 6 ms take 10% more than their layers' prices, those of 2 to 4 ms 5% less (Xeon). The
    factor's logarithm is a parabola in that of the time by the prices, and linear in those of the weights and in the
    kinds of layer.
    """

    base: Slope = 0.0
    per_log_ms: Slope = 0.0
    per_log_ms_squared: Slope = 0.0
    per_log_mb: Slope = 0.0
    """Of weights."""
    per_kind: Slope = 0.0
    """Of layer."""
    least_ms: Positive = 1.0
    most_ms: Positive = 1.0
    """The parabola ends at the fastest and the slowest network that it was fitted to."""

    def __call__(self, ms: float, weights: int, kinds: int) -> float:
        """The factor on the sum over segments.

        Args:
            ms: that sum.
            weights: bytes of all weights.
            kinds: number of different kinds of layer.
        """
        time = math.log(min(max(ms, self.least_ms), self.most_ms))
        return math.exp(
            self.base
            + self.per_log_ms * time
            + self.per_log_ms_squared * time**2
            + self.per_log_mb * _log_mb(weights)
            + self.per_kind * kinds
        )


class LatencyModel(BaseModel):
    """A network's time from its layers: what a latency table knows. A file holds no number that is not a finite time.

    A segment's time is its layers' prices, moved towards its own measured time by as much as that can be trusted.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    prices: Annotated[dict[str, Prices], Field(min_length=1)]
    """By kind of layer."""
    per_run: NotNegative
    """ms of a run by itself, whatever it runs: a session's call, in engines whose blocks are timed one by one."""
    per_edge: NotNegative
    """ms per MB that such a run takes in and gives out: an engine changes the layout there, not between blocks."""
    context: Context
    """Whole networks over the sum of their segments."""
    segments: dict[str, tuple[Positive, Count]]
    """Mean ms and number of timings of each timed segment, by :attr:`Segment.key`."""
    model_variance: NotNegative
    """Variance of log(measured / model) over segments, timing noise taken out."""
    timing_variance: NotNegative
    """Variance of the logarithm of one timing of a segment."""

    def total(self, chain: Iterable[Segment]) -> float:
        """The time in ms of a network with these segments.

        Raises:
            UserError: it has a kind of layer that was never timed.
        """
        total, weights, kinds = self.per_run, 0, frozenset[str]()
        for segment in chain:
            known = self._known.get(segment)
            if known is None:
                known = self._known[segment] = self._segment(segment), weights_of([segment]), kinds_of([segment])
            total += known[0]
            weights += known[1]
            kinds |= known[2]
        return total * self.context(total, weights, len(kinds)) if total > 0 else 0.0

    def knows(self, segment: Segment) -> bool:
        """Return whether every kind of the segment's layers was timed."""
        return all(self._priced(kind) is not None for kind in kinds_of([segment]))

    def by_layers(self, chain: Sequence[Segment]) -> float:
        """The time in ms of a network with these segments by its layers' prices, without the context."""
        return self.per_run + sum(map(self._layers, chain))

    def alone(self, segment: Segment) -> float:
        """The segment's time in ms, by its layers' prices, where it is a run of its own."""
        return self.by_layers([segment]) + self.per_edge * edge_bytes([segment]) / MEGA

    @cached_property
    def _known(self) -> dict[Segment, tuple[float, int, frozenset[str]]]:
        """Each segment met so far: its time, bytes of weights and kinds of layer."""
        return {}

    def _segment(self, segment: Segment) -> float:
        modelled = self._layers(segment)
        if segment.key not in self.segments or modelled <= 0:
            return modelled
        measured, count = self.segments[segment.key]
        trust = self.model_variance / (self.model_variance + self.timing_variance / count + 1e-12)
        return modelled * math.exp(trust * math.log(measured / self.alone(segment)))

    def _priced(self, kind: str) -> Prices | None:
        """Return the prices of a kind of layer; None where it was not timed.

        Poolings of a whole image have a kind for each side. Of a space of many resolutions not all are timed: one that
        was not has the prices of the nearest.
        """
        known, wanted = self.prices.get(kind), _POOL.fullmatch(kind)
        if known is not None or wanted is None:
            return known
        pools = [found for found in map(_POOL.fullmatch, self.prices) if found and found[2] == wanted[2]]
        if not pools:
            return None
        return self.prices[min(pools, key=lambda found: abs(math.log(int(found[1]) / int(wanted[1]))))[0]]

    def _layers(self, segment: Segment) -> float:
        total = 0.0
        for kind, quantities in _quantities(segment):
            prices = self._priced(kind)
            if prices is None:
                raise UserError(
                    f"the latency table knows no layer of kind {kind!r}; calibrate for the space of this network"
                )
            total += sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
        return total


class Observation(NamedTuple):
    """Segments that were timed together: one block, or all of a network."""

    chain: Sequence[Segment]
    ms: float
    """Above 0."""
    weight: float = 1.0
    """How much its relative error counts."""


def fit_prices(observed: Sequence[Observation], *, per_run: bool) -> LatencyModel:
    """Fit the prices to times by their relative errors; the model knows nothing else yet.

    Args:
        observed: at least one.
        per_run: each is a run of its own, whose call has a price as well.
    """
    kinds = sorted(kinds_of(segment for chain, *_ in observed for segment in chain))
    column = {kind: PRICES * index for index, kind in enumerate(kinds)}
    rows: npt.NDArray[np.float64] = np.zeros((len(observed), PRICES * len(kinds) + 2))
    weights = np.array([weight for _, _, weight in observed])
    for row, (chain, ms, weight) in zip(rows, observed, strict=True):
        for segment in chain:
            for kind, quantities in _quantities(segment):
                row[column[kind] : column[kind] + PRICES] += quantities
        if per_run:
            row[-2:] = 1.0, edge_bytes(chain) / MEGA
        row *= weight / ms
    # Columns of one size make the solver's tolerance mean the same for each; what nothing does has no price.
    norms = np.linalg.norm(rows, axis=0)
    size = np.where(norms > 0, norms, 1.0)
    # A row per kind that asks for a filling, the last of its prices, of 0.
    fillings = RELUCTANCE * np.eye(rows.shape[1])[PRICES - 1 : -2 : PRICES]
    targets = np.concatenate([weights, np.zeros(len(fillings))])
    solution, _ = nnls(np.concatenate([rows / size, fillings]), targets, maxiter=50 * rows.shape[1])
    *prices, run, edge = (solution / size).tolist()
    return LatencyModel(
        prices={kind: tuple(prices[at : at + PRICES]) for kind, at in column.items()},
        per_run=run if per_run else 0.0,
        per_edge=edge if per_run else 0.0,
        context=Context(),
        segments={},
        model_variance=0.0,
        timing_variance=0.0,
    )


def fit_context(networks: Sequence[tuple[Sequence[Segment], float, float]]) -> Context:
    """Fit the context's effect, in logarithms, with a light pull of the slopes to 0.

    Args:
        networks: each one's segments, the sum of their prices in ms, and the time that it takes in ms.
    """
    times = np.log([ms for _, ms, _ in networks])
    target = np.log([taken for _, _, taken in networks]) - times
    if len(networks) < FEWEST_NETWORKS:
        return Context(float(target.mean()))
    features = np.array(
        [
            [time, time**2, _log_mb(weights_of(chain)), len(kinds_of(chain))]
            for time, (chain, _, _) in zip(times, networks, strict=True)
        ]
    )
    center, size = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    scaled = (features - center) / size
    pull = RIDGE * len(networks) * np.eye(features.shape[1])
    slopes = np.linalg.solve(scaled.T @ scaled + pull, scaled.T @ (target - target.mean())) / size
    base = float(target.mean() - slopes @ center)
    return Context(base, *slopes.tolist(), *np.exp([times.min(), times.max()]).tolist())


def edge_bytes(chain: Sequence[Segment]) -> int:
    """Bytes of the tensor that goes into the first segment and of the one that comes out of the last."""
    first, last = chain[0].layers[0], chain[-1].layers[-1]
    entering = FLOAT_BYTES * first.in_channels * first.resolution**2
    return entering + max(0, last.moved - FLOAT_BYTES * last.in_channels * last.resolution**2)


def weights_of(chain: Iterable[Segment]) -> int:
    """Bytes of weights."""
    return sum(layer.weights for segment in chain for layer in segment.layers)


_POOL = re.compile(r"move1s([1-9]\d*)( \w+)?")
"""The kind of a pooling: the ratio of its sides, and an activation other than ReLU."""


def kinds_of(chain: Iterable[Segment]) -> frozenset[str]:
    """The kinds of layer, as the model tells them apart."""
    return frozenset(_kind(layer, segment.activation) for segment in chain for layer in segment.layers)


def _quantities(segment: Segment) -> list[tuple[str, Quantities]]:
    return [
        (
            _kind(layer, segment.activation),
            Quantities(1.0, layer.macs / MEGA, layer.moved / MEGA, layer.weights / MEGA, _filling(layer) / MEGA),
        )
        for layer in segment.layers
    ]


def _filling(layer: Layer) -> float:
    """MACs that filled-up channels add to a convolution; fewer input channels than a vector holds stay as they are."""
    if layer.kind in ("se", "linear", "move"):
        return 0.0
    larger = _filled(layer.out_channels)
    if "depthwise" not in layer.kind and layer.in_channels >= LANES:
        larger *= _filled(layer.in_channels)
    return layer.macs * (larger - 1)


def _filled(channels: int) -> float:
    return -(-channels // LANES) * LANES / channels


def _kind(layer: Layer, activation: str) -> str:
    """ReLU is the common case; another activation has another price, which its layers' own prices take up."""
    name = f"{layer.kind}{layer.kernel}s{layer.stride}"
    return name if activation in ("relu", "relu6") else f"{name} {activation}"


def _log_mb(weights: int) -> float:
    return math.log(max(1, weights) / MEGA)
