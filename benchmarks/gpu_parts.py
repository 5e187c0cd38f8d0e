"""What `gpu.py` measures: each part is a generator of the rows of its table."""

from __future__ import annotations

import importlib.util
import os
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
"""A line of a part's table, by column. The first column is its key: a later row of the same key takes its place."""


class Sizes(NamedTuple):
    """How much of everything."""

    networks: int
    rounds: int
    steps: int
    batch: int
    side: int
    together: int
    copy: int
    fast_epochs: int
    seeds: int
    mark: float
    trials: int
    search_epochs: int
    large_batch: int
    latencies: int


ON_GPU = Sizes(10, 3, 100, 128, 32, 4, 2**30, 45, 2, 0.94, 24, 6, 1024, 6)
ON_CPU = Sizes(2, 1, 1, 16, 8, 2, 2**24, 1, 1, 0.1, 2, 1, 16, 1)


def sizes_for(device: str) -> Sizes:
    return ON_GPU if device.startswith("cuda") else ON_CPU


def data(given: Namespace) -> Any:
    """CIFAR-10, or the digits for a dry run without it."""
    from nas.training.data import load_dataset

    if given.data_dir is None:
        return load_dataset("digits", train_size=300)
    return load_dataset("cifar10", data_dir=given.data_dir)


def networks(count: int, side: int) -> list[Any]:
    """E, MobileNetV2-CIFAR and sampled networks."""
    import train_throughput

    return train_throughput.networks(count, 0, side)


