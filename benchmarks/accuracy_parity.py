"""Does our training cost accuracy? Ours against the plain loop on the same networks, images and epochs.

`--part same`: both with the same recipe. Ours: batched augmentation with alternating flip, channels_last, bf16 where
`auto` chooses it, no decay on normalisation and biases. Plain: torchvision's transforms with random flip, fp32, NCHW,
decay on everything. Passed when ours is not below plain by more than plain's own spread (its largest minus its smallest
value).

`--part images`: what a user gets. Ours as `nas train` with each of `--recipes` trains on so many images, beside what
one writes first: batch 64, one cycle up to 0.1, reflected borders, no smoothing. Passed when ours is not below plain by
more than a standard error of the difference, paired by seed.

Test accuracy in fp32, after the last epoch, for all.

    python benchmarks/accuracy_parity.py --data-dir DIR --train-size 5000 --epochs 6                  # CPU, a subset
    python benchmarks/accuracy_parity.py --data-dir DIR --part images --networks small --classes 5 --epochs 40
    python benchmarks/accuracy_parity.py --data-dir DIR --device cuda --epochs 30      # not yet measured: no GPU
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import Output, parser
from plain_loop import PlainLoop
from torch import nn

import nas
from nas.blocks.layers import channels_last_
from nas.training.data import Dataset, Images, load_dataset
from nas.training.evaluate import evaluate
from nas.training.loop import Trainer
from nas.training.recipe import Recipe, load_recipe

PLAIN = Recipe(schedule="one_cycle", warmup_epochs=2, epochs=9, batch_size=64, pad_mode="reflect", precision="fp32")

SMALL: dict[str, Any] = {
    "name": "small",
    "input": {"channels": 3, "resolution": 32},
    "stem": {"channels": 8, "stride": 2},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": 1},
        {"block": "inverted_residual", "channels": 12, "repeats": 2, "stride": 2, "expansion": 3},
        {"block": "inverted_residual", "channels": 24, "repeats": 2, "stride": 2, "expansion": 3},
        {"block": "inverted_residual", "channels": 40, "expansion": 3},
    ],
    "head": {"channels": 128},
}
"""0.53 million MACs, for a CPU."""


def few_classes(dataset: Dataset, classes: int, *, train: int | None, test: int | None) -> Dataset:
    """The data set with its first classes alone, and at most so many images of them."""

    def cut(part: Images, most: int | None) -> Images:
        return part.take((part.labels < classes).nonzero().squeeze(1)[:most])

    return replace(
        dataset,
        classes=dataset.classes[:classes],
        train=cut(dataset.train, train),
        validation=cut(dataset.validation, None),
        test=cut(dataset.test, test),
    )


def train_ours(recipe: Recipe, data: Dataset, network: nn.Module, seed: int) -> nn.Module:
    """Train by our loop; nothing is validated."""
    unread = replace(data, validation=data.test.take(torch.arange(2, device=data.device)))
    trainer = Trainer(network, unread, recipe, seed=seed)
    for _ in trainer.epochs():
        pass
    return trainer.evaluated_network


def train_plain(recipe: Recipe, data: Dataset, workers: int, network: nn.Module, seed: int) -> nn.Module:
    """Train by the plain loop."""
    loop = PlainLoop(network, data, recipe, device=str(data.device), workers=workers, seed=seed)
    for _ in range(recipe.epochs):
        loop.run_epoch()
    return channels_last_(network)  # only to evaluate faster


def compare(
    output: Output,
    title: str,
    architecture: nas.Architecture,
    data: Dataset,
    sides: dict[str, Callable[[nn.Module, int], nn.Module]],
    seeds: int,
) -> dict[str, list[float]]:
    """Train a network with every seed on every side and print test accuracies in %; the last side is the plain one."""
    accuracies: dict[str, list[float]] = {side: [] for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for seed in range(seeds):
        for side, train in sides.items():
            torch.manual_seed(seed)
            started = time.perf_counter()
            network = train(nas.build(architecture, len(data.classes)), seed)
            seconds[side].append(time.perf_counter() - started)
            accuracies[side].append(100 * evaluate(network, data, "test").accuracy)
    for side, values in accuracies.items():
        listed = ", ".join(f"{value:.1f}" for value in values)
        mean, deviation = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        took = statistics.median(seconds[side])
        output(f"{title:20}{side:7} mean {mean:.2f}, deviation {deviation:.2f} ({listed}); {took:.0f} s per run")
    return accuracies


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--part", choices=("same", "images"), default="same")
    arguments.add_argument("--networks", nargs="+", default=["han-e", "mobilenetv2-cifar"], help="names, files, small")
    arguments.add_argument("--dataset", default="cifar10")
    arguments.add_argument("--data-dir", type=Path)
    arguments.add_argument("--classes", type=int, help="the first so many alone")
    arguments.add_argument("--resolution", type=int)
    arguments.add_argument("--train-size", type=int)
    arguments.add_argument("--images", type=int, nargs="+", default=[500, 1000, 5000], help="training images, in turn")
    arguments.add_argument("--test-size", type=int, help="use the first so many test images only")
    arguments.add_argument("--recipe", default="search", help="of the part same")
    arguments.add_argument("--recipes", nargs="+", default=["train", "search"], help="of the part images")
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    output = Output(given.out)

    dataset = load_dataset(given.dataset, data_dir=given.data_dir, train_size=given.train_size)
    sizes = given.images if given.part == "images" else [None]
    for name in given.networks:
        architecture = nas.Architecture.from_dict(SMALL) if name == "small" else nas.load(name)
        if given.resolution:
            architecture = architecture.with_input(channels=3, resolution=given.resolution)
        image = architecture.input
        for size in sizes:
            data = few_classes(dataset, given.classes or len(dataset.classes), train=size, test=given.test_size)
            data = data.for_network(image.channels, image.resolution, given.device)
            output(
                f"{given.dataset}: {len(data.train)} training and {len(data.test)} test images of {len(data.classes)} "
                f"classes at {image.resolution}x{image.resolution}, {given.epochs} epochs, n = {given.seeds} seeds; "
                "test accuracy in %"
            )

            if given.part == "same":
                reference = load_recipe(given.recipe).with_epochs(given.epochs)
                recipes = {"ours": reference}
            else:
                reference = PLAIN.with_epochs(given.epochs)
                recipes = {
                    recipe: load_recipe(recipe).for_images(len(data.train), epochs=given.epochs)
                    for recipe in given.recipes
                }
            sides = {side: functools.partial(train_ours, recipe, data) for side, recipe in recipes.items()}
            sides["plain"] = functools.partial(train_plain, reference, data, given.workers)
            for side, recipe in recipes.items():
                output(f"{name:20}{side:7} {recipe.budget(len(data.train))}, learning rate {recipe.lr:g}")
            batch = min(reference.batch_size, len(data.train))
            steps = len(data.train) // batch * reference.epochs
            output(f"{name:20}plain   batch {batch}, steps {steps:,}, learning rate {reference.lr:g}")
            accuracies = compare(output, name, architecture, data, sides, given.seeds)
            base = accuracies.pop("plain")
            for side, values in accuracies.items():
                differences = [own - other for own, other in zip(values, base, strict=True)]
                allowed, what = max(base) - min(base), "plain's spread"
                if given.part == "images":
                    allowed, what = statistics.stdev(differences) / math.sqrt(len(differences)), "a standard error"
                difference = statistics.fmean(differences)
                verdict = "passed" if difference >= -allowed else "FAILED"
                output(f"{name:20}{side} - plain {difference:+.2f} points, {what} {allowed:.2f}: {verdict}")


if __name__ == "__main__":
    main()
