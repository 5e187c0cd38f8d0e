"""Images per second of training: ours, the plain loop, and ours with the data already in place.

The plain loop trains the networks with their layers in the usual form (`usual_layers.py`). The same networks (sampled
with a fixed seed from `inverted_residual`, MobileNetV2-CIFAR and E among them) on the same images, each contestant in a
process of its own that serves all networks, as a search's workers do. They take turns in every round, so that a change
of the machine's speed meets all of them. A round is one epoch of `--steps` batches; the plain loop's own worker
processes live on between its epochs. The first round warms up and is not counted. That BatchNorm is recalibrated after
an epoch, on four batches or 3% of them, is left out, since no epoch is as short as one here. Beside them stands the
part of our step that the data path takes (fetching a batch, augmenting, normalising).

On a GPU three columns more: ours without CUDA graphs, ours where cuDNN guesses its kernels instead of timing them
(`no timing`), and the memory's limit, which is what the memory's bandwidth
(measured by a copy) allows if every convolution read and wrote its images once in each pass and nothing else was moved.
With `--processes N`, N trainings of each network at once, each in a process of its own on the same device, against one
plain loop.

    python benchmarks/train_throughput.py --steps 2 --out results/benchmarks/train_throughput-cpu.txt
    python benchmarks/train_throughput.py --device cuda --steps 100 --processes 4      # not yet measured: no GPU so far
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import Output, parser, spread
from plain_loop import PlainLoop
from torch import Tensor, multiprocessing, nn
from usual_layers import usual

import nas
from nas.blocks.layers import CondConv2d, channels_last_, use_training_variants
from nas.training import loop
from nas.training.augment import Draws, Normaliser, draw_epoch, prepare
from nas.training.cpu import keep_freed_memory
from nas.training.data import Dataset, Images, load_dataset
from nas.training.loop import Trainer
from nas.training.optimizer import build_optimizer
from nas.training.precision import autocast_dtype, disable_inplace_relu, mixed_precision
from nas.training.recipe import RECIPES, Recipe

FIRST = ("han-e", "mobilenetv2-cifar")
PATIENCE = 1800  # seconds for one round


class Steps(Trainer):
    """Our training, without what an epoch of a few steps has too much of."""

    def _recalibrate(self, draws: Draws) -> None:
        pass


class InPlace:
    """Our step without a data path: the same normalised batch over and over."""

    def __init__(self, network: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
        self.network = channels_last_(network.to(dataset.device)).train()
        use_training_variants(self.network)
        self.optimizer = build_optimizer(self.network, recipe)
        part = dataset.train.take(torch.arange(recipe.batch_size, device=dataset.device))
        self.batch = Normaliser(dataset.mean, dataset.std, dataset.device)(part.images)
        self.labels = part.labels
        self.dtype = autocast_dtype(recipe.precision, dataset.device, dataset.resolution)
        if self.dtype is not None and dataset.device.type == "cpu":
            disable_inplace_relu(self.network)

    def run(self, steps: int) -> float:
        """Images per second."""
        started = time.perf_counter()
        for _ in range(steps):
            with mixed_precision(self.batch.device, self.dtype):
                logits = self.network(self.batch)
            loss = F.cross_entropy(logits.float(), self.labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        loss.item()
        return steps * len(self.labels) / (time.perf_counter() - started)


Run = Callable[[], float]
"""One round: images per second."""


def start(name: str, network: nn.Module, dataset: Dataset, recipe: Recipe, workers: int) -> Run:
    """A contestant, ready to train one network."""
    steps = len(dataset.train) // recipe.batch_size
    if name == "in place":
        in_place = InPlace(network, dataset, recipe)
        return lambda: in_place.run(steps)
    if name == "plain":
        plain = PlainLoop(usual(network), dataset, recipe, device=str(dataset.device), workers=workers)

        def run() -> float:
            started = time.perf_counter()
            plain.run_epoch()
            return steps * recipe.batch_size / (time.perf_counter() - started)

        return run
    if name == "no timing":
        loop.kernels_chosen_by_time = nullcontext
    trainer = Steps(network, dataset, recipe, graph=name != "no graph")
    return lambda: trainer.run_epoch().images_per_second


def serve(
    name: str, connection: Connection, dataset: Dataset, recipe: Recipe, device: str, threads: int, workers: int
) -> None:
    """A contestant's process: is told a document, or to run a round, until there is nothing more."""
    torch.set_num_threads(threads)
    if name != "plain" and device == "cpu":
        keep_freed_memory()
    data = dataset.for_network(dataset.channels, dataset.resolution, device)
    run: Run | None = None
    while (told := connection.recv()) is not None:
        if told == "run":
            assert run is not None
            connection.send(run())
        else:
            run = None
            run = start(name, build(nas.Architecture.from_dict(told), len(data.classes)), data, recipe, workers)
            connection.send(True)