def device(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """The device and its software."""
    from nas.hardware import device_name
    from nas.training.precision import autocast_dtype

    here = torch.device(given.device)
    yield {"what": "name", "value": device_name(given.device)}
    yield {"what": "torch", "value": f"{torch.__version__}, CUDA {torch.version.cuda}"}
    if here.type == "cuda":
        properties = torch.cuda.get_device_properties(here)
        yield {"what": "capability", "value": f"{properties.major}.{properties.minor}"}
        yield {"what": "memory, GB", "value": properties.total_memory / 1e9}
        yield {"what": "multiprocessors", "value": properties.multi_processor_count}
        yield {"what": "cuDNN", "value": torch.backends.cudnn.version()}
    yield {"what": "precision auto", "value": str(autocast_dtype("auto", here, 32) or torch.float32)}
    from train_throughput import bandwidth

    yield {"what": "copy, GB/s read and written", "value": bandwidth(here, sizes.copy) / 1e9}


def tests(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """The tests that need a GPU; on a CPU they are skipped, but for some that do not."""
    if importlib.util.find_spec("pytest") is None:
        raise ModuleNotFoundError("no pytest", name="pytest")
    found = given.out / "tests.xml"
    chosen = [] if sizes is ON_GPU else ["-k", "draws_of_a_graph or comes_back"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={found}", *chosen]
    subprocess.run([*command, "tests/training/test_graphs.py"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    for case in xml.etree.ElementTree.parse(found).iter("testcase"):
        outcome = next(iter(case), None)
        said = "" if outcome is None else outcome.get("message", "").partition("\n")[0][:100]
        state = "passed" if outcome is None else outcome.tag
        yield {"test": case.get("name"), "state": state, "seconds": float(case.get("time", 0)), "said": said}
    found.unlink()


def memory(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """Less memory than a training wants: 1 is its peak. At 0.7 it halves its batches, at 0.1 it is given up."""
    from nas.architecture.catalogue import load
    from nas.network.build import build
    from nas.training.loop import Trainer
    from nas.training.recipe import RECIPES

    architecture = load("mobilenetv2-cifar").with_input(channels=3, resolution=sizes.side)
    whole = data(given).for_network(3, sizes.side, given.device)
    few = whole.train.take(torch.arange(4 * sizes.large_batch, device=whole.train.labels.device) % len(whole.train))
    dataset = replace(whole, train=few, validation=few.take(torch.arange(64, device=few.labels.device)))
    recipe = replace(RECIPES["search"].with_epochs(1), batch_size=sizes.large_batch)

    def attempt(limited: Callable[[Trainer], Any]) -> Row:
        trainer = Trainer(build(architecture, len(dataset.classes)), dataset, recipe)
        try:
            with limited(trainer):
                loss = trainer.run_epoch().loss
        except torch.OutOfMemoryError as error:
            return {"outcome": "given up", "loss": None, "parts": 0, "said": str(error).partition("\n")[0][:60]}
        return {"outcome": "trained", "loss": loss, "parts": trainer.state_dict()["parts"], "said": ""}

    limits = _cuda_limits(torch.device(given.device)) if given.device.startswith("cuda") else _pretended_limits
    for name, share in (("all", 1.0), ("0.7", 0.7), ("0.1", 0.1), ("all again", 1.0)):
        row = attempt(limits(share))
        held = 0.0
        if given.device.startswith("cuda"):
            torch.cuda.empty_cache()
            held = torch.cuda.memory_reserved() / 1e9
        yield {"share of the memory": name, **row, "held afterwards, GB": held}


def _cuda_limits(where: torch.device) -> Callable[[float], Any]:
    """Limits of this process, as shares of the first training's peak above what was held before it."""
    base, peak = torch.cuda.memory_reserved(where), [0]

    def of(share: float) -> Any:
        @contextmanager
        def limited(_: Any) -> Iterator[None]:
            total = torch.cuda.get_device_properties(where).total_memory
            if peak[0]:
                torch.cuda.set_per_process_memory_fraction(min(1.0, (base + share * (peak[0] - base)) / total), where)
            try:
                yield
            finally:
                peak[0] = peak[0] or torch.cuda.max_memory_reserved(where)
                torch.cuda.set_per_process_memory_fraction(1.0, where)

        return limited

    return of


def _pretended_limits(share: float) -> Any:
    """A CPU has no limit that is safe to meet: the network itself runs out of memory."""

    @contextmanager
    def limited(trainer: Any) -> Iterator[None]:
        def check(module: Any, images: tuple[torch.Tensor]) -> None:
            if module.training and len(images[0]) > share * trainer.recipe.batch_size:
                raise torch.OutOfMemoryError("pretended")

        handle = trainer.network.register_forward_pre_hook(check)
        yield
        handle.remove()

    return limited


def latency(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """One image: by the card's events (on a CPU by the clock), and as a replayed CUDA graph; ms."""
    from nas.latency import Runtime, measure

    chosen = networks(sizes.latencies, sizes.side)
    rows: list[Row] = [{"network": architecture.name or architecture.id} for architecture in chosen]
    for engine in ("eager", "graph") if given.device.startswith("cuda") else ("eager",):
        figures = measure(chosen, Runtime(device=given.device, engine=engine), max_seconds=2)
        for row, found in zip(rows, figures, strict=True):
            layout = found.provenance.layout
            row |= {engine: found.value_ms, f"{engine} from": found.low_ms, f"{engine} to": found.high_ms}
            row |= {f"{engine} layout": layout, f"{engine} noisy": found.reason if found.noisy else ""}
            yield row


def throughput(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """Images per second of training: ours, without CUDA graphs, with cuDNN's guesses, a plain loop; several at once.

    `limit` is what the bandwidth of a copy allows if every convolution read and wrote its images once in each pass and
    nothing else were moved (`bytes_per_image`); `share` is the part of it that all trainings at once reach. `warm-up`:
    seconds of the round that is not counted, with choosing kernels and forms, and capturing the graph.
    """
    import train_throughput as rates

    from nas.training.data import Images
    from nas.training.precision import autocast_dtype
    from nas.training.recipe import RECIPES

    here = torch.device(given.device)
    recipe = replace(RECIPES["search"].with_epochs(sizes.rounds + 1), batch_size=sizes.batch, flip="alternating")
    whole = data(given).for_network(3, sizes.side, "cpu")
    few = Images(whole.validation.images[:2], whole.validation.labels[:2])
    images = whole.train.take(torch.arange(sizes.steps * sizes.batch) % len(whole.train))
    dataset = replace(whole, train=images, validation=few, test=few, flip_safe=True)
    bytes_each = 2 if autocast_dtype(recipe.precision, here, sizes.side) else 4
    speed = rates.bandwidth(here, sizes.copy)
    workers = min(8, len(os.sched_getaffinity(0)))
    told = (dataset, recipe, given.device, 1, workers)
    names = ("ours", "no graph", "no timing", "plain") if here.type == "cuda" else ("ours", "plain")
    with ExitStack() as ending:

        def begin(name: str) -> Any:
            contestant = rates.Contestant.begin(name, *told)
            ending.callback(contestant.end)
            return contestant

        contestants = [begin(name) for name in names]
        crowd = [contestants[0], *(begin("ours") for _ in range(sizes.together - 1))]
        for architecture in networks(sizes.networks, sizes.side):
            limit = speed / rates.bytes_per_image(architecture, bytes_each)
            yield _rates(architecture, contestants, crowd, sizes, limit)


def _rates(architecture: Any, contestants: list[Any], crowd: list[Any], sizes: Sizes, limit: float) -> Row:
    """One network's row."""
    import train_throughput as rates

    from nas.costs.analytic import cost

    figures = rates.measure(architecture, contestants, sizes.rounds)
    together = statistics.median(rates.measure_together(architecture, crowd, sizes.rounds))
    return {
        "network": rates.short_name(architecture),
        "MACs, M": cost(architecture).macs / 1e6,
        **{name: statistics.median(figures.rates[name]) for name in figures.rates},
        "ours/plain": figures.ratio("ours", "plain"),
        f"{sizes.together} at once": together,
        "at once/plain": together / statistics.median(figures.rates["plain"]),
        "limit": limit,
        "share": together / limit,
        "warm-up": sizes.steps * sizes.batch / figures.first["ours"],
        "spread": max(max(values) / min(values) for values in figures.rates.values()),
    }


def accuracy(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """Seconds from an untrained MobileNetV2-CIFAR until the test accuracy is at the mark (`time_to_accuracy.py`)."""
    import time_to_accuracy as race

    from nas.architecture.catalogue import load

    architecture = load("mobilenetv2-cifar").with_input(channels=3, resolution=sizes.side)
    dataset = data(given).for_network(3, sizes.side, given.device)
    dataset = race.judged_by_tests(dataset, keep_validation=given.data_dir is None)
    recipe = race.FAST.with_epochs(sizes.fast_epochs)
    for seed in range(sizes.seeds):
        reached = None
        for epoch, (seconds, right) in enumerate(race.progress(architecture, dataset, recipe, seed)):
            if right >= sizes.mark and reached is None:
                reached = seconds
            so_far = {"epochs": epoch + 1, "seconds": seconds, "accuracy": right}
            yield {"seed": seed, f"seconds to {sizes.mark:.0%}": reached, **so_far}


def search(given: Namespace, sizes: Sizes) -> Iterator[Row]:
    """A search by the command, with four networks on the card, and its report."""
    for package in ("ray", "optuna", "plotly"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"no {package}", name=package)
    run = given.out / "search"
    command = [sys.executable, "-m", "nas", "search", "--out", str(run), "--trials", str(sizes.trials)]
    command += ["--epochs", str(sizes.search_epochs), "--objectives", "accuracy,size", "--report-every", "0"]
    if given.device.startswith("cuda"):
        command += ["--gpus-per-trial", "0.25"]
    else:
        command += ["--gpus-per-trial", "0", "--max-concurrent", "1", "--train-size", "200", "--published", "none"]
    if given.data_dir is not None:
        command += ["--dataset", "cifar10", "--data-dir", str(given.data_dir)]
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, complaints = process.communicate(timeout=max(1.0, given.until - time.time() - 20))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it ends in seconds, and keeps what it has
        _, complaints = process.communicate()
        report = [sys.executable, "-m", "nas", "report", str(run)]
        subprocess.run(report, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    yield {"what": "seconds", "value": time.monotonic() - begun}
    yield {"what": "exit code", "value": process.returncode}
    if process.returncode:
        yield {"what": "said", "value": (complaints.strip().splitlines() or [""])[-1][:200]}
    from nas.driver.run import Run

    records = [record for record in Run.open(run).records if not record.untrained]
    for state in sorted({record.state for record in records}):
        yield {"what": state, "value": sum(record.state == state for record in records)}
    seconds = sum(epoch["seconds"] for record in records for epoch in record.curve)
    yield {"what": "seconds in epochs, all workers", "value": seconds}
    yield {"what": "report, kB", "value": (run / "report.html").stat().st_size / 1e3}
    for record in (record for record in records if record.on_front):
        yield {"what": f"front: {record.architecture.name or record.architecture.id}", "value": record.accuracy}


@dataclass(frozen=True)
class Part:
    rows: Callable[[Namespace, Sizes], Iterator[Row]]
    seconds: int
    """Of ten minutes on a GPU; in the same proportion for other lengths."""


PARTS = {
    "device": Part(device, 20),
    "tests": Part(tests, 50),
    "memory": Part(memory, 30),
    "latency": Part(latency, 50),
    "throughput": Part(throughput, 190),
    "accuracy": Part(accuracy, 100),
    "search": Part(search, 150),
}
