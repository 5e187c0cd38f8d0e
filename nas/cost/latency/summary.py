"""Times of one network -> its latency, how sure it is, and whether to believe it. Pure functions of the times."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nas.cost.latency.machine import Provenance
from nas.cost.latency.timing import Trace

Method = Literal["runs", "parts"]
Times = npt.NDArray[Any]

QUANTILE = 0.2
"""The value is this quantile of the clean runs: what the network takes when nothing disturbs it."""
WIDEST = 0.05
"""An interval wider than this share of the value is too noisy."""
FEWEST = 12
"""Clean runs that a value needs."""
RESAMPLES = 100


@dataclass(frozen=True)
class Measurement:
    """The latency of one network for one batch."""

    name: str
    id: str
    value_ms: float
    """The 20% quantile of the undisturbed runs."""
    low_ms: float
    high_ms: float
    """A 95% interval of the value, over rounds."""
    median_ms: float
    p90_ms: float
    iqr_ms: float
    """Median, 90% quantile and interquartile range of all runs, disturbed ones included."""
    repeats: int
    clean: int
    """Runs, and those that count."""
    method: Method
    """See :class:`Estimate`."""
    noisy: bool
    reason: str
    """Why it is too noisy; empty where it is not."""
    provenance: Provenance

    @property
    def spread(self) -> float:
        """Width of the interval as a share of the value."""
        return (self.high_ms - self.low_ms) / self.value_ms

    def tied(self, other: "Measurement") -> bool:
        """Whether the intervals overlap, so that neither is known to be faster."""
        return self.low_ms <= other.high_ms and other.low_ms <= self.high_ms

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Measurement":
        return cls(**{**document, "provenance": Provenance(**document["provenance"])})


@dataclass(frozen=True)
class Estimate:
    """A low quantile with its interval, in ns."""

    value: float
    low: float
    high: float
    clean: int
    method: Method
    """``runs``: of whole runs; ``parts``: added over the network's parts, which fit between two disturbances."""

    def why_noisy(self, fewest: int = FEWEST, widest: float = WIDEST) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.clean < fewest:
            return f"too noisy: {self.clean} undisturbed runs, {fewest} are needed"
        width = (self.high - self.low) / self.value
        if width > widest:
            return f"too noisy: interval of {width:.1%} of the value, {widest:.0%} is allowed"
        return ""


def estimate(trace: Trace, best_probe: float) -> Estimate:
    """What the network takes when nothing disturbs it: the low quantile of its undisturbed runs.

    On a busy core hardly any run of some milliseconds is left alone, but each of its parts is, often enough: where
    whole runs are too few, the parts' own low quantiles are added up. If the core is shared for long, that is an
    estimate, and counts as noisy.

    The interval is a bootstrap over rounds, since runs of one round share their disturbances; its generator is seeded.
    """
    parts = np.asarray(trace.parts, float)
    rounds = np.asarray(trace.rounds)
    calm = np.asarray(trace.calm(best_probe), bool)
    clean = calm & ~np.asarray(trace.preempted, bool)
    if clean.sum() >= FEWEST or parts.shape[1] == 1:
        return _estimate(parts.sum(axis=1, keepdims=True), clean, rounds, "runs")
    return _estimate(parts, calm, rounds, "parts")


def stolen(traces: Iterable[Trace]) -> float:
    """Share of all runs' wall time in which other processes had our core, in [0, 1]."""
    shares = [share for trace in traces for share in trace.stolen]
    return sum(shares) / len(shares) if shares else 0.0


def part_values(trace: Trace, best_probe: float) -> list[float]:
    """The low quantile of each part over the calm runs (over all where none was), in ns."""
    parts = np.asarray(trace.parts, float)
    calm = np.asarray(trace.calm(best_probe), bool)
    return [float(value) for value in np.quantile(parts[calm] if calm.any() else parts, QUANTILE, axis=0)]


def _estimate(parts: Times, kept: Times, rounds: Times, method: Method) -> Estimate:
    count = int(kept.sum())
    if not count:
        kept = np.ones_like(kept)
    parts, rounds = parts[kept], rounds[kept]
    rows = [np.flatnonzero(rounds == number) for number in np.unique(rounds)]
    draws = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
    resampled = [_low(parts[np.concatenate([rows[index] for index in draw])]) for draw in draws]
    low, high = np.quantile(resampled, [0.025, 0.975])
    value = _low(parts)
    return Estimate(value, min(float(low), value), max(float(high), value), count, method)


def _low(parts: Times) -> float:
    """The sum over parts of each one's low quantile; :func:`numpy.quantile` without its overhead, lower rank."""
    rank = int(QUANTILE * (len(parts) - 1))
    return float(np.partition(parts, rank, axis=0)[rank].sum())


def summarize(
    name: str, identity: str, trace: Trace, best_probe: float, provenance: Provenance, excuse: str
) -> Measurement:
    """A network's measurement from all its runs.

    Args:
        excuse: what went on meanwhile, for the reason of a noisy measurement.
    """
    found = estimate(trace, best_probe)
    reason = found.why_noisy()
    totals = np.asarray(trace.parts, float).sum(axis=1) / 1e6
    lower, median, upper, p90 = (float(value) for value in np.quantile(totals, [0.25, 0.5, 0.75, 0.9]))
    return Measurement(
        name=name,
        id=identity,
        value_ms=found.value / 1e6,
        low_ms=found.low / 1e6,
        high_ms=found.high / 1e6,
        median_ms=median,
        p90_ms=p90,
        iqr_ms=upper - lower,
        repeats=len(totals),
        clean=found.clean,
        method=found.method,
        noisy=bool(reason),
        reason=f"{reason}; {excuse}" if reason and excuse else reason,
        provenance=provenance,
    )