@dataclass(frozen=True)
class Contestant:
    """Another process, which trains in one way."""

    name: str
    connection: Connection
    process: Any

    @classmethod
    def begin(cls, name: str, *given: Any) -> Contestant:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        # not a daemon, which could not have the workers of a DataLoader
        process = context.Process(target=serve, args=(name, there, *given))
        process.start()
        return cls(name, here, process)

    def ask(self, what: Any) -> Any:
        self.connection.send(what)
        return self.answer()

    def answer(self) -> Any:
        if not self.connection.poll(PATIENCE):
            raise TimeoutError(f"{self.name}: no answer for {PATIENCE} s")
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def networks(count: int, seed: int, resolution: int) -> list[nas.Architecture]:
    space = nas.load_space("inverted_residual")
    sampled = [space.sample(seed + index) for index in range(max(0, count - len(FIRST)))]
    chosen = [*(nas.load(name) for name in FIRST), *sampled][:count]
    return [architecture.with_input(channels=3, resolution=resolution) for architecture in chosen]


def short_name(architecture: nas.Architecture) -> str:
    return architecture.name if architecture.name in FIRST else architecture.id


def build(architecture: nas.Architecture, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nas.build(architecture, classes)


@dataclass(frozen=True)
class Figures:
    """Of one network: images per second by contestant, a value per round; `first` is that of the round not counted."""

    rates: dict[str, list[float]]
    first: dict[str, float]

    def ratio(self, one: str, other: str) -> float:
        return statistics.median(self.rates[one]) / statistics.median(self.rates[other])


def measure(architecture: nas.Architecture, contestants: list[Contestant], rounds: int) -> Figures:
    for contestant in contestants:
        contestant.ask(architecture.to_dict())
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for _ in range(rounds + 1):
        for contestant in contestants:
            value = contestant.ask("run")
            rates[contestant.name].append(value)
    first = {name: values.pop(0) for name, values in rates.items()}
    return Figures(rates, first)


def data_path_rates(dataset: Dataset, recipe: Recipe, rounds: int) -> list[float]:
    """Images per second of fetching batches, augmenting and normalising them, alone."""
    steps = len(dataset.train) // recipe.batch_size
    augmentation = recipe.augmentation(resolution=dataset.resolution, flip_safe=dataset.flip_safe)
    normalise = Normaliser(dataset.mean, dataset.std, dataset.device)
    rates = []
    for index in range(rounds + 1):
        started = time.perf_counter()
        draws = draw_epoch(
            augmentation,
            count=len(dataset.train),
            steps=steps,
            batch=recipe.batch_size,
            resolution=dataset.resolution,
            epoch=index,
            first_flips=torch.zeros(len(dataset.train), dtype=torch.bool),
            generator=torch.Generator().manual_seed(index),
        ).to(dataset.device)
        for step in range(steps):
            of_step = draws.step(step)
            batch = prepare(dataset.train.images[of_step.order], augmentation, of_step, normalise)
        batch[0, 0, 0, 0].item()  # the device is done
        if index:
            rates.append(steps * recipe.batch_size / (time.perf_counter() - started))
    return rates


def bytes_per_image(architecture: nas.Architecture, precision: int) -> int:
    """Bytes that a training step moves for one image if each convolution reads and writes its images once in each pass:
    forward input and output, backward the output's gradient, the input, and the input's gradient.
    """
    side = architecture.input.resolution
    with torch.device("meta"):
        network = nas.build(architecture, 10).eval()
        image = torch.empty(1, architecture.input.channels, side, side)
    moved = 0

    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += 3 * inputs[0].numel() + 2 * output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | CondConv2d):
            module.register_forward_hook(add)
    network(image)
    return moved * precision


