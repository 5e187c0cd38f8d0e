"""Timing a space's blocks where they run: within networks that are drawn to cover the space's layers."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.architecture import Architecture
from nas.cost.analytic import cost
from nas.cost.latency import engines
from nas.cost.latency.chain import example, faster_layout, segmented, shipped, whole
from nas.cost.latency.engines import Engine, Layout
from nas.cost.latency.fitting import Group, Timed, make_table, steady
from nas.cost.latency.layers import segments
from nas.cost.latency.machine import LoadMeter, Provenance, describe, device_name, quiet_process
from nas.cost.latency.summary import QUANTILE, estimate, part_values, stolen
from nas.cost.latency.table import Table, parse_table, space_id
from nas.cost.latency.timing import SHARED, Probe, Runner, Trace, time_round
from nas.cost.latency.worker import call
from nas.errors import UserError
from nas.files import write_atomic
from nas.space import Space

NETWORKS = 64
GROUP = 8
ROUNDS = 6
RUNS = 4
CANDIDATES = 16
"""Networks drawn for each one that is timed: the one with most layers not yet timed is taken."""

Progress = Callable[[int, int], None]


def calibrate(
    space: Space,
    *,
    num_classes: int = 10,
    device: str = "cpu",
    engine: Engine = "eager",
    threads: int = 1,
    batch: int = 1,
    networks: int = NETWORKS,
    budget_seconds: float | None = None,
    partial: Path | None = None,
    isolate: bool | None = None,
    on_progress: Progress | None = None,
) -> Table:
    """Time a sample of the space's blocks on this device and fit a table to them.

    The blocks are timed within running networks, segment by segment (``compiled`` and CUDA: whole networks only, since
    their segments cannot be told apart), in groups that share a sentinel network, which shows the machine's drift.

    Args:
        space: the space, with the input's channels and resolution that will be searched.
        num_classes, device, engine, threads, batch: as in :func:`nas.cost.latency.measure`.
        networks: how many networks to time, 8 to a group.
        budget_seconds: stop after the group in which this time is over (the first two groups are always timed).
        partial: a file for the groups timed so far; a call that was killed goes on from there. Removed at the end.
        isolate: run in a fresh process; by default where this process has other threads.
        on_progress: told the number of networks timed and in all, group by group.

    Raises:
        UserError: the engine or device is missing.
    """
    engines.check(engine, device)
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "device": device,
        "engine": engine,
        "threads": threads,
        "batch": batch,
        "networks": networks,
        "budget_seconds": budget_seconds,
    }
    if isolate if isolate is not None else threading.active_count() > 1:
        request = {"space": space.document, "partial": str(partial) if partial else None, **options}
        text = call("calibrate", request, threads=threads, on_progress=on_progress)
        return parse_table(text, "calibration")
    start = time.monotonic()
    identity = {"space": space_id(space), "device_name": device_name(device), "torch": torch.__version__, **options}
    del identity["budget_seconds"]
    groups = _read_partial(partial, identity)
    drawn = list(draw_networks(space, networks, num_classes))
    sentinel, plan = drawn[0], [drawn[at : at + GROUP] for at in range(1, len(drawn), GROUP)]
    load = LoadMeter()
    with torch.inference_mode():
        network = shipped(sentinel, num_classes, device)
        with quiet_process(threads):
            layout = faster_layout([(network, example(sentinel, batch, device))], engine, threads)
        probe = Probe()
        for index, members in enumerate(plan):
            if index >= len(groups):
                if index >= 2 and budget_seconds is not None and time.monotonic() - start > budget_seconds:
                    break
                with quiet_process(threads):  # anew for every group: the free core of a minute ago may be taken
                    groups.append(
                        _time_group([sentinel, *members], probe, num_classes, device, engine, layout, threads, batch)
                    )
                if partial is not None:
                    write_atomic(partial, json.dumps({"identity": identity, "groups": groups}))
            if on_progress is not None:
                on_progress(min(networks, (index + 1) * GROUP), networks)
    provenance: Provenance = describe(
        device=device,
        engine=engine,
        layout=layout,
        threads=threads,
        batch=batch,
        quantile=QUANTILE,
        foreign_load=load.foreign(),
    )
    table = make_table(
        steady(groups, num_classes),
        space_name=space.name,
        space_id=space_id(space),
        num_classes=num_classes,
        provenance=provenance,
        complaint=_complaint(groups, load.foreign()),
    )
    if partial is not None:
        partial.unlink(missing_ok=True)
    return table


def serve(request: dict[str, Any], on_progress: Progress) -> str:
    """:func:`calibrate` for the worker process."""
    space = Space(request.pop("space"))
    partial = request.pop("partial")
    table = calibrate(
        space, **request, partial=Path(partial) if partial else None, isolate=False, on_progress=on_progress
    )
    return table.to_json()


def draw_networks(space: Space, count: int, num_classes: int) -> Iterator[Architecture]:
    """The sentinel, and `count` networks that cover the space's layers; the same ones every time.

    The sentinel is of middling cost. Of the others, every first one is, of 16 drawn, the one with most layers not timed
    so far; every second one takes like options in all its stages (all plain, all with SE, ...), which independent draws
    never do, but people and searches do.
    """
    generator = np.random.default_rng(0)
    pool = sorted((space.sample(generator) for _ in range(CANDIDATES)), key=lambda item: cost(item, num_classes).macs)
    yield pool[CANDIDATES // 3]
    seen: set[Any] = set()
    for index in range(count):
        candidates = [_alike(space, generator)] if index % 2 else [space.sample(generator) for _ in range(CANDIDATES)]
        layers = [{layer for part in segments(item, num_classes) for layer in part.layers} for item in candidates]
        best = max(range(len(candidates)), key=lambda choice: len(layers[choice] - seen))
        seen |= layers[best]
        yield candidates[best]


def _alike(space: Space, generator: np.random.Generator) -> Architecture:
    """A network whose stages all take the same of their options, field by field."""
    level: dict[Any, float] = {}
    for parameter in space.parameters_by_name.values():
        level.setdefault(parameter.path[-1], generator.random())
    return space.architecture(
        {
            name: parameter.values[int(level[parameter.path[-1]] * len(parameter.values))]
            for name, parameter in space.parameters_by_name.items()
        }
    )


def _time_group(
    architectures: Sequence[Architecture],
    probe: Probe,
    num_classes: int,
    device: str,
    engine: Engine,
    layout: Layout,
    threads: int,
    batch: int,
) -> Group:
    """Time the sentinel, which is first, and the others in turn."""
    wholes: list[Runner | None] = []
    chains: list[Runner | None] = []
    for architecture in architectures:
        network, images = shipped(architecture, num_classes, device), example(architecture, batch, device)
        in_parts = device == "cpu" and engine in ("eager", "onnxruntime")
        # An eager network's parts are the whole; other engines optimise across them, so both are timed.
        wholes.append(None if in_parts and engine == "eager" else whole(network, images, engine, layout, threads))
        chains.append(segmented(network, images, engine, layout, threads) if in_parts else None)
    traces = {id(runner): Trace() for runner in (*wholes, *chains) if runner is not None}
    runners = [runner for pair in zip(wholes, chains, strict=True) for runner in pair if runner is not None]
    for number in range(ROUNDS):
        time_round(
            runners,
            [traces[id(runner)] for runner in runners],
            probe,
            number,
            runs=RUNS,
            single_thread=threads == 1 and device == "cpu",
        )
    timed = []
    for architecture, one, chain in zip(architectures, wholes, chains, strict=True):
        parts = tuple(part / 1e6 for part in part_values(traces[id(chain)], probe.best)) if chain else ()
        total = estimate(traces[id(one)], probe.best).value / 1e6 if one else sum(parts)
        timed.append(Timed(architecture.to_dict(), parts, total))
    return Group(timed[0].whole, tuple(timed[1:]), stolen(traces.values()))


def _complaint(groups: Sequence[Group], foreign: float) -> str:
    lost = sum(group.stolen for group in groups) / len(groups)
    if lost <= SHARED:
        return ""
    return (
        f"calibrated on a busy machine: others took {lost:.0%} of our core's time and {foreign:.0%} of the machine; "
        "ratios between networks hold, all times are some 5 to 10% too long"
    )


def _read_partial(path: Path | None, identity: dict[str, Any]) -> list[Group]:
    """The groups timed by an earlier call for the same thing; none where it was for another, or is damaged."""
    if path is None or not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["identity"] != identity:
            return []
        return [
            Group(
                float(sentinel), tuple(Timed(item[0], tuple(item[1]), float(item[2])) for item in networks), float(lost)
            )
            for sentinel, networks, lost in document["groups"]
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError, UserError):
        return []
