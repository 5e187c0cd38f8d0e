"""Measuring networks: interleaved, watched, in a quiet process; a figure one can trust, or one that says why not."""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from nas.architecture.document import Architecture
from nas.latency.engine import Layout, example, shipped
from nas.latency.engines import ENGINES, Runtime, faster_layout, load
from nas.latency.machine import LoadMeter, describe
from nas.latency.processes import Ready, call, made_ready
from nas.latency.summary import Estimate, Measurement, estimates, stolen, summarize
from nas.latency.timing import Probe, Timer, Trace, Visit, time_round, visit

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
) -> list[Measurement]:
    """Measure the latency of networks as they are shipped: eval mode, folded, in the faster memory layout.

    Args:
        architectures: what to measure, in groups of 16 networks that are timed in turn.
        runtime: how they are run.
        num_classes: outputs of the last layer.
        resolution: side of the images in pixels, in place of the documents'.
        max_seconds: how long to wait, per group and beyond the first ten rounds, for a machine that is too busy.
        isolate: run in a fresh process: this one's other threads would take the interpreter from the one that
            measures, and memory that others have used makes a network slower (:mod:`nas.latency.processes`).

    Returns:
        One measurement per architecture, in order. A figure that was disturbed is ``noisy`` and says why.

    Raises:
        UserError: the engine or device is missing, or the resolution is too small.
    """
    runtime.check(architectures)
    if resolution is not None:
        architectures = [architecture.with_input(resolution=resolution) for architecture in architectures]
    options = (architectures, runtime, num_classes, max_seconds)
    return call(_measure, *options, threads=runtime.threads, fork=True) if isolate else _measure(*options, fork=False)


def _measure(
    architectures: Sequence[Architecture], runtime: Runtime, num_classes: int, max_seconds: float, *, fork: bool
) -> list[Measurement]:
    found: list[Measurement] = []
    for start in range(0, len(architectures), GROUP):
        group = architectures[start : start + GROUP]
        with ready_to_time(group, runtime, num_classes, runs=RUNS, fork=fork) as waiting:
            load = LoadMeter()
            timers = [item.timer for item in waiting]
            traces, values, excuse = time_until_sure(timers, rounds=ROUNDS, max_seconds=max_seconds)
            foreign = load.foreign()
        for architecture, trace, value, item in zip(group, traces, values, waiting, strict=True):
            provenance = describe(runtime, layout=item.layout, foreign_load=foreign)
            found.append(summarize(architecture.name, architecture.id, trace, value, provenance, excuse))
    return found


def ready_to_time(
    architectures: Sequence[Architecture],
    runtime: Runtime,
    num_classes: int,
    *,
    runs: int,
    fork: bool,
    split: bool = False,
) -> AbstractContextManager[list[Ready]]:
    """Make networks ready, each in the memory layout in which it is faster, and let them wait to be timed.

    Args:
        architectures: the networks.
        runtime: how they are run.
        num_classes: outputs of the last layer.
        runs: of a visit; see :func:`nas.latency.timing.visit`.
        fork: each in a process of its own, where the device allows it (:mod:`nas.latency.processes`).
        split: after all of them once more all of them, each segment a model of its own.
    """
    ENGINES[runtime.engine].prepare()
    builds = [
        functools.partial(_build, item, num_classes, runtime, runs, in_segments)
        for in_segments in ((False, True) if split else (False,))
        for item in architectures
    ]
    fork = fork and runtime.device == "cpu" and sys.platform == "linux"
    return made_ready(builds, threads=runtime.threads, fork=fork)


def time_until_sure(
    timers: Sequence[Timer], *, rounds: int, max_seconds: float
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
        for trace, visited in zip(traces, time_round(timers, number), strict=True):
            trace.append(visited)
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
        time.sleep(min(PAUSES[min(number - rounds, len(PAUSES) - 1)], max(0.0, deadline - time.monotonic())))


def _build(
    architecture: Architecture, num_classes: int, runtime: Runtime, runs: int, split: bool
) -> Callable[[], Ready]:
    with torch.inference_mode():
        network = shipped(architecture, num_classes, runtime.device)
        images = example(architecture, runtime.batch, runtime.device)

    def ready(layout: Layout) -> Ready:
        with torch.inference_mode():
            run, probe = load(network, images, layout, runtime, split=split), Probe()

        def timer() -> Visit:
            with torch.inference_mode():
                return visit(run, probe, runs=runs, single_thread=runtime.threads == 1 and runtime.device == "cpu")

        return Ready(timer, layout)

    layouts = ENGINES[runtime.engine].layouts
    if len(layouts) > 1:
        return lambda: ready(faster_layout(network, images, runtime))
    only = ready(layouts[0])  # nothing must be timed for it, and an engine may take its time to load
    return lambda: only
