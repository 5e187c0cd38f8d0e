"""Measuring networks: interleaved, watched, in a quiet process; a figure one can trust, or one that says why not."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from nas.architecture import Architecture
from nas.cost.latency import engines
from nas.cost.latency.chain import example, faster_layout, only_layout, runner, shipped
from nas.cost.latency.engines import Engine
from nas.cost.latency.machine import LoadMeter, describe, quiet_process
from nas.cost.latency.places import Finish, Place, Prepared, here, place_for, prepared
from nas.cost.latency.summary import Estimate, Measurement, estimates, stolen, summarize
from nas.cost.latency.timing import QUANTILE, Timer, Trace, time_round
from nas.cost.latency.worker import call
from nas.errors import UserError

GROUP = 16
"""Networks that are in memory, and timed in turn, at once."""
ROUNDS = 10
RUNS = 5
PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Seconds to wait before each further round once the first have shown that the machine is busy or its speed wanders."""

Progress = Callable[[int, int], None]
"""Called with the units of work done and the number in all."""


def measure(
    architectures: Sequence[Architecture],
    *,
    num_classes: int = 10,
    device: str = "cpu",
    engine: Engine = "eager",
    threads: int = 1,
    batch: int = 1,
    resolution: int | None = None,
    max_seconds: float = 30,
    isolate: bool = True,
    on_progress: Progress | None = None,
) -> list[Measurement]:
    """Measure the latency of networks as they are shipped: eval mode, folded, in the faster memory layout.

    Args:
        architectures: what to measure, in groups of 16 networks that are timed in turn.
        num_classes: outputs of the last layer.
        device: ``cpu`` or ``cuda``.
        engine: ``eager``, ``compiled``, ``onnxruntime``, or ``graph`` (a CUDA graph that is replayed).
        threads: threads of one network's run, each on a core of its own.
        batch: images per run.
        resolution: side of the images in pixels, in place of the documents'.
        max_seconds: how long to wait, per group and beyond the first ten rounds, for a machine that is too busy.
        isolate: run in a fresh process: this one's other threads would take the interpreter from the one that
            measures, and memory that others have used makes a network slower (:mod:`nas.cost.latency.places`).
        on_progress: told of each network's group as it is finished.

    Returns:
        One measurement per architecture, in order. A figure that was disturbed is ``noisy`` and says why.

    Raises:
        UserError: the engine or device is missing, or the resolution is too small.
    """
    engines.check(engine, device)
    if threads < 1 or batch < 1:
        raise UserError(f"threads and batch are at least 1, not {threads} and {batch}")
    if resolution is not None:
        architectures = [architecture.with_input(resolution=resolution) for architecture in architectures]
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "device": device,
        "engine": engine,
        "threads": threads,
        "batch": batch,
        "max_seconds": max_seconds,
    }
    if isolate:
        request = {"architectures": [item.to_dict() for item in architectures], **options}
        answer = call("measure", request, threads=threads, on_progress=on_progress)
        return [Measurement.from_dict(item) for item in answer]
    return _measure_groups(architectures, options, on_progress, here)


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


def serve(request: dict[str, Any], on_progress: Progress) -> list[dict[str, Any]]:
    """:func:`measure` for the worker process."""
    architectures = [Architecture.from_dict(item) for item in request.pop("architectures")]
    found = _measure_groups(architectures, request, on_progress, place_for(request["device"]))
    return [item.to_dict() for item in found]


def _measure_groups(
    architectures: Sequence[Architecture],
    options: dict[str, Any],
    on_progress: Progress | None,
    place: Place,
) -> list[Measurement]:
    found: list[Measurement] = []
    for group in _groups(architectures):
        found.extend(_measure_group(group, place=place, **options))
        if on_progress is not None:
            on_progress(len(found), len(architectures))
    return found


def _measure_group(
    architectures: Sequence[Architecture],
    *,
    num_classes: int,
    device: str,
    engine: Engine,
    threads: int,
    batch: int,
    max_seconds: float,
    place: Place,
) -> list[Measurement]:
    with place() as prepare, quiet_process(threads):
        load = LoadMeter()
        build = functools.partial(
            in_faster_layout,
            num_classes=num_classes,
            device=device,
            engine=engine,
            threads=threads,
            batch=batch,
            runs=RUNS,
        )
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
            describe(
                device=device,
                engine=engine,
                layout=item.about,
                threads=threads,
                batch=batch,
                quantile=QUANTILE,
                foreign_load=foreign,
            ),
            excuse,
        )
        for architecture, trace, value, item in zip(architectures, traces, values, waiting, strict=True)
    ]


def in_faster_layout(
    architecture: Architecture, *, num_classes: int, device: str, engine: Engine, threads: int, batch: int, runs: int
) -> Finish:
    """Build a network to be timed; what is known about it in the end is the layout in which it is faster."""
    ready = functools.partial(prepared, runs=runs, threads=threads, device=device)
    with torch.inference_mode():
        network, images = shipped(architecture, num_classes, device), example(architecture, batch, device)
        if layout := only_layout(engine):
            return functools.partial(ready, runner(network, images, engine, layout, threads), layout)

    def finish() -> Prepared:
        with torch.inference_mode():
            layout = faster_layout(network, images, engine, threads)
            return ready(runner(network, images, engine, layout, threads), layout)

    return finish


def _groups(items: Sequence[Architecture]) -> Iterator[Sequence[Architecture]]:
    for start in range(0, len(items), GROUP):
        yield items[start : start + GROUP]
