"""The clock: runs of several networks in turn, each run with the evidence of whether it was disturbed.

Drift (clock speed, temperature, a neighbour on the same host) lasts seconds, so the networks are timed in rounds: in
every round each network has a few runs, and drift meets all alike. Three signs tell whether a run is to be believed:

- its thread had the core to itself: its processor time equals the wall time;
- hardly any time was stolen from the runs around it either: whoever takes turns with us on the core leaves cold
  caches behind, and even an uninterrupted run is then some 5 to 10% slower than on a free core;
- a small fixed piece of work beside it, the probe, was as fast as it can be: else the clock is lower, or a neighbour
  that the system does not show uses the core.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

STOLEN = 0.02
"""A run is preempted when its wall time exceeds its processor time by this share and 20 us."""
STOLEN_NS = 20_000
SHARED = 0.1
"""A round is shared when this much of its time was stolen."""
SLOW = 1.08
"""A round is slow when the probe takes this much longer than at its best."""
PROBE_RUNS = 5
WARM_UP_RUNS, WARM_UP_NS = 6, 6_000_000
"""A network's first runs in a round meet the caches of the network before it: ONNX Runtime took 1.25, 1.05, 0.86 and
0.83 ms for its first four of one and the same. So many do not count, or as many as fit into so many ns."""

Runner = Callable[[], Sequence[int]]
"""Runs once; returns the wall time of each of its parts in ns."""


@dataclass
class Trace:
    """All runs of one network."""

    parts: list[Sequence[int]] = field(default_factory=list)
    """Wall time of each part in ns, per run."""
    preempted: list[bool] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    """The probe's time in ns beside each run."""
    stolen: list[float] = field(default_factory=list)
    """Share of the round's wall time in which the thread did not run, per run."""
    rounds: list[int] = field(default_factory=list)
    """Number of the round, per run."""

    def calm(self, best_probe: float) -> list[bool]:
        """Per run, whether its round was left alone: little time stolen, the probe as fast as it can be."""
        return [
            probe <= SLOW * best_probe and stolen <= SHARED
            for probe, stolen in zip(self.probes, self.stolen, strict=True)
        ]


class Probe:
    """A fixed piece of work of about 0.1 ms: a matrix product in the first cache and a walk through the interpreter."""

    def __init__(self) -> None:
        self._matrix = torch.ones(96, 96)
        self._out = torch.empty_like(self._matrix)
        self.seen: list[int] = []

    def __call__(self) -> int:
        """Time it now, in ns."""
        best = min(self._once() for _ in range(PROBE_RUNS))
        self.seen.append(best)
        return best

    @property
    def best(self) -> float:
        """The probe's time on the free machine, as far as seen: the fastest 5%."""
        ordered = sorted(self.seen)
        return ordered[len(ordered) // 20]

    @property
    def slowdown(self) -> float:
        """Median over best, 1 on a quiet machine."""
        return statistics.median(self.seen) / self.best

    def _once(self) -> int:
        start = time.perf_counter_ns()
        torch.mm(self._matrix, self._matrix, out=self._out)
        total = 0
        for number in range(500):
            total += number
        return time.perf_counter_ns() - start


def time_round(
    runners: Sequence[Runner], traces: Sequence[Trace], probe: Probe, number: int, *, runs: int, single_thread: bool
) -> None:
    """One round: every runner warms up and then has `runs` timed runs, which are added to its trace.

    Args:
        number: the round's number, for the trace.
        single_thread: whether a run is this thread's work alone, so that its processor time shows preemption.
    """
    for runner, trace in zip(runners, traces, strict=True):
        before = probe()
        _warm_up(runner)
        timed = []
        for _ in range(runs):
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            parts = runner()
            cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
            timed.append((parts, wall, max(0, wall - cpu) if single_thread else 0))
        slower = max(before, probe())
        stolen = sum(lost for _, _, lost in timed) / sum(wall for _, wall, _ in timed)
        for parts, wall, lost in timed:
            trace.parts.append(parts)
            trace.preempted.append(lost > STOLEN * wall + STOLEN_NS)
            trace.probes.append(slower)
            trace.stolen.append(stolen)
            trace.rounds.append(number)


def _warm_up(runner: Runner) -> None:
    """Run until what ran before is out of the caches."""
    begun = time.perf_counter_ns()
    for _ in range(WARM_UP_RUNS):
        runner()
        if time.perf_counter_ns() - begun > WARM_UP_NS:
            return
