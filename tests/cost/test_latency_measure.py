"""Measuring: what the clock's figures become, and that a busy machine is never passed over in silence."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.benchmark import Timer

from nas.architecture import Architecture
from nas.catalog import load, load_space, published, space_names
from nas.cost.analytic import cost
from nas.cost.latency import measure, timing
from nas.cost.latency.chain import example, segmented, shipped, split, whole
from nas.cost.latency.drift import slowness
from nas.cost.latency.engines import check
from nas.cost.latency.layers import segments
from nas.cost.latency.machine import LoadMeter, _own_seconds, describe, free_cores, quiet_process
from nas.cost.latency.measuring import time_until_sure
from nas.cost.latency.onnx_profile import own_shares, profiled
from nas.cost.latency.places import Prepared, here, in_children
from nas.cost.latency.summary import Measurement, estimates, summarize
from nas.cost.latency.timing import WARM_UP_RUNS, Probe, Visit, time_round
from nas.errors import UserError

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
PROVENANCE = describe(
    device="cpu", engine="eager", layout="contiguous", threads=1, batch=1, quantile=0.2, foreign_load=0
)


def visit(runs: Sequence[Sequence[int]], *, preempted: bool = False, stolen: float = 0.0, probe: int = 100) -> Visit:
    """Runs given by their parts."""
    return Visit(
        [sum(run) for run in runs],
        [preempted] * len(runs),
        [sorted(part)[round(0.2 * (len(runs) - 1))] for part in zip(*runs, strict=True)],
        probe,
        stolen,
        at=0,
    )


class TestEstimate:
    def test_is_the_median_over_visits_of_the_low_quantile_of_runs(self) -> None:
        runs = np.random.default_rng(0).normal(1000, 30, (20, 6, 1)).astype(int)
        (found,) = estimates([[visit(each) for each in runs.tolist()]])
        assert found.value == np.median(np.quantile(runs[:, :, 0], 0.2, axis=1, method="lower"))
        assert found.low < found.value < found.high
        assert found.clean == 20 and found.method == "runs"
        assert found.why_noisy() == ""

    def test_leaves_out_preempted_runs(self) -> None:
        runs = [visit([[500], [1000], [1000], [1000]])._replace(preempted=[True, False, False, False])] * 8
        assert estimates([runs])[0].value == 1000

    def test_leaves_out_disturbed_visits(self) -> None:
        visits = [visit([[1000]] * 4)] * 8
        visits += [visit([[500]] * 4, probe=200)] * 20 + [visit([[500]] * 4, stolen=0.5)] * 20
        (found,) = estimates([visits])
        assert found.value == 1000 and found.clean == 8

    def test_adds_up_parts_where_whole_runs_were_disturbed(self) -> None:
        generator = np.random.default_rng(0)
        runs = np.full((10, 6, 10), 100)
        for index in np.ndindex(10, 6):
            runs[(*index, generator.integers(10))] += 3000  # every run meets one disturbance
        (found,) = estimates([[visit(each, preempted=True) for each in runs.tolist()]])
        assert found.method == "parts"
        assert found.value == 1000
        assert found.parts == (100,) * 10
        assert not found.why_noisy()

    def test_a_shared_core_is_noisy_whatever_the_times(self) -> None:
        (found,) = estimates([[visit([[500, 500]] * 4, preempted=True, stolen=0.5)] * 10])
        assert found.value == 1000  # the best guess
        assert "too noisy: 0 undisturbed visits" in found.why_noisy()

    def test_a_wide_interval_is_noisy_and_says_how_wide(self) -> None:
        (found,) = estimates([[visit([[1000 + 100 * index]] * 4) for index in range(10)]])
        assert "interval of" in found.why_noisy()

    def test_equal_times_give_equal_estimates(self) -> None:
        visits = [visit([[int(value)]] * 4) for value in np.random.default_rng(1).normal(1000, 30, 40)]
        assert estimates([visits]) == estimates([visits])


class TestDrift:
    """On invented machines whose speed is known."""

    def times(self, drift: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of 40 networks in 10 rounds, in turn: each visit's time and place, and each network's own time."""
        generator = np.random.default_rng(0)
        own = np.exp(generator.uniform(0, 3, 40))
        at = np.array([40 * number + generator.permutation(40) for number in range(10)]).T
        return own[:, None] * drift[at] * np.exp(generator.normal(0, noise, (40, 10))), at, own

    def test_a_speed_that_changes_is_found(self) -> None:
        speed = np.where(np.arange(400) // 60 % 2, 1.3, 1.0)  # slower for 60 visits, now and then
        times, at, own = self.times(speed, noise=0.02)
        found = slowness(times, at)
        assert np.corrcoef(found.ravel(), speed[at].ravel())[0, 1] > 0.95
        after, before = (np.log(np.median(item, axis=1) / own).std() for item in (times / found, times))
        assert after < 0.2 * before

    def test_a_steady_machine_is_left_alone(self) -> None:
        times, at, own = self.times(np.ones(400), noise=0.02)
        after, before = (np.log(np.median(item, axis=1) / own).std() for item in (times / slowness(times, at), times))
        assert after < 1.2 * before

    def test_one_network_cannot_tell(self) -> None:
        assert (slowness(np.array([[1.0, 2.0, 3.0]]), np.arange(3)[None]) == 1).all()

    def test_visits_that_do_not_count_say_nothing(self) -> None:
        times, at, _ = self.times(np.ones(400), noise=0.0)
        times[(at > 100) & (at < 150)] = np.nan
        np.testing.assert_allclose(slowness(times, at), 1)


def test_summary_gives_all_figures_and_survives_json() -> None:
    visits = [visit([[1_000_000 + 1000 * (6 * at + run)] for run in range(6)]) for at in range(10)]
    found = summarize("a", "1", visits, estimates([visits])[0], PROVENANCE, "")
    assert found.value_ms < found.median_ms < found.p90_ms
    assert found.iqr_ms == pytest.approx(0.0295, rel=0.1)
    assert (found.repeats, found.visits, found.clean) == (60, 10, 10)
    assert found.spread == pytest.approx((found.high_ms - found.low_ms) / found.value_ms)
    assert Measurement.from_dict(found.to_dict()) == found


def test_overlapping_intervals_are_ties() -> None:
    def one(low: float, high: float) -> Measurement:
        visits = [visit([[1_000_000]] * 4)] * 10
        found = summarize("a", "1", visits, estimates([visits])[0], PROVENANCE, "")
        return Measurement.from_dict({**found.to_dict(), "low_ms": low, "high_ms": high})

    assert one(1.0, 1.2).tied(one(1.1, 1.3))
    assert not one(1.0, 1.1).tied(one(1.2, 1.3))


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
    slept: list[float] = []
    start = time.monotonic()
    timer = partial(timing.visit, lambda: [next(times)], Probe(), runs=4, single_thread=False)
    traces, excuse = time_until_sure([timer], rounds=3, max_seconds=0.5, sleep=slept.append)
    assert time.monotonic() - start < 5
    assert "waited 0.5 s" in excuse
    assert slept
    assert summarize("a", "1", traces[0], estimates(traces)[0], PROVENANCE, excuse).noisy


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
    seen: list[tuple[int, int]] = []
    for isolate in (False, True):
        found = measure(
            [SMALL, load("han-e")],
            max_seconds=0,
            isolate=isolate,
            resolution=16,
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert [item.name for item in found] == ["small", "han-e"]
        assert 0 < found[0].value_ms < found[1].value_ms
        assert found[0].id == SMALL.with_input(resolution=16).id
        assert found[0].provenance.threads == 1 and found[0].provenance.engine == "eager"
    assert seen == [(2, 2)] * 2


class TestChildren:
    """Every network in a process of its own."""

    @staticmethod
    def waits(about: object = None) -> Prepared:
        """Answers with the number of its process."""
        return Prepared(lambda: visit([[os.getpid()]]), about)

    def test_each_has_its_own_and_keeps_it(self) -> None:
        with in_children() as prepare:
            items = [prepare(partial(self.waits, number)) for number in range(3)]
            assert [item.about for item in items] == [0, 1, 2]
            first, second = ([item.timer().runs[0] for item in items] for _ in range(2))
            assert first == second and len({*first, os.getpid()}) == 4
        assert not any(Path(f"/proc/{child}").exists() for child in first)
        with here() as prepare:
            assert prepare(self.waits).timer().runs == [os.getpid()]

    def test_a_users_error_is_passed_on(self) -> None:
        with in_children() as prepare, pytest.raises(UserError, match="unknown engine 'fast'"):
            prepare(lambda: check("fast", "cpu"))

    def test_a_death_is_no_silence(self) -> None:
        with in_children() as prepare:
            item = prepare(lambda: Prepared(lambda: os._exit(3), None))
            with pytest.raises(RuntimeError, match="ended with 3"):
                item.timer()

    def test_they_end_with_their_parent(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time; from pathlib import Path; from nas.cost.latency.places import in_children\n"
            "def make():\n"
            "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
            "    time.sleep(100)\n"
            "with in_children() as prepare:\n"
            "    prepare(make)\n"
        )
        pid = tmp_path / "pid"
        with subprocess.Popen([sys.executable, "-c", code, str(pid)]) as process:
            wait_until(lambda: pid.exists() and pid.read_text())
            process.kill()
        child = int(pid.read_text())
        wait_until(lambda: not Path(f"/proc/{child}/exe").exists())  # a zombie has none either

    def test_their_time_is_ours(self) -> None:
        def burn() -> Prepared:
            end = time.process_time() + 0.6
            while time.process_time() < end:
                pass
            return self.waits()

        before = _own_seconds()
        with in_children() as prepare:
            prepare(burn)
            alive = _own_seconds() - before
        assert alive > 0.5
        assert _own_seconds() - before >= alive - 0.05


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


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
    network, images = shipped(architecture, 10), example(architecture, 2)
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
    found = measure([SMALL], engine="onnxruntime", max_seconds=0, isolate=False)
    assert found[0].value_ms > 0
    assert "onnxruntime" in found[0].provenance.versions


def test_onnxruntimes_profile_finds_the_block_that_takes_longest() -> None:
    pytest.importorskip("onnxruntime")
    document = {
        "name": "one-large-block",
        "input": {"channels": 3, "resolution": 32},
        "stem": {"channels": 8},
        "stages": [
            {"block": "inverted_residual", "channels": 8, "expansion": 1},
            {"block": "inverted_residual", "channels": 256, "expansion": 6, "kernels": [3, 7]},
            {"block": "inverted_residual", "channels": 8, "expansion": 1, "stride": 2},
        ],
    }
    architecture = Architecture.from_dict(document)
    network, images = shipped(architecture, 10), example(architecture, 1)
    with torch.inference_mode():
        run, shares = profiled(network, images, threads=1)
        assert run()[0] > 0
    assert len(shares) == len(split(network)) == 5
    assert sum(shares) == pytest.approx(1)
    macs = np.array([sum(layer.macs for layer in segment.layers) for segment in segments(architecture, 10)])
    assert np.argsort(shares)[-1] == np.argmax(macs)
    assert all(share > 0 for share in shares)


def test_what_the_profiler_takes_is_taken_off_its_nodes() -> None:
    own, nodes = np.array([10.0, 400.0, 90.0]), np.array([3, 10, 40])
    np.testing.assert_allclose(own_shares(own + 3 * nodes, nodes, own.sum()), own / own.sum())
    np.testing.assert_allclose(own_shares(own, nodes, 2 * own.sum()), own / own.sum())  # it took nothing


def test_missing_engines_and_devices_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown engine 'fast'"):
        check("fast", "cpu")
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        check("eager", "tpu")
    with pytest.raises(UserError, match="CUDA graphs"):
        check("graph", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            check("eager", "cuda")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install"):
        check("onnxruntime", "cpu")
    with pytest.raises(UserError, match="at least 1"):
        measure([SMALL], threads=0)


@pytest.mark.slow
def test_agrees_with_torch_benchmark() -> None:
    """In one pinned process, with runs in turn, so that a busy machine hits both alike.

    Its mean of five runs and ours, at their best.
    """
    architecture = load("han-e")
    with quiet_process(1), torch.inference_mode():
        network, images = shipped(architecture, 10), example(architecture, 1)
        run = segmented(network, images, "channels_last")
        images = images.contiguous(memory_format=torch.channels_last)
        timer = Timer("network(images)", globals={"network": network, "images": images}, num_threads=1)
        ours, theirs = [], []
        for _ in range(150):
            theirs.append(timer.timeit(2).mean * 1e9)  # warms up by itself
            run()
            ours.append(np.mean([sum(run()) for _ in range(2)]))
    assert np.quantile(ours, 0.05) == pytest.approx(np.quantile(theirs, 0.05), rel=0.05)


@pytest.mark.slow
def test_a_compiled_network_runs() -> None:
    with quiet_process(1), torch.inference_mode():
        run = whole(shipped(SMALL, 10), example(SMALL, 1), "compiled", "channels_last", 1)
        assert run()[0] > 0
