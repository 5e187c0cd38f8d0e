"""Divide an ONNX Runtime run over a network's segments, by the runtime's own profiler.

The runtime fuses layers and changes the memory layout across segments, so a segment exported and timed alone is another
program than the one inside the network. The profiler times every node of the running network; a node's name begins
with the module that it was exported from.

Writing a node's times down takes time of its own, about 3 us, which the profile counts as the node's: the profiles of
138 networks added up to 1.7 times what the networks take without (median; 1.05 to 3.7, most with many small nodes).
What a profile has too much is therefore taken off its nodes, off each the same.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nas.latency.engines import Runtime, onnx_run, onnx_session
from nas.latency.segments import timed_run
from nas.latency.timing import WARM_UP_RUNS, Runner, low

RUNS = 10
LEAST_LEFT = 0.1
"""Of a segment's profiled time at least this share is the segment's own."""
Times = npt.NDArray[np.float64]
_BLOCK = re.compile(r"/blocks/blocks\.(\d+)/")


def profiled(model: bytes, images: Tensor, segments: int, runtime: Runtime) -> tuple[Runner, list[float]]:
    """A runner of the network on ONNX Runtime, and each segment's share of a run's time.

    Args:
        model: the network as ONNX (:func:`nas.latency.engines.to_onnx`).
        images: (N, C, R, R).
        segments: of the network.
        runtime: ONNX Runtime and its threads.

    Returns:
        The runner, no longer profiled; the shares, which add up to 1, in the order of
        :func:`nas.latency.layers.segments`.
    """
    with tempfile.TemporaryDirectory(prefix="nas-profile-") as folder:
        session = onnx_session(model, runtime, profile=Path(folder) / "run")
        run, array = onnx_run(session), images.cpu().numpy()
        for _ in range(WARM_UP_RUNS + RUNS):
            run(array)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runner = timed_run(run, array)
    unprofiled = low([sum(runner()) for _ in range(RUNS)]) / 1e3
    times, nodes = _times(events, segments)
    totals = times.sum(axis=1)
    calm = times[totals <= np.median(totals)].mean(axis=0)  # whatever came between made a run longer
    return runner, own_shares(calm, nodes, unprofiled).tolist()


def own_shares(profiled: Times, nodes: Times, whole: float) -> Times:
    """Each segment's share of a run, without what the profiler takes.

    Args:
        profiled: us by segment, under the profiler.
        nodes: number of nodes by segment.
        whole: us of a run without the profiler.
    """
    per_node = max(0.0, (profiled.sum() - whole) / nodes.sum())
    own = np.maximum(profiled - per_node * nodes, LEAST_LEFT * profiled)
    return np.asarray(own / own.sum())


def _times(events: Iterable[Mapping[str, Any]], segments: int) -> tuple[Times, Times]:
    """From the profiler's events: us by run (those after the warm-up) and segment, and nodes by segment."""
    ordered = sorted((event for event in events if "dur" in event), key=lambda event: event["ts"])
    runs = [event for event in ordered if event["cat"] == "Session" and event["name"] == "model_run"]
    times, counts = np.zeros((len(runs), segments)), np.zeros((len(runs), segments))
    ends = [run["ts"] + run["dur"] for run in runs]
    index, segment = 0, 0
    for node in ordered:
        if node["cat"] != "Node" or not node["name"].endswith("_kernel_time"):
            continue
        while index < len(runs) - 1 and node["ts"] > ends[index]:
            index, segment = index + 1, 0
        segment = _segment(node["name"], segments, segment)
        times[index, segment] += node["dur"]
        counts[index, segment] += 1
    return times[WARM_UP_RUNS:], counts[-1]


def _segment(name: str, segments: int, before: int) -> int:
    """The segment that a node was exported from; the runtime's own nodes (changes of layout) go with the one before."""
    block = _BLOCK.search(name)
    if block:
        return 1 + int(block.group(1))
    if "/stem/" in name:
        return 0
    if re.search(r"/(head|pool|classifier|Flatten)\b", name):
        return segments - 1
    return before
