"""Timing a space's blocks where they run: within networks that are drawn to cover the space's layers.

The user's tables lie in a cache, one per device, space and way of running: calibrated once, used by every search.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.errors import UserError
from nas.files import cache_folder, write_atomic
from nas.hardware import device_name
from nas.latency.engines import ENGINES, Runtime
from nas.latency.fitting import Group, Timed, make_table, steady
from nas.latency.layers import segments
from nas.latency.machine import LoadMeter, describe
from nas.latency.measuring import ready_to_time
from nas.latency.processes import Progress, call
from nas.latency.summary import SHARED, estimates, stolen
from nas.latency.table import SpaceName, Table, load_table, space_id
from nas.latency.timing import Trace, time_round

NETWORKS = 64
GROUP = 32
"""Networks that are in memory, and timed in turn, at once: the more, the longer their rounds are spread over time. The
first group is timed whatever the budget."""
ROUNDS = 4
WHOLE_ROUNDS = 10
"""Where a network's time is one number and not one for each segment, it has to be a sure one."""
RUNS = 3
CANDIDATES = 16
"""Networks drawn for each one that is timed: the one with most layers not yet timed is taken."""
BUDGET_SECONDS = 40.0

log = logging.getLogger(__name__)


def calibrate(
    space: Space,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    networks: int = NETWORKS,
    budget_seconds: float | None = None,
    timeout: float | None = None,
    partial: Path | None = None,
    keep: bool = False,
    isolate: bool = True,
    on_progress: Progress | None = None,
) -> Table:
    """Time a sample of the space's blocks on this device and fit a table to them.

    The blocks are timed within running networks, segment by segment, in groups that share a sentinel network. Engines
    that split networks (:attr:`nas.latency.engine.Engine.splits`) make models of segments, timed beside the whole
    network; on other engines than ``eager``, and on CUDA, they cannot be told apart and whole networks are timed. What
    a group's networks take, the sentinel among them, shows the machine's drift.

    Args:
        space: the space, with the input's channels and resolution that will be searched.
        runtime: how networks are run.
        num_classes: outputs of the last layer.
        networks: how many networks to time, 32 to a group.
        budget_seconds: stop after the group in which this time is over (the first is always timed). What is left of it
            goes to groups that were disturbed.
        timeout: seconds after which it is given up, the first group included; only where isolated.
        partial: a file for the groups timed so far; a call that was killed goes on from there. Removed at the end.
        keep: leave that file: a later call then fits the same times, with nothing to time.
        isolate: run in a fresh process, as measurements do.
        on_progress: told the number of networks timed and in all, group by group.

    Raises:
        UserError: the engine or device is missing, no network is asked for, or `partial` cannot be written.
        TimeoutError: the time was over.
    """
    if networks < 1:
        raise UserError(f"networks {networks}: at least 1 is needed")
    runtime.check()
    if partial is not None:
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{partial.parent}: cannot be created: {error.strerror or error}") from error
    options = (space, runtime, num_classes, networks, budget_seconds, partial, keep)
    if isolate:
        return call(_calibrate, *options, threads=runtime.threads, on_progress=on_progress, timeout=timeout, fork=True)
    return _calibrate(*options, on_progress=on_progress, fork=False)


def _calibrate(
    space: Space,
    runtime: Runtime,
    num_classes: int,
    networks: int,
    budget_seconds: float | None,
    partial: Path | None,
    keep: bool,
    *,
    fork: bool,
    on_progress: Progress | None = None,
) -> Table:
    deadline = time.monotonic() + budget_seconds if budget_seconds is not None else math.inf
    identity: dict[str, Any] = {"space": space_id(space), "num_classes": num_classes, "networks": networks}
    identity |= {"device_name": device_name(runtime.device), "torch": torch.__version__, **asdict(runtime)}
    groups = _read_partial(partial, identity)
    drawn = list(draw_networks(space, networks, num_classes))
    runtime.check(drawn)
    plan = [[drawn[0], *drawn[at : at + GROUP]] for at in range(1, len(drawn), GROUP)]
    all_known = len(groups) == len(plan)
    load = LoadMeter()
    for index, members in enumerate(plan):
        if index >= len(groups):
            if index and time.monotonic() > deadline:
                break
            groups.append(_time_group(members, runtime, num_classes, fork=fork))
            if partial is not None:
                write_atomic(partial, _PARTIAL.dump_json(Partial(identity, groups)))
        if on_progress is not None:
            on_progress(min(networks, (index + 1) * GROUP), networks)
    for index in _worst_first(groups):  # a second chance, since the machine may be free by now
        if all_known or time.monotonic() > deadline:
            break
        again = _time_group(plan[index], runtime, num_classes, fork=fork)
        groups[index] = min(groups[index], again, key=lambda group: group.stolen)
    foreign = load.foreign()
    layouts = ENGINES[runtime.engine].layouts
    layout = layouts[0] if len(layouts) == 1 else "the faster one of each network"
    table = make_table(
        steady(groups),
        space=SpaceName(name=space.name, id=space_id(space)),
        num_classes=num_classes,
        provenance=describe(runtime, layout=layout, foreign_load=foreign),
        complaint=_complaint(groups, foreign),
    )
    if partial is not None and keep:
        write_atomic(partial, _PARTIAL.dump_json(Partial(identity, groups)))
    elif partial is not None:
        partial.unlink(missing_ok=True)
    return table


