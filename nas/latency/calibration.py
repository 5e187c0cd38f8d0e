"""Timing a space's blocks where they run: within networks that are drawn to cover the space's layers."""

import functools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.errors import UserError
from nas.files import write_atomic
from nas.hardware import device_name
from nas.latency.engines import Runtime, to_onnx
from nas.latency.fitting import WHOLE_WEIGHT, Group, Timed, make_table, steady
from nas.latency.layers import segments
from nas.latency.machine import LoadMeter, describe, quiet_process
from nas.latency.measuring import in_faster_layout
from nas.latency.onnx_profile import profiled
from nas.latency.processes import Finish, Place, Prepared, here, place_for, prepared
from nas.latency.segments import example, only_layout, shipped, split
from nas.latency.summary import SHARED, estimates, stolen
from nas.latency.table import Table, space_id
from nas.latency.timing import QUANTILE, Trace, time_round
from nas.latency.worker import Progress, call

NETWORKS = 64
GROUP = 32
"""Networks that are in memory, and timed in turn, at once: the more, the longer their rounds are spread over time. The
first group is timed whatever the budget."""
ROUNDS = 4
RUNS = 3
WHOLE_WEIGHTS = {"onnxruntime": 8.0}
"""How much a whole network's relative error counts beside a segment's, where segments are not timed by a clock: the
shares that a profiler gives one and the same block differ by 14% from network to network (Xeon, 137 networks)."""
CANDIDATES = 16
"""Networks drawn for each one that is timed: the one with most layers not yet timed is taken."""


def calibrate(
    space: Space,
    runtime: Runtime = Runtime(),  # noqa: B008  (immutable)
    *,
    num_classes: int = 10,
    networks: int = NETWORKS,
    budget_seconds: float | None = None,
    partial: Path | None = None,
    isolate: bool = True,
    on_progress: Progress | None = None,
) -> Table:
    """Time a sample of the space's blocks on this device and fit a table to them.

    The blocks are timed within running networks, segment by segment (``compiled`` and CUDA: whole networks only, since
    their segments cannot be told apart), in groups that share a sentinel network. What a group's networks take, the
    sentinel among them, shows the machine's drift.

    Args:
        space: the space, with the input's channels and resolution that will be searched.
        runtime: how networks are run.
        num_classes: outputs of the last layer.
        networks: how many networks to time, 32 to a group.
        budget_seconds: stop after the group in which this time is over (the first is always timed). What is left of it
            goes to groups that were disturbed.
        partial: a file for the groups timed so far; a call that was killed goes on from there. Removed at the end.
        isolate: run in a fresh process, as measurements do.
        on_progress: told the number of networks timed and in all, group by group.

    Raises:
        UserError: the engine or device is missing.
    """
    runtime.check()
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "networks": networks,
        "budget_seconds": budget_seconds,
        "partial": partial,
        "on_progress": on_progress,
    }
    if isolate:
        return call(_calibrate, space, runtime, place_for(runtime.device), threads=runtime.threads, **options)
    return _calibrate(space, runtime, here, **options)


def _calibrate(
    space: Space,
    runtime: Runtime,
    place: Place,
    *,
    num_classes: int,
    networks: int,
    budget_seconds: float | None,
    partial: Path | None,
    on_progress: Progress | None,
) -> Table:
    deadline = time.monotonic() + budget_seconds if budget_seconds is not None else math.inf
    name = device_name(runtime.device)
    identity = {"space": space_id(space), "device_name": name, "torch": torch.__version__, "networks": networks}
    identity |= {"num_classes": num_classes, **asdict(runtime)}
    groups = _read_partial(partial, identity)
    drawn = list(draw_networks(space, networks, num_classes))
    plan = [[drawn[0], *drawn[at : at + GROUP]] for at in range(1, len(drawn), GROUP)]
    load = LoadMeter()
    clock = _Clock(place, runtime, num_classes)
    for index, members in enumerate(plan):
        if index >= len(groups):
            if index and time.monotonic() > deadline:
                break
            groups.append(clock.time(members))
            if partial is not None:
                write_atomic(partial, json.dumps({"identity": identity, "groups": groups}))
        if on_progress is not None:
            on_progress(min(networks, (index + 1) * GROUP), networks)
    for index in _worst_first(groups):  # a second chance, since the machine may be free by now
        if time.monotonic() > deadline:
            break
        again = clock.time(plan[index])
        groups[index] = min(groups[index], again, key=lambda group: group.stolen)
    foreign = load.foreign()
    layout = only_layout(runtime.engine) or "the faster one of each network"
    whole_weight = WHOLE_WEIGHTS.get(runtime.engine, WHOLE_WEIGHT)
    table = make_table(
        steady(groups, num_classes, whole_weight),
        space_name=space.name,
        space_id=space_id(space),
        num_classes=num_classes,
        provenance=describe(runtime, layout=layout, quantile=QUANTILE, foreign_load=foreign),
        complaint=_complaint(groups, foreign),
        whole_weight=whole_weight,
    )
    if partial is not None:
        partial.unlink(missing_ok=True)
    return table


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


@dataclass(frozen=True)
class _Clock:
    """Times groups of networks, all in one way."""

    place: Place
    runtime: Runtime
    num_classes: int

    def time(self, architectures: Sequence[Architecture]) -> Group:
        """Time the sentinel, which is first, and the others in turn, on the cores that are free now."""
        with self.place() as prepare, quiet_process(self.runtime.threads):
            waiting = prepare([functools.partial(self._build, architecture) for architecture in architectures])
            rounds = [time_round([item.timer for item in waiting], number) for number in range(ROUNDS)]
        traces: list[Trace] = [list(trace) for trace in zip(*rounds, strict=True)]
        timed = []
        for architecture, item, found in zip(architectures, waiting, estimates(traces), strict=True):
            total = found.value / 1e6
            shares = item.about if self._is_profiled else ()
            parts = found.parts if len(found.parts) > 1 else tuple(share * found.value for share in shares)
            timed.append(Timed(architecture.to_dict(), tuple(part / 1e6 for part in parts), total))
        return Group(timed[0].whole, tuple(timed[1:]), stolen(traces))

    @property
    def _is_profiled(self) -> bool:
        """Return whether a profiler tells how a network's time divides over its segments.

        Eager segments run one by one, with a clock between them. ONNX Runtime's profiler tells them apart. Of compiled
        networks and on a graphics card, which runs ahead of the clock, only the whole is timed.
        """
        return self.runtime.engine == "onnxruntime" and self.runtime.device == "cpu"

    def _build(self, architecture: Architecture) -> Finish:
        """Build a network as a measurement does; a profiled one knows its segments' shares in the end."""
        if not self._is_profiled:
            return in_faster_layout(architecture, num_classes=self.num_classes, runtime=self.runtime, runs=RUNS)
        with torch.inference_mode():
            network, images = shipped(architecture, self.num_classes), example(architecture, self.runtime)
            model, parts = to_onnx(network, images), len(split(network))

        def finish() -> Prepared:
            run, shares = profiled(model, images, parts, self.runtime)
            return prepared(run, shares, runs=RUNS, runtime=self.runtime)

        return finish


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
