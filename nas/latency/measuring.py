"""Measuring networks: interleaved, watched, in a quiet process; a figure one can trust, or one that says why not."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nas.architecture.document import Architecture
from nas.latency.engines import Runtime
from nas.latency.machine import LoadMeter, describe, quiet_process
from nas.latency.processes import Finish, Place, Prepared, here, place_for, prepared
from nas.latency.segments import example, faster_layout, only_layout, runner, shipped
from nas.latency.summary import Estimate, Measurement, estimates, stolen, summarize
from nas.latency.timing import QUANTILE, Timer, Trace, time_round
from nas.latency.worker import Progress, call

GROUP = 16
"""Networks that are in memory, and timed in turn, at once."""
ROUNDS = 10
RUNS = 5
PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Seconds to wait before each further round once the first have shown that the machine is busy or its speed wanders."""


def measure(
    architectures: Sequence[Architecture],
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    resolution: int | None = None,
    max_seconds: float = 30,
    isolate: bool = True,
    on_progress: Progress | None = None,
) -> list[Measurement]:
    """Measure the latency of networks as they are shipped: eval mode, folded, in the faster memory layout.

    Args:
        architectures: what to measure, in groups of 16 networks that are timed in turn.
        runtime: how they are run.
        num_classes: outputs of the last layer.
        resolution: side of the images in pixels, in place of the documents'.
        max_seconds: how long to wait, per group and beyond the first ten rounds, for a machine that is too busy.
        isolate: run in a fresh process: this one's other threads would take the interpreter from the one that
            measures, and memory that others have used makes a network slower (:mod:`nas.latency.places`).
        on_progress: told of each network's group as it is finished.

    Returns:
        One measurement per architecture, in order. A figure that was disturbed is ``noisy`` and says why.

    Raises:
        UserError: the engine or device is missing, or the resolution is too small.
    """
    runtime.check()
    if resolution is not None:
        architectures = [architecture.with_input(resolution=resolution) for architecture in architectures]
    options: dict[str, Any] = {"num_classes": num_classes, "max_seconds": max_seconds, "on_progress": on_progress}
    if isolate:
        return call(
            _measure_groups, architectures, runtime, place_for(runtime.device), threads=runtime.threads, **options
        )
    return _measure_groups(architectures, runtime, here, **options)


def time_until_sure(
    timers: Sequence[Timer], *, rounds: int, max_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> tuple[list[Trace], list[Estimate], str]:
    """Time networks in turn until every one has a sure value.

    Returns:
        The traces, the values, and what to tell where the time ran out before all were sure (else empty).
    """
    traces: list[Trace] = [[] for _ in timers]
    load = LoadMeter()
    deadline = None
    number = 0
    while True:
        for trace, visit in zip(traces, time_round(timers, number), strict=True):
            trace.append(visit)
        number += 1
        if number < rounds:
            continue
        deadline = deadline or time.monotonic() + max_seconds
        found = estimates(traces)
        if not any(item.why_noisy() for item in found):
            return traces, found, ""
        if time.monotonic() >= deadline:
            excuse = (
                f"others used {load.foreign():.0%} of the machine and took {stolen(traces):.0%} of our core's time; "
                f"waited {max_seconds:g} s"
            )
            return traces, found, excuse
        sleep(min(PAUSES[min(number - rounds, len(PAUSES) - 1)], max(0.0, deadline - time.monotonic())))


def _measure_groups(
    architectures: Sequence[Architecture],
    runtime: Runtime,
    place: Place,
    *,
    num_classes: int,
    max_seconds: float,
    on_progress: Progress | None,
) -> list[Measurement]:
    found: list[Measurement] = []
    for start in range(0, len(architectures), GROUP):
        group = architectures[start : start + GROUP]
        found += _measure_group(group, runtime, place, num_classes, max_seconds)
        if on_progress is not None:
            on_progress(len(found), len(architectures))
    return found


def _measure_group(
    architectures: Sequence[Architecture], runtime: Runtime, place: Place, num_classes: int, max_seconds: float
) -> list[Measurement]:
    with place() as prepare, quiet_process(runtime.threads):
        load = LoadMeter()
        build = functools.partial(in_faster_layout, num_classes=num_classes, runtime=runtime, runs=RUNS)
        waiting = prepare([functools.partial(build, architecture) for architecture in architectures])
        timers = [item.timer for item in waiting]
        traces, values, excuse = time_until_sure(timers, rounds=ROUNDS, max_seconds=max_seconds)
        foreign = load.foreign()
    return [
        summarize(
            architecture.name,
            architecture.id,
            trace,
            value,
            describe(runtime, layout=item.about, quantile=QUANTILE, foreign_load=foreign),
            excuse,
        )
        for architecture, trace, value, item in zip(architectures, traces, values, waiting, strict=True)
    ]


def in_faster_layout(architecture: Architecture, *, num_classes: int, runtime: Runtime, runs: int) -> Finish:
    """Build a network to be timed; what is known about it in the end is the layout in which it is faster."""
    ready = functools.partial(prepared, runs=runs, runtime=runtime)
    with torch.inference_mode():
        network, images = shipped(architecture, num_classes, runtime.device), example(architecture, runtime)
        if layout := only_layout(runtime.engine):
            return functools.partial(ready, runner(network, images, layout, runtime), layout)

    def finish() -> Prepared:
        with torch.inference_mode():
            layout = faster_layout(network, images, runtime)
            return ready(runner(network, images, layout, runtime), layout)

    return finish
