"""Times of networks -> their latencies, how sure they are, and whether to believe them. Pure functions of the times."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nas.latency.machine import Provenance
from nas.latency.timing import Trace, Visit, free_probe

Method = Literal["runs", "parts"]
Times = npt.NDArray[Any]

WIDEST = 0.05
"""An interval wider than this share of the value is too noisy."""
FEWEST = 5
"""Undisturbed visits that a value needs."""
SHARED = 0.1
"""A visit is disturbed when this much of its time was stolen,"""
SLOW = 1.3
"""or when the probe took this much longer than on the free machine."""
RESAMPLES = 200
NEIGHBOURS = 8
"""Visits before and after one that tell how fast the machine was; fewer networks tell nothing."""
PASSES = 5


@dataclass(frozen=True)
class Measurement:
    """The latency of one network for one batch."""

    name: str
    id: str
    value_ms: float
    """The middle one, over the undisturbed visits, of each visit's low quantile; see :func:`estimates`."""
    low_ms: float
    high_ms: float
    """A 95% interval of the value, over visits."""
    median_ms: float
    p90_ms: float
    iqr_ms: float
    """Median, 90% quantile and interquartile range of all runs, disturbed ones included."""
    repeats: int
    """Runs."""
    visits: int
    clean: int
    """Visits, and those of them that count."""
    method: Method
    """See :class:`Estimate`."""
    noisy: bool
    reason: str
    """Why it is too noisy; empty where it is not."""
    provenance: Provenance

    def tied(self, other: "Measurement") -> bool:
        """Return whether the intervals overlap, so that neither is known to be faster."""
        return self.low_ms <= other.high_ms and other.low_ms <= self.high_ms


@dataclass(frozen=True)
class Estimate:
    """A network's time at the machine's usual speed, in ns, with its interval."""

    value: float
    low: float
    high: float
    parts: tuple[float, ...]
    """How the value divides over the network's parts."""
    clean: int
    """Visits that count; where none does, the value is of all."""
    method: Method
    """``runs``: of whole runs; ``parts``: added over the network's parts, which fit between two disturbances."""

    def why_noisy(self) -> str:
        """Return what is wrong with it; empty if nothing is."""
        if self.clean < FEWEST:
            return f"too noisy: {self.clean} undisturbed visits, {FEWEST} are needed"
        width = (self.high - self.low) / self.value
        if width > WIDEST:
            return f"too noisy: interval of {width:.1%} of the value, {WIDEST:.0%} is allowed"
        return ""


def estimates(traces: Sequence[Trace]) -> list[Estimate]:
    """Return what each of the networks that were timed in turn takes at the machine's usual speed.

    Within a visit, which lasts some ms, disturbances only add: its value is the low quantile of its runs. Between
    visits, the machine is now faster and now slower: its drift is divided out (:func:`slowness`), and the
    value is the median over the visits.

    The interval is a bootstrap over visits, since runs of one visit share their disturbances; its generator is seeded.

    Args:
        traces: per network as many visits, round by round.
    """
    free = free_probe([visit for trace in traces for visit in trace])
    times = np.array([[visit.value for visit in trace] for trace in traces])
    counts = np.array([[_undisturbed(visit, free) for visit in trace] for trace in traces])
    places = np.array([[visit.at for visit in trace] for trace in traces])
    drift = slowness(np.where(counts, times, np.nan), places)
    return [
        _estimate(trace, values, kept, factors)
        for trace, values, kept, factors in zip(traces, times, counts, drift, strict=True)
    ]


def stolen(traces: Iterable[Trace]) -> float:
    """Share of all runs' wall time in which other processes had our core, in [0, 1]."""
    shares = [visit.stolen for trace in traces for visit in trace]
    return sum(shares) / len(shares) if shares else 0.0


