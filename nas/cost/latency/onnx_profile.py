"""How an ONNX Runtime run divides over a network's segments, by the runtime's own profiler.

The runtime fuses layers and changes the memory layout across segments, so a segment exported and timed alone is another
program than the one inside the network. The profiler times every node of the running network; a node's name begins
with the module that it was exported from.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from nas.cost.latency.chain import split, timed_run
from nas.cost.latency.engines import onnx_run, onnx_session
from nas.cost.latency.timing import Runner

RUNS = 20
WARM_UP = 3
_BLOCK = re.compile(r"/blocks/blocks\.(\d+)/")


def profiled(network: nn.Module, images: Tensor, threads: int) -> tuple[Runner, list[float]]:
    """A runner of the network on ONNX Runtime, and each segment's share of a run's time.

    Args:
        network: folded.
        images: (N, C, R, R).
        threads: of the runtime.

    Returns:
        The runner, no longer profiled; the shares, which add up to 1, in the order of
        :func:`nas.cost.latency.layers.segments`.
    """
    with tempfile.TemporaryDirectory(prefix="nas-profile-") as folder:
        session = onnx_session(network, images, threads, profile=Path(folder) / "run")
        run, array = onnx_run(session), images.cpu().numpy()
        for _ in range(WARM_UP + RUNS):
            run(array)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times = _times(events, segments=len(split(network)))[WARM_UP:]
    totals = times.sum(axis=1)
    calm = times[totals <= np.median(totals)]  # whatever came between made a run longer
    shares: list[float] = (calm.sum(axis=0) / calm.sum()).tolist()
    return timed_run(run, array), shares


def _times(events: Iterable[Mapping[str, Any]], segments: int) -> npt.NDArray[np.float64]:
    """(runs, segments) in us, from the profiler's events."""
    ordered = sorted((event for event in events if "dur" in event), key=lambda event: event["ts"])
    runs = [event for event in ordered if event["cat"] == "Session" and event["name"] == "model_run"]
    nodes = [event for event in ordered if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    times = np.zeros((len(runs), segments))
    ends = [run["ts"] + run["dur"] for run in runs]
    index, segment = 0, 0
    for node in nodes:
        while index < len(runs) - 1 and node["ts"] > ends[index]:
            index, segment = index + 1, 0
        segment = _segment(node["name"], segments, segment)
        times[index, segment] += node["dur"]
    return times


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
