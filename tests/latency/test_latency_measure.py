"""Measuring: networks timed in turn, and a busy machine that is never passed over in silence."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from timings import PROVENANCE
from torch import nn
from torch.utils.benchmark import Timer

from nas.architecture.catalogue import load, load_space, published, space_names
from nas.architecture.document import Architecture
from nas.costs.analytic import cost
from nas.errors import UserError
from nas.latency import measure, timing
from nas.latency.engine import Engine, Run, example, shipped, split
from nas.latency.engines import ENGINES, Runtime
from nas.latency.engines import load as load_engine
from nas.latency.layers import segments
from nas.latency.machine import LoadMeter, free_cores, quiet_process
from nas.latency.measuring import time_until_sure
from nas.latency.summary import summarize
from nas.latency.timing import WARM_UP_RUNS, Probe, time_round

SMALL = Architecture.from_dict(
    {
        "name": "small",
        "input": {"channels": 1, "resolution": 8},
        "stem": {"channels": 8},
        "stages": [
            {"block": "inverted_residual", "channels": 8, "expansion": 2, "se_ratio": 0.25, "kernels": [3, 5]},
            {"block": "inverted_residual", "channels": 16, "stride": 2, "repeats": 2, "experts": 2},
        ],
    }
)


def test_runs_are_interleaved() -> None:
    order: list[int] = []

    def runner(index: int):
        def run() -> list[int]:
            order.append(index)
            return [1000]

        return run

    timers = [partial(timing.visit, runner(index), Probe(), runs=2, single_thread=False) for index in range(3)]
    rounds = [time_round(timers, number) for number in range(2)]
    each = WARM_UP_RUNS + 2
    visited = order[::each]
    assert order == [index for index in visited for _ in range(each)]  # warming up and two runs at every visit
    assert sorted(visited[:3]) == sorted(visited[3:]) == [0, 1, 2]
    for number, visits in enumerate(rounds):
        assert all(item.runs == [1000, 1000] for item in visits)
        assert [visited[item.at] for item in visits] == [0, 1, 2]
        assert {item.at // 3 for item in visits} == {number}


def test_waits_a_bounded_time_and_says_so() -> None:
    times = (round(1000 * 1.05**run) for run in range(10_000))  # slower and slower: never sure
    start = time.monotonic()
    timer = partial(timing.visit, lambda: [next(times)], Probe(), runs=4, single_thread=False)
    traces, values, excuse = time_until_sure([timer], rounds=3, max_seconds=0.5)
    assert time.monotonic() - start < 5
    assert "waited 0.5 s" in excuse and len(traces[0]) > 3
    assert summarize("a", "1", traces[0], values[0], PROVENANCE, excuse).noisy


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two busy processes on every core, so that there is no free one."""
    code = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    cores = sorted(os.sched_getaffinity(0))
    workers = [subprocess.Popen([sys.executable, "-c", code, str(core)]) for core in cores for _ in range(2)]
    time.sleep(0.5)
    yield
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.mark.usefixtures("busy_machine")
def test_a_busy_machine_is_noticed() -> None:
    (found,) = measure([SMALL], max_seconds=1, isolate=False)
    load = LoadMeter()
    time.sleep(0.3)
    assert load.foreign() > 0.5
    assert found.noisy
    assert "too noisy" in found.reason and "of the machine" in found.reason


def test_measures_in_a_fresh_process_and_in_this_one() -> None:
    for isolate in (False, True):
        found = measure([SMALL, load("han-e")], max_seconds=0, isolate=isolate, resolution=16)
        assert [item.name for item in found] == ["small", "han-e"]
        assert 0 < found[0].value_ms < found[1].value_ms
        assert found[0].id == SMALL.with_input(resolution=16).id
        assert found[0].provenance.threads == 1 and found[0].provenance.engine == "eager"


def test_measures_in_a_fresh_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("nas.latency.measuring.call", lambda *_, **__: calls.append("fresh") or [])
    measure([SMALL])
    assert calls == ["fresh"]


def test_the_process_is_left_as_it_was() -> None:
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    with quiet_process(1):
        assert torch.get_num_threads() == 1 and len(os.sched_getaffinity(0)) == 1
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before
    assert free_cores(1, before[1]) <= before[1]


