"""The clock: runs of several networks in turn, each run with the evidence of whether it was disturbed.

Drift (clock speed, temperature, a neighbour on the same host) lasts seconds to minutes, so the networks are timed in
rounds: in every round each network is visited once, each time in another order, and has a few runs there, so that
drift meets all alike, and :mod:`nas.latency.summary` can tell it from the networks. Three signs tell whether a run
is to be believed:

- its thread had the core to itself: its processor time equals the wall time;
- hardly any time was stolen from the runs around it either: whoever takes turns with us on the core leaves cold
  caches behind, and even an uninterrupted run is then some 5 to 10% slower than on a free core;
- a small fixed piece of work beside it, the probe, was about as fast as it can be: else a neighbour that the system
  does not show uses the core.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

STOLEN = 0.02
"""A run is preempted when its wall time exceeds its processor time by this share and 20 us."""
STOLEN_NS = 20_000
QUANTILE = 0.2
"""A visit's value is this quantile of its undisturbed runs: what the network takes when nothing comes between."""
PROBE_RUNS = 5
WARM_UP_RUNS, WARM_UP_NS = 8, 60_000_000
"""A network's first runs of a visit meet the caches and the predictors of the network before it, whatever its size:
on ONNX Runtime they took 1.5 (and up to 9), 1.25, 1.15, 1.1 and 1.05 times what it takes from the eighth on. So many
do not count, or as many as fit into so many ns."""

Runner = Callable[[], Sequence[int]]
"""Runs once; returns the wall time of each of its parts in ns."""


class Visit(NamedTuple):
    """One network's runs in one round; plain numbers, so that it can be written down."""

    runs: Sequence[int]
    """Wall time of each run in ns."""
    preempted: Sequence[bool]
    """Per run."""
    parts: Sequence[int]
    """The low quantile of each part of the network over the runs, in ns."""
    probe: int
    """The probe's time in ns beside the runs."""
    stolen: float
    """Share of the runs' wall time in which the thread did not run."""
    at: int = 0
    """Its place in the order of all visits."""

    @property
    def clean(self) -> list[int]:
        """The runs that were not preempted."""
        return [run for run, lost in zip(self.runs, self.preempted, strict=True) if not lost]

    @property
    def in_one_piece(self) -> bool:
        """Return whether half of the runs were left alone."""
        return 2 * len(self.clean) >= len(self.runs)

    @property
    def value(self) -> float:
        """Return what the network takes when nothing comes between, in ns.

        On a busy core hardly any run of some milliseconds is left alone, but each of its parts is, often enough: where
        whole runs are too few, the parts' own low quantiles are added up.
        """
        return float(low(self.clean)) if self.in_one_piece else float(sum(self.parts))


Timer = Callable[[], Visit]
"""Visits one network."""
Trace = list[Visit]
"""One network's visits, round by round."""


class Probe:
    """A fixed piece of work of about 0.1 ms: a matrix product in the first cache and a walk through the interpreter."""

    def __init__(self) -> None:
        self._matrix = torch.ones(96, 96)
        self._out = torch.empty_like(self._matrix)

    def __call__(self) -> int:
        """Time it now, in ns."""
        return min(self._once() for _ in range(PROBE_RUNS))

    def _once(self) -> int:
        start = time.perf_counter_ns()
        torch.mm(self._matrix, self._matrix, out=self._out)
        total = 0
        for number in range(500):
            total += number
        return time.perf_counter_ns() - start


def runner(steps: Sequence[Callable[[Any], Any]], value: Any) -> Runner:
    """A runner of steps, each of which takes what the one before it returns, with a clock between them."""
    clock = time.perf_counter_ns

    def once() -> Sequence[int]:
        current, times = value, []
        last = clock()
        for step in steps:
            current = step(current)
            now = clock()
            times.append(now - last)
            last = now
        return times

    return once


def cuda_runner(step: Callable[[Any], Any], value: Any, device: torch.device) -> Runner:
    """Timed by the card's own events, once it has finished what went before. Not measured for this project yet."""

    def once() -> Sequence[int]:
        with torch.cuda.device(device):
            start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            step(value)
            end.record()
            torch.cuda.synchronize()
        return [round(start.elapsed_time(end) * 1e6)]

    return once


def visit(runner: Runner, probe: Probe, *, runs: int, single_thread: bool) -> Visit:
    """The runner warms up and then has `runs` timed runs.

    Args:
        single_thread: whether a run is this thread's work alone, so that its processor time shows preemption.
    """
    before = probe()
    _warm_up(runner)
    parts, walls, losses = [], [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        parts.append(runner())
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        walls.append(wall)
        losses.append(max(0, wall - cpu) if single_thread else 0)
    return Visit(
        runs=[sum(run) for run in parts],
        preempted=[lost > STOLEN * wall + STOLEN_NS for lost, wall in zip(losses, walls, strict=True)],
        parts=[low(part) for part in zip(*parts, strict=True)],
        probe=max(before, probe()),
        stolen=sum(losses) / sum(walls),
    )


def time_round(timers: Sequence[Timer], number: int) -> list[Visit]:
    """One round: a visit by every timer, in an order drawn for this round.

    Args:
        number: the round's number, which the order follows from.

    Returns:
        One visit per timer, in the order of the timers.
    """
    order = random.Random(number).sample(range(len(timers)), len(timers))
    visits = {index: timers[index]()._replace(at=number * len(timers) + place) for place, index in enumerate(order)}
    return [visits[index] for index in range(len(timers))]


def low(times: Sequence[int]) -> int:
    """The low quantile, the nearest rank."""
    return sorted(times)[round(QUANTILE * (len(times) - 1))]


def free_probe(visits: Sequence[Visit]) -> float:
    """The probe's time in ns on the free machine, as far as seen: the fastest 5%."""
    ordered = sorted(visit.probe for visit in visits)
    return ordered[len(ordered) // 20]


def _warm_up(runner: Runner) -> None:
    """Run until what ran before is out of the caches."""
    begun = time.perf_counter_ns()
    for _ in range(WARM_UP_RUNS):
        runner()
        if time.perf_counter_ns() - begun > WARM_UP_NS:
            return
