"""Images per second of training: ours, the plain loop, and ours with the data already in place.

The same networks (sampled with a fixed seed from `inverted_residual`, MobileNetV2-CIFAR and E among them) on the same
images, the three interleaved in every round, so that a change of the machine's speed meets all of them. A round is one
epoch of `--steps` batches; the plain loop's worker processes live on between its epochs. The first round warms up and
is not counted.

    python benchmarks/train_throughput.py --out results/benchmarks/train_throughput-cpu.txt
    python benchmarks/train_throughput.py --device cuda --steps 100      # not yet measured: no GPU at hand so far
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import Output, parser, spread
from plain_loop import PlainLoop
from torch import nn

import nas
from nas.training.augment import Normaliser
from nas.training.data import Dataset, Images, load_dataset
from nas.training.loop import Trainer, channels_last_
from nas.training.optimizer import build_optimizer
from nas.training.precision import autocast_dtype, mixed_precision
from nas.training.recipe import RECIPES, Recipe

FIRST = ("han-e", "mobilenetv2-cifar")


class InPlace:
    """Our step without a data path: the same normalised batch over and over."""

    def __init__(self, network: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
        self.network = channels_last_(network.to(dataset.device)).train()
        self.optimizer = build_optimizer(self.network, recipe)
        part = dataset.train.take(torch.arange(recipe.batch_size, device=dataset.device))
        self.batch = Normaliser(dataset.mean, dataset.std, dataset.device)(part.images)
        self.labels = part.labels
        self.dtype = autocast_dtype(recipe.precision, dataset.device, dataset.resolution)

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


def networks(count: int, seed: int, resolution: int) -> list[nas.Architecture]:
    space = nas.load_space("inverted_residual")
    sampled = [space.sample(seed + index) for index in range(max(0, count - len(FIRST)))]
    chosen = [*(nas.load(name) for name in FIRST), *sampled][:count]
    return [architecture.with_input(channels=3, resolution=resolution) for architecture in chosen]


def measure(
    architecture: nas.Architecture, dataset: Dataset, recipe: Recipe, rounds: int, workers: int
) -> dict[str, list[float]]:
    """Images per second, a value per round, of ours, plain and in place."""
    steps = len(dataset.train) // recipe.batch_size
    built = []
    for _ in range(3):
        torch.manual_seed(0)
        built.append(architecture.build(len(dataset.classes)))
    ours = Trainer(built[0], dataset, recipe)
    plain = PlainLoop(built[1], dataset, recipe, device=str(dataset.device), workers=workers)
    in_place = InPlace(built[2], dataset, recipe)
    figures: dict[str, list[float]] = {"ours": [], "plain": [], "in place": []}
    for index in range(rounds + 1):
        values = {"ours": ours.run_epoch().images_per_second}
        started = time.perf_counter()
        plain.run_epoch()
        values["plain"] = steps * recipe.batch_size / (time.perf_counter() - started)
        values["in place"] = in_place.run(steps)
        if index:
            for name, value in values.items():
                figures[name].append(value)
    return figures


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--networks", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=4, help="batches per round")
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--resolution", type=int, default=32)
    arguments.add_argument("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--dataset", default="digits", help="any: speed does not depend on what an image shows")
    arguments.add_argument("--data-dir", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    output = Output(given.out)

    count = given.steps * given.batch
    recipe = replace(RECIPES["search"], epochs=given.rounds + 1, batch_size=given.batch, flip="alternating")
    whole = load_dataset(given.dataset, data_dir=given.data_dir).for_network(3, given.resolution, given.device)
    indices = torch.arange(count, device=whole.device) % len(whole.train)
    few = Images(whole.validation.images[:2], whole.validation.labels[:2])  # validation is not what is measured
    dataset = replace(whole, train=whole.train.take(indices), validation=few, flip_safe=True)

    output(
        f"images/s of training at {given.resolution}x{given.resolution}, batch {given.batch}, {given.threads} threads, "
        f"DataLoader with {given.workers} workers; n = {given.rounds} rounds of {given.steps} steps, median [spread]"
    )
    output(f"{'network':28}{'MACs':>8}{'ours':>22}{'plain':>22}{'in place':>22}{'ours/plain':>12}{'ours/place':>12}")
    ratios, place_ratios = [], []
    for architecture in networks(given.networks, given.seed, given.resolution):
        figures = measure(architecture, dataset, recipe, given.rounds, given.workers)
        medians = {name: statistics.median(values) for name, values in figures.items()}
        ratios.append(medians["ours"] / medians["plain"])
        place_ratios.append(medians["ours"] / medians["in place"])
        name = architecture.name if architecture.name in FIRST else architecture.id
        columns = "".join(f"{spread(figures[which], '.0f'):>22}" for which in ("ours", "plain", "in place"))
        macs = f"{nas.cost(architecture).macs / 1e6:.0f}M"
        output(f"{name:28}{macs:>8}{columns}{ratios[-1]:>12.2f}{place_ratios[-1]:>12.2f}")
    output(
        f"geometric mean over {len(ratios)} networks: ours / plain {geometric_mean(ratios):.2f} "
        f"(least {min(ratios):.2f}, most {max(ratios):.2f}); ours / data in place {geometric_mean(place_ratios):.2f}"
    )


if __name__ == "__main__":
    main()