def bandwidth(device: torch.device, size: int = 2**30) -> float:
    """Bytes per second read and written by a copy of `size` bytes, the best of 10."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(10):
        target.copy_(source)
        target[:1].item()
        started = time.perf_counter()
        target.copy_(source)
        target[:1].item()
        seconds.append(time.perf_counter() - started)
    return 2 * source.numel() / min(seconds)


def measure_together(architecture: nas.Architecture, contestants: list[Contestant], rounds: int) -> list[float]:
    """Images per second of several trainings of a network at once: a value per round, the sum over the processes."""
    for contestant in contestants:
        contestant.ask(architecture.to_dict())
    totals = []
    for _ in range(rounds + 1):
        for contestant in contestants:
            contestant.connection.send("run")
        totals.append(sum(contestant.answer() for contestant in contestants))
    return totals[1:]


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--networks", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=3, help="batches per round")
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--resolution", type=int, default=32)
    arguments.add_argument("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    arguments.add_argument("--processes", type=int, default=1, help="also so many trainings of each network at once")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--dataset", default="digits", help="any: speed does not depend on what an image shows")
    arguments.add_argument("--data-dir", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    output = Output(given.out)

    count = given.steps * given.batch
    recipe = replace(RECIPES["search"].with_epochs(given.rounds + 1), batch_size=given.batch, flip="alternating")
    whole = load_dataset(given.dataset, data_dir=given.data_dir).for_network(3, given.resolution, "cpu")
    few = Images(whole.validation.images[:2], whole.validation.labels[:2])  # validation is not what is measured
    train = whole.train.take(torch.arange(count) % len(whole.train))
    dataset = replace(whole, train=train, validation=few, test=few, flip_safe=True)
    here = dataset.for_network(3, given.resolution, given.device)
    gpu = here.device.type == "cuda"

    output(
        f"images/s of training at {given.resolution}x{given.resolution}, batch {given.batch}, {given.threads} threads, "
        f"DataLoader with {given.workers} workers; n = {given.rounds} rounds of {given.steps} steps, median [spread]"
    )
    data_rates = data_path_rates(here, recipe, 3 * given.rounds)
    output(f"data path alone: {spread(data_rates, ',.0f')} images/s")
    names = ["ours", "plain", "in place", *(["no graph", "no timing"] if gpu else [])]
    columns = "".join(f"{name:>22}" for name in names)
    output(f"{'network':28}{'MACs':>8}{columns}{'ours/plain':>12}{'ours/place':>12}{'data path':>11}")
    precision = 2 if autocast_dtype(recipe.precision, here.device, here.resolution) else 4
    speed = bandwidth(here.device) if gpu else math.nan
    chosen = networks(given.networks, given.seed, given.resolution)
    told = (dataset, recipe, given.device, given.threads, given.workers)
    contestants = [Contestant.begin(name, *told) for name in names]
    every: list[Figures] = []
    for architecture in chosen:
        figures = measure(architecture, contestants, given.rounds)
        every.append(figures)
        columns = "".join(f"{spread(figures.rates[which], '.0f'):>22}" for which in names)
        macs = f"{nas.cost(architecture).macs / 1e6:.0f}M"
        share = statistics.median(figures.rates["ours"]) / statistics.median(data_rates)
        line = f"{short_name(architecture):28}{macs:>8}{columns}{figures.ratio('ours', 'plain'):>12.2f}"
        line += f"{figures.ratio('ours', 'in place'):>12.2f}{share:>11.1%}"
        if gpu:
            line += f"  memory's limit {speed / bytes_per_image(architecture, precision):,.0f}"
        output(line)
    for contestant in contestants:
        contestant.end()
    ratios = [figures.ratio("ours", "plain") for figures in every]
    output(
        f"geometric mean over {len(ratios)} networks: ours / plain {geometric_mean(ratios):.2f} "
        f"(least {min(ratios):.2f}, most {max(ratios):.2f}); ours / data in place "
        f"{geometric_mean([figures.ratio('ours', 'in place') for figures in every]):.2f}"
    )
    if gpu:
        gains = [figures.ratio("ours", "no graph") for figures in every]
        output(f"ours / no graph {geometric_mean(gains):.2f} (least {min(gains):.2f}, most {max(gains):.2f})")
    if given.processes > 1:
        output(f"{given.processes} trainings at once, images/s in all, and against one plain loop:")
        gains = []
        crowd = [Contestant.begin("ours", *told) for _ in range(given.processes)]
        for architecture, figures in zip(chosen, every, strict=True):
            rates = measure_together(architecture, crowd, given.rounds)
            gains.append(statistics.median(rates) / statistics.median(figures.rates["plain"]))
            output(f"{short_name(architecture):28}{spread(rates, '.0f'):>22}{gains[-1]:>12.2f}")
        for contestant in crowd:
            contestant.end()
        output(f"geometric mean over {len(gains)} networks: {geometric_mean(gains):.2f} (least {min(gains):.2f})")


if __name__ == "__main__":
    main()