def _time_group(architectures: Sequence[Architecture], runtime: Runtime, num_classes: int, *, fork: bool) -> Group:
    """Time the sentinel, which is first, and the others in turn, on the cores that are free now."""
    split = ENGINES[runtime.engine].splits and runtime.device == "cpu"
    with ready_to_time(architectures, runtime, num_classes, runs=RUNS, fork=fork, split=split) as waiting:
        timers = [item.timer for item in waiting]
        rounds = [time_round(timers, 0)]
        count = ROUNDS if len(rounds[0][0].parts) > 1 else WHOLE_ROUNDS
        rounds += [time_round(timers, number) for number in range(1, count)]
    traces: list[Trace] = [list(trace) for trace in zip(*rounds, strict=True)]
    found = estimates(traces)
    sentinel, *others = [
        Timed(
            tuple(segments(architecture, num_classes)),
            tuple(part / 1e6 for part in parts.parts) if len(parts.parts) > 1 else (),
            whole.value / 1e6,
        )
        for architecture, whole, parts in zip(architectures, found, found[-len(architectures) :], strict=False)
    ]
    return Group(sentinel.whole, tuple(others), stolen(traces))


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


def _worst_first(groups: Sequence[Group]) -> list[int]:
    """The groups during which others had our core, the longest disturbed first."""
    disturbed = [index for index, group in enumerate(groups) if group.stolen > SHARED]
    return sorted(disturbed, key=lambda index: groups[index].stolen, reverse=True)


def _complaint(groups: Sequence[Group], foreign: float) -> str:
    lost = sum(group.stolen for group in groups) / len(groups)
    if lost <= SHARED:
        return ""
    return (
        f"calibrated on a busy machine: others took {lost:.0%} of our core's time and {foreign:.0%} of the machine; "
        "ratios between networks hold, all times are some 5 to 10% too long"
    )


@dataclass(frozen=True)
class Partial:
    """Groups that were timed, and what for."""

    identity: dict[str, Any]
    groups: list[Group]


_PARTIAL = TypeAdapter(Partial)


def _read_partial(path: Path | None, identity: dict[str, Any]) -> list[Group]:
    """The groups timed by an earlier call for the same thing; none where it was for another, or is damaged."""
    if path is None or not path.exists():
        return []
    try:
        partial = _PARTIAL.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return []
    return partial.groups if partial.identity == identity else []


def table_for(
    space: Space,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    timeout: float | None = None,
) -> Table:
    """The cached table for this device and space, or a new one, which is then cached.

    A table that was made on a busy machine is made again. Call it while nothing else runs here.

    Args:
        space: the space, with the input that will be searched.
        runtime: how networks are run.
        num_classes: outputs of the last layer.
        timeout: seconds after which a new one is given up.

    Raises:
        UserError: the engine or device is missing.
        TimeoutError: the time was over, and none is cached.
    """
    runtime.check()
    path = _path(space, runtime, num_classes)
    busy: Table | None = None
    with contextlib.suppress(UserError):  # damaged, or of an older version of ours: it is only a cache
        table = load_table(path)
        table.check(space=space, num_classes=num_classes, engine=runtime.engine)
        if not table.complaint:
            return table
        busy = table
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        path.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(path.parent, os.W_OK)
    partial = path.with_suffix(".partial") if writable else None
    # The second of two groups is begun in the first half of the time, so that both end in it.
    budget = BUDGET_SECONDS if timeout is None else min(BUDGET_SECONDS, timeout / 2)
    reason = "again, since the machine was busy then" if busy else "once per space and device"
    log.info("timing the space's blocks on this device (%s)", reason)
    try:
        table = calibrate(
            space, runtime, num_classes=num_classes, budget_seconds=budget, timeout=timeout, partial=partial
        )
    except TimeoutError:
        if busy is not None:
            return busy
        raise
    with contextlib.suppress(UserError):
        table.save(path)
    return table


def _path(space: Space, runtime: Runtime, num_classes: int) -> Path:
    key: dict[str, Any] = {"space": space_id(space), "name": device_name(runtime.device), "torch": torch.__version__}
    key |= {"num_classes": num_classes, **asdict(runtime)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder("latency") / f"{space.name}-{digest}.json"
