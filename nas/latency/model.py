"""A layer's time as a sum of what it does: a call, multiply-accumulates, bytes moved, bytes of weights, filling up.

Each kind of layer (kernel and stride included) has its own five prices, fitted to timed segments with prices that
cannot be negative, so that the model stays sane between and beyond the sizes that it has seen. MACs alone explain a
third of the networks to 10% because the prices differ by kind: a depthwise MAC costs several times a pointwise one
(nn-Meter, Zhang et al., MobiSys 2021, splits by kernel kind for the same reason).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field
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
Prices = Mapping[str, Sequence[float]]


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


@dataclass(frozen=True)
class LayerModel:
    """Prices in ms by kind of layer, in the order of :class:`Quantities`."""

    prices: Prices
    per_run: float = 0.0
    """ms of a run by itself, whatever it runs: a session's call, in engines whose blocks are timed one by one."""
    per_edge: float = 0.0
    """ms per MB that such a run takes in and gives out: an engine changes the layout there, not between blocks."""

    def alone(self, segment: Segment) -> float:
        """The segment's time in ms where it is a run of its own."""
        return self(segment) + self.per_run + self.per_edge * edge_bytes([segment]) / MEGA

    def __call__(self, segment: Segment) -> float:
        """The segment's time in ms within a network, so without that of a run.

        Raises:
            UserError: it has a kind of layer that the model has never seen.
        """
        total = 0.0
        for kind, quantities in _quantities(segment):
            prices = self.prices.get(kind)
            if prices is None:
                raise UserError(
                    f"the latency table knows no layer of kind {kind!r}; calibrate for the space of this network"
                )
            total += sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
        return total

    def whole(self, chain: Iterable[Segment]) -> float:
        """The time in ms of a network with these segments, run as one."""
        return self.per_run + sum(map(self, chain))


class Observation(NamedTuple):
    """Segments that were timed together: one block, or all of a network."""

    chain: Sequence[Segment]
    ms: float
    """Above 0."""
    weight: float = 1.0
    """How much its relative error counts."""


def fit(observations: Sequence[Observation], *, per_run: bool = False) -> LayerModel:
    """Fit the prices to observed times by their relative errors.

    Args:
        observations: what was timed.
        per_run: each observation is a run of its own, whose call has a price as well.
    """
    kinds = sorted(kinds_of(segment for chain, *_ in observations for segment in chain))
    column = {kind: PRICES * index for index, kind in enumerate(kinds)}
    rows: npt.NDArray[np.float64] = np.zeros((len(observations), PRICES * len(kinds) + 2))
    weights = np.array([weight for _, _, weight in observations])
    for row, (chain, ms, weight) in zip(rows, observations, strict=True):
        for segment in chain:
            for kind, quantities in _quantities(segment):
                row[column[kind] : column[kind] + PRICES] += quantities
        if per_run:
            row[-2:] = 1.0, edge_bytes(chain) / MEGA
        row *= weight / ms
    # Columns of one size make the solver's tolerance mean the same for each.
    size = np.maximum(np.linalg.norm(rows, axis=0), 1e-30)
    # A row per kind that asks for a filling, the last of its prices, of 0.
    fillings = RELUCTANCE * np.eye(rows.shape[1])[PRICES - 1 : -2 : PRICES]
    targets = np.concatenate([weights, np.zeros(len(fillings))])
    solution, _ = nnls(np.concatenate([rows / size, fillings]), targets, maxiter=50 * rows.shape[1])
    *prices, run, edge = solution / size
    return LayerModel(
        {kind: tuple(map(float, prices[at : at + PRICES])) for kind, at in column.items()},
        per_run=float(run) if per_run else 0.0,
        per_edge=float(edge) if per_run else 0.0,
    )


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