def summarize(
    name: str, identity: str, trace: Trace, found: Estimate, provenance: Provenance, excuse: str
) -> Measurement:
    """A network's measurement from all its runs.

    Args:
        found: its estimate.
        excuse: what went on meanwhile, for the reason of a noisy measurement.
    """
    reason = found.why_noisy()
    runs = np.array([run for visit in trace for run in visit.runs]) / 1e6
    lower, median, upper, p90 = (float(value) for value in np.quantile(runs, [0.25, 0.5, 0.75, 0.9]))
    return Measurement(
        name=name,
        id=identity,
        value_ms=found.value / 1e6,
        low_ms=found.low / 1e6,
        high_ms=found.high / 1e6,
        median_ms=median,
        p90_ms=p90,
        iqr_ms=upper - lower,
        repeats=len(runs),
        visits=len(trace),
        clean=found.clean,
        method=found.method,
        noisy=bool(reason),
        reason=f"{reason}; {excuse}" if reason and excuse else reason,
        provenance=provenance,
    )


def _undisturbed(visit: Visit, free_probe: float) -> bool:
    return visit.stolen <= SHARED and visit.probe <= SLOW * free_probe


def _estimate(trace: Trace, values: Times, kept: Times, drift: Times) -> Estimate:
    clean = int(kept.sum())
    if not clean:
        kept = np.ones_like(kept)
    values = (values / drift)[kept]
    parts = np.median(np.array([visit.parts for visit in trace])[kept] / drift[kept, None], axis=0)
    value = float(np.median(values))
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    whole = np.mean([visit.in_one_piece for visit in trace]) >= 0.5
    return Estimate(
        value=value,
        low=min(float(low), value),
        high=max(float(high), value),
        parts=tuple((parts * value / parts.sum()).tolist()),
        clean=clean,
        method="runs" if whole else "parts",
    )


def slowness(times: Times, at: npt.NDArray[np.int64]) -> Times:
    """Return how slow the machine was at every visit, 1 at its usual speed, told from the networks themselves.

    A host that others use too changes its speed by 5 to 30% from second to second. A network's fastest runs are then
    those that a fast second met by luck, and the fewer such seconds the more of a lottery: over two halves of the same
    ten rounds of 138 networks, the fastest rounds of one and the same network differed by 8.3% (standard deviation of
    one), their 20% quantiles by 3.4%, their medians by 3.1%; the medians after the drift told by the neighbours was
    divided out, by 2.6% (Intel Xeon, ONNX Runtime, one run of 240 s).

    A network's time over its own median says how slow the machine was, and the network's luck; the median over the
    visits around it, without its own, says how slow the machine was.

    Args:
        times: (networks, rounds); NaN where a visit does not count.
        at: of the same shape: each visit's place in the order of all.

    Returns:
        Factors of the same shape; ones where there are too few networks to tell.
    """
    networks, rounds = times.shape
    if networks < NEIGHBOURS or rounds < 2:
        return np.ones_like(times)
    logs = np.log(times)
    drift = np.zeros_like(logs)
    order = np.argsort(at, axis=None)
    back = np.argsort(order)
    reach = np.array([*range(-NEIGHBOURS, 0), *range(1, NEIGHBOURS + 1)])
    near = np.arange(logs.size)[:, None] + reach
    outside = (near < 0) | (near >= logs.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about medians of nothing
        for _ in range(PASSES):
            usual = np.nanmedian(logs - drift, axis=1, keepdims=True)
            excess = (logs - usual).ravel()[order]
            around = np.where(outside, np.nan, excess[near.clip(0, logs.size - 1)])
            drift = np.nan_to_num(np.nanmedian(around, axis=1))
            drift *= _certainty(drift, excess - drift)
            drift = drift[back].reshape(logs.shape)
    return np.exp(drift - np.median(drift))


def _certainty(drift: Times, luck: Times) -> float:
    """Return the share of the medians' changes that is drift and not their own noise, in [0, 1] (Wiener's filter)."""
    luck_of_a_median = math.pi / 2 * float(np.nanvar(luck)) / (2 * NEIGHBOURS)
    variance = float(np.var(drift))
    return max(0.0, 1 - luck_of_a_median / variance) if variance > 0 else 0.0