@pytest.mark.parametrize("name", ["han-e", "kuo-se-condconv", "mobilenetv1-full-conv", "squeezenet", "shufflenet-2"])
def test_segments_are_the_network(name: str) -> None:
    architecture = load(name)
    if architecture.input.resolution > 32:
        architecture = architecture.with_input(resolution=32)
    network, images = shipped(architecture, 10), example(architecture, batch=2)
    modules = split(network)
    assert len(modules) == len(segments(architecture, 10))
    with torch.inference_mode():
        tensor = images
        for module in modules:
            tensor = module(tensor)
        torch.testing.assert_close(tensor, network(images))


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("seed", range(3))
def test_segments_hold_all_macs_and_weights(name: str, seed: int) -> None:
    architecture = load_space(name).sample(seed)
    found = [layer for segment in segments(architecture, 10) for layer in segment.layers]
    counted = cost(architecture, 10)
    total = sum(layer.macs for layer in found)
    if any(getattr(block.spec, "combine", None) == "add" for block in architecture.blocks()):
        assert total <= counted.macs  # an added pyramid is folded into one kernel
    else:
        assert total == counted.macs
    assert sum(layer.weights for layer in found) <= 4 * counted.params


def test_published_networks_have_segments() -> None:
    for architecture in published():
        assert all(segment.layers for segment in segments(architecture, 10))


def test_onnxruntime_runs_the_same_network() -> None:
    pytest.importorskip("onnxruntime")
    found = measure([SMALL], Runtime("onnxruntime"), max_seconds=0, isolate=False)
    assert found[0].value_ms > 0
    assert "onnxruntime" in found[0].provenance.versions


def test_onnxruntime_runs_segments_as_models_of_their_own() -> None:
    pytest.importorskip("onnxruntime")
    with torch.inference_mode():
        network, images = shipped(SMALL, 10), example(SMALL)
        steps, value = ENGINES["onnxruntime"].load_segments(network, images, 1)
        for step in steps:
            value = step(value)
        torch.testing.assert_close(torch.from_numpy(value), network(images), rtol=1e-4, atol=1e-4)
    assert len(steps) == len(segments(SMALL, 10))


def test_another_engine_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of known speed: 1 and 2 ms by the clock, however busy the machine is."""

    class Known(Engine):
        def load(self, network: nn.Module, images: torch.Tensor, threads: int) -> tuple[Sequence[Run], Any]:
            def wait(ms: int) -> int:
                end = time.perf_counter_ns() + ms * 1_000_000
                while time.perf_counter_ns() < end:
                    pass
                return 2

            return [wait, wait], 1

        def versions(self) -> list[str]:
            return ["known 1.0"]

    monkeypatch.setitem(cast(dict[str, Engine], ENGINES), "known", Known())
    (found,) = measure([SMALL], Runtime("known"), max_seconds=0, isolate=False)
    assert found.value_ms == pytest.approx(3, rel=0.05)
    assert (found.provenance.engine, found.provenance.layout) == ("known", "contiguous")
    assert found.provenance.versions.endswith("known 1.0")


def test_a_network_runs_in_the_layout_that_its_figure_names() -> None:
    network, images = shipped(SMALL, 10), example(SMALL)
    conv = network.get_submodule("stem.0")
    assert isinstance(conv, nn.Conv2d)
    for layout, form in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)) * 2:
        with torch.inference_mode():
            assert sum(load_engine(network, images, layout, Runtime())()) > 0
        assert conv.weight.is_contiguous(memory_format=form)


def test_missing_engines_and_devices_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown engine 'fast'"):
        Runtime("fast").check()
    with pytest.raises(UserError, match="device 'tpu': allowed are"):
        Runtime(device="tpu").check()
    with pytest.raises(UserError, match="on cpu and cuda"):
        Runtime(device="mps").check()
    with pytest.raises(UserError, match="CUDA graphs"):
        Runtime("graph").check()
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="sees no GPU"):
            Runtime(device="cuda").check()
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install"):
        Runtime("onnxruntime").check()
    with pytest.raises(UserError, match="at least 1"):
        measure([SMALL], Runtime(threads=0))


@pytest.mark.slow
def test_agrees_with_torch_benchmark() -> None:
    """In one pinned process, with runs in turn, so that a busy machine hits both alike.

    Its mean of five runs and ours, at their best.
    """
    architecture = load("han-e")
    with quiet_process(1), torch.inference_mode():
        network, images = shipped(architecture, 10), example(architecture)
        run = load_engine(network, images, "channels_last", Runtime())
        images = images.contiguous(memory_format=torch.channels_last)
        timer = Timer("network(images)", globals={"network": network, "images": images}, num_threads=1)
        ours, theirs = [], []
        for _ in range(150):
            theirs.append(timer.timeit(2).mean * 1e9)  # warms up by itself
            run()
            ours.append(np.mean([sum(run()) for _ in range(2)]))
    assert np.quantile(ours, 0.05) == pytest.approx(np.quantile(theirs, 0.05), rel=0.1)


@pytest.mark.slow
def test_a_compiled_network_runs() -> None:
    with quiet_process(1), torch.inference_mode():
        run = load_engine(shipped(SMALL, 10), example(SMALL), "channels_last", Runtime("compiled"))
        assert run()[0] > 0
