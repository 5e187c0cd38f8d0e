"""How far a latency figure of nas can be trusted: repeats, a long reference, predictions, a foreign load, other tools.

    python benchmarks/latency.py [--engine eager] [--networks 100] [--calibration 64] [--loaded] [--quick]

Run it on a quiet machine; with `--loaded` everything is printed again beside a busy process on another core. With
`--record FOLDER` the times of a prediction's networks are kept, and a second call compares the same times with what the
code predicts then, without timing anything.

A processor's speed wanders, most of all on a host that others use too. So one network, the sentinel, is measured with
every group of networks, and right before and after the calibration beside the first group's (alone it is faster than
among others): predictions are compared as they are, and with the machine's speed at the two times taken out.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe
from scipy.stats import spearmanr
from torch.utils.benchmark import Timer

from nas.architecture.catalogue import load, load_space
from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.costs.analytic import cost
from nas.latency import Measurement, Table, calibrate, measure
from nas.latency.calibration import NETWORKS
from nas.latency.engine import example, shipped
from nas.latency.engines import ENGINES, Runtime
from nas.latency.engines import load as load_engine
from nas.latency.machine import LoadMeter, Provenance, quiet_process
from nas.latency.measuring import GROUP

CLASSES = 10


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="inverted_residual")
    parser.add_argument("--networks", type=int, default=150, help="networks never seen, to test predictions on")
    parser.add_argument("--repeats", type=int, default=6, help="repeats of the measurement of 16 networks")
    parser.add_argument("--engine", default="eager", choices=tuple(ENGINES))
    parser.add_argument("--calibration", type=int, default=NETWORKS, help="networks that the table is fitted to")
    parser.add_argument("--loaded", action="store_true", help="everything again beside a busy process")
    parser.add_argument("--only", choices=("repeats", "prediction", "clocks"), help="this part alone")
    parser.add_argument("--record", type=Path, help="keep the times of predictions in this folder, or go by them")
    parser.add_argument("--quick", action="store_true", help="a few networks and repeats, to try the script")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.repeats = 16, 2
    if options.record is not None:
        options.record.mkdir(parents=True, exist_ok=True)
    print(describe(), f"engine {options.engine}")
    meter = LoadMeter()
    time.sleep(2)
    print(f"load by others before the start: {meter.foreign():.0%} of the machine\n")

    bench = Bench(options.engine, options.calibration, options.record)
    space = load_space(options.space)
    if options.engine.startswith("litert"):
        space = without_experts(space)
    few = [space.sample(10_000 + seed) for seed in range(12)] + [load(f"han-{name}") for name in "aceg"]
    unseen = [space.sample(20_000 + seed) for seed in range(options.networks)]

    def wanted(part: str) -> bool:
        return options.only in (None, part)

    if wanted("repeats"):
        reference = {item.id: item.value_ms for item in bench.long_reference(few, 2 if options.quick else 3)}
    for loaded in (False, True) if options.loaded else (False,):
        with foreign_load() if loaded else contextlib.nullcontext():
            print(f"== {'with a busy process on another core' if loaded else 'quiet'}")
            if wanted("repeats"):
                bench.repeatability(few, options.repeats, reference)
            if wanted("prediction"):
                bench.prediction(space, unseen)
            print()
    if not wanted("clocks"):
        return
    print("== other clocks, one pinned process, han-e and mobilenetv2-cifar")
    other_clocks()
    print("\n== a measurement beside a thread of the same process that computes in Python")
    beside_a_thread()


@dataclass(frozen=True)
class Bench:
    """What is measured, with one engine."""

    engine: str
    calibration: int = NETWORKS
    """Networks that the table is fitted to."""
    record: Path | None = None

    def measure(self, networks: Sequence[Architecture]) -> list[Measurement]:
        return measure(networks, Runtime(self.engine), num_classes=CLASSES)

    def long_reference(self, networks: Sequence[Architecture], times: int) -> list[Measurement]:
        """The middle one of several measurements of each network."""
        runs = [self.measure(networks) for _ in range(times)]
        noisy = sum(item.noisy for run in runs for item in run)
        print(
            f"reference: median of {times} measurements of {len(networks)} networks, {noisy} of them flagged as noisy"
        )
        return [sorted(items, key=lambda item: item.value_ms)[times // 2] for items in zip(*runs, strict=True)]

    def repeatability(self, networks: Sequence[Architecture], repeats: int, reference: dict[str, float]) -> None:
        """Coefficient of variation over repeats; share of figures within 5% of the reference; what was flagged."""
        runs = [self.measure(networks) for _ in range(repeats)]
        values = np.array([[item.value_ms for item in run] for run in runs])
        noisy = np.array([[item.noisy for item in run] for run in runs])
        truth = np.array([reference[item.id] for item in networks])
        print(f"repeats: {repeats} x {len(networks)} networks, {noisy.mean():.0%} flagged as noisy")
        in_step = values / np.exp(np.log(values).mean(axis=1, keepdims=True))
        for name, figures in (("", values), (", in relation to each other", in_step)):
            variation = figures.std(axis=0, ddof=1) / figures.mean(axis=0)
            print(
                f"  coefficient of variation{name}: median {np.median(variation):.2%}, largest {variation.max():.2%} "
                "(goal 1%)"
            )
        truth_in_step = truth / np.exp(np.log(truth).mean())
        near, near_in_step = (np.abs(part - 1) <= 0.05 for part in (values / truth, in_step / truth_in_step))
        print(f"  within 5% of the reference: {near.mean():.1%} of all (goal 99%)", end="")
        print(f", {near[~noisy].mean():.1%} of those not flagged" if (~noisy).any() else ", none unflagged", end="")
        print(f"; in relation to each other {near_in_step.mean():.1%}")
        steady = sum(
            (first.value_ms < second.value_ms) == (reference[first.id] < reference[second.id]) or first.tied(second)
            for run in runs
            for index, first in enumerate(run)
            for second in run[index + 1 :]
        )
        pairs = repeats * len(networks) * (len(networks) - 1) // 2
        print(f"  pairs in the reference's order, or reported as tied: {steady / pairs:.1%}")

    def prediction(self, space: Space, unseen: Sequence[Architecture]) -> None:
        """Calibrate, then compare predictions of networks never seen with direct measurement."""
        sentinel = load("han-e")
        beside = unseen[: GROUP - 1]
        _, (before, *_) = self.measure_beside(sentinel, beside, "before")
        start = time.perf_counter()
        kept = None if self.record is None else self.record / f"{self.engine}-calibration.json"
        table = calibrate(
            space, Runtime(self.engine), num_classes=CLASSES, networks=self.calibration, partial=kept, keep=True
        )
        calibration = time.perf_counter() - start
        _, (after, *_) = self.measure_beside(sentinel, beside, "after")
        then = math.sqrt(before * after)
        start = time.perf_counter()
        measured, speeds = self.measure_beside(sentinel, unseen, "unseen")
        measuring = time.perf_counter() - start
        published = [load(f"han-{name}") for name in "abcdefg"] + [load("mobilenetv2-cifar")]
        others = unseen[: GROUP - 1 - len(published)]
        known, known_speeds = self.measure_beside(sentinel, [*published, *others], "published")
        start = time.perf_counter()
        predicted = [table.predict(item) for item in unseen]
        predicting = time.perf_counter() - start
        truth = np.array([item.value_ms for item in measured])
        value = np.array([item.value_ms for item in predicted])
        drift = np.array(speeds) / then
        inside = np.mean([found.low_ms <= true <= found.high_ms for found, true in zip(predicted, truth, strict=True)])
        noisy = sum(item.noisy for item in measured)
        print(f"prediction of {len(unseen)} networks never seen ({noisy} of their measurements flagged as noisy)")
        report("  table", value, truth)
        print(f"  inside the 95% interval (+-{np.expm1(table.error_95):.0%}): {inside:.1%}")
        report("  table, the machine's speed taken out", value, truth / drift)
        print(
            f"  (the sentinel took {then:.3f} ms around the calibration, {drift.min() * then:.3f} to "
            f"{drift.max() * then:.3f} among the networks)"
        )
        held = table.held_out
        print(f"  by its own held-out networks: {held.within_10:.1%} within 10%, Spearman {held.spearman:.4f}")
        report("  MACs-linear, fitted to half of the same measurements", *macs_linear(unseen, truth))
        report("  sum over segments without context", no_context(table, unseen), truth)
        report(
            "  published networks of the space, the machine's speed taken out",
            np.array([table.predict(item).value_ms for item in published]),
            np.array([item.value_ms for item in known[: len(published)]]) / (known_speeds[0] / then),
        )
        print(
            f"  calibration {calibration:.0f} s ({table.held_out.networks} networks), measuring the same "
            f"{len(unseen)} networks {measuring:.0f} s: {calibration / measuring:.2f} of it (goal 0.20); "
            f"prediction {predicting / len(unseen) * 1e6:.0f} us a network, first meeting"
        )
        if table.complaint:
            print(f"  table says: {table.complaint}")

    def measure_beside(
        self, sentinel: Architecture, networks: Sequence[Architecture], part: str
    ) -> tuple[list[Measurement], list[float]]:
        """Networks' measurements, and for each the sentinel's ms in its group; `part` is their name in a record."""
        measured: list[Measurement] = []
        speeds: list[float] = []
        path = None if self.record is None else self.record / f"{self.engine}-{part}.json"
        if path is not None and path.exists():
            found = json.loads(path.read_text())
            measured = [
                Measurement(**item | {"provenance": Provenance(**item["provenance"])}) for item in found["measured"]
            ]
            return measured[: len(networks)], found["speeds"][: len(networks)]
        for at in range(0, len(networks), GROUP - 1):
            first, *others = self.measure([sentinel, *networks[at : at + GROUP - 1]])
            measured += others
            speeds += [first.value_ms] * len(others)
        if path is not None:
            path.write_text(json.dumps({"measured": [asdict(item) for item in measured], "speeds": speeds}))
        return measured, speeds


def without_experts(space: Space) -> Space:
    """The space without conditional convolutions, which LiteRT does not run."""
    stages = [{key: value for key, value in stage.items() if key != "experts"} for stage in space.document["stages"]]
    return Space({**space.document, "name": f"{space.name}-without-experts", "stages": stages})


def report(name: str, predicted: np.ndarray, truth: np.ndarray) -> None:
    """One line of accuracy."""
    ratio = predicted / truth
    usual = np.median(ratio)
    rank = spearmanr(predicted, truth)[0]
    print(
        f"{name}: {np.mean(np.abs(ratio - 1) <= 0.1):.1%} within 10%, Spearman {rank:.4f}, "
        f"bias {usual - 1:+.1%} (without it {np.mean(np.abs(ratio / usual - 1) <= 0.1):.1%} within 10%), "
        f"spread {np.std(np.log(ratio)):.1%}"
    )


def macs_linear(networks: Sequence[Architecture], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    macs = np.array([cost(item, CLASSES).macs for item in networks], dtype=float)
    features = np.column_stack([macs, np.ones_like(macs)])
    half = len(networks) // 2
    weights = np.linalg.lstsq(features[:half] / truth[:half, None], np.ones(half), rcond=None)[0]
    return features[half:] @ weights, truth[half:]


def no_context(table: Table, networks: Sequence[Architecture]) -> np.ndarray:
    from nas.latency.layers import segments

    return np.array([sum(table.by_layers([part]) for part in segments(item, CLASSES)) for item in networks])


def other_clocks() -> None:
    """The same folded network timed by torch.utils.benchmark, eager and in ONNX Runtime, in turn with our own."""
    for name in ("han-e", "mobilenetv2-cifar"):
        architecture = load(name)
        for engine in ("eager", "onnxruntime"):
            values, ours, theirs = [], [], []
            for _ in range(5):
                (found,) = measure([architecture], Runtime(engine), num_classes=CLASSES, isolate=False, max_seconds=5)
                values.append(found.value_ms)
                ours.append(found.median_ms)
                with quiet_process(1), torch.inference_mode():
                    network, images = shipped(architecture, CLASSES), example(architecture)
                    run = load_engine(network, images, found.provenance.layout, Runtime(engine))  # type: ignore[arg-type]
                    timer = Timer("run()", globals={"run": run}, num_threads=1)
                    theirs.append(timer.blocked_autorange(min_run_time=1).median * 1e3)
            mine, other = statistics.median(ours), statistics.median(theirs)
            print(
                f"  {name} {engine}: nas {statistics.median(values):.3f} ms, median of its runs {mine:.3f} ms, "
                f"torch.utils.benchmark median {other:.3f} ms, ratio of the medians {mine / other:.3f} (goal within 5%)"
            )


def beside_a_thread() -> None:
    """Why a process with other threads measures in a fresh one."""
    architecture = load("han-e")
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1

    def show(name: str, isolate: bool) -> None:
        (found,) = measure([architecture], num_classes=CLASSES, isolate=isolate, max_seconds=5)
        print(f"  {name}: {found.value_ms:.3f} ms, median {found.median_ms:.3f}, {found.reason or 'not noisy'}")

    show("alone, in this process", False)
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    show("beside the thread, in this process", False)
    show("beside the thread, in a fresh process", True)
    stop.set()
    thread.join()


@contextlib.contextmanager
def foreign_load() -> Iterator[None]:
    """A process that computes and walks through memory on the lowest core."""
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(min(os.sched_getaffinity(0)),))
    process.start()
    time.sleep(5)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _work(core: int) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    matrix, vector = torch.randn(512, 512), torch.randn(1 << 22)
    while True:
        matrix = torch.tanh(matrix @ matrix)
        vector = vector * 1.0001


if __name__ == "__main__":
    main()
