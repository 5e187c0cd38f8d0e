"""Seconds until MobileNetV2-CIFAR reaches an accuracy on CIFAR-10's test set.

Counted is everything from an untrained network on: training, and testing after every epoch. Reading the data set and
building the network are not. All training images that are not test images are trained on. Repeated with several seeds;
a run that does not reach the mark counts as such. What the usual recipe of 200 epochs reaches is 94.4%.

    python benchmarks/time_to_accuracy.py --data-dir DIR --device cuda --seeds 5    # not yet measured: no GPU so far
    python benchmarks/time_to_accuracy.py --data-dir DIR --mark 0.45 --train-size 5000 --test-size 2000 --epochs 6 \\
        --batch 128 --lr 0.2                                                         # short form, CPU
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from machine import Output, parser, spread

import nas
from nas.training.data import Dataset, Images, load_dataset
from nas.training.loop import Trainer
from nas.training.recipe import Recipe

# After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (alternating flip, one cycle, label
# smoothing, large batches); the learning rate grows with the batch. Proposed, not yet tuned on a GPU.
FAST = Recipe(
    optimizer="nag",
    lr=0.6,
    schedule="one_cycle",
    warmup_epochs=9,
    epochs=45,
    batch_size=768,
    weight_decay=5e-4,
    label_smoothing=0.1,
    precision="auto",
    pad=4,
    pad_mode="reflect",
    flip="alternating",
)


def judged_by_tests(dataset: Dataset, *, keep_validation: bool, test_size: int | None = None) -> Dataset:
    """The data set, validating on its test images; unless validation images are kept, they are trained on too."""
    train = dataset.train
    if not keep_validation:  # nothing is chosen by validation here
        parts = (dataset.train, dataset.validation)
        train = Images(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    return replace(
        dataset, train=train, validation=Images(dataset.test.images[:test_size], dataset.test.labels[:test_size])
    )


def progress(
    architecture: nas.Architecture, dataset: Dataset, recipe: Recipe, seed: int
) -> Iterator[tuple[float, float]]:
    """Train a fresh network; seconds so far and the accuracy, after every epoch."""
    torch.manual_seed(seed)
    network = nas.build(architecture, len(dataset.classes))
    started = time.perf_counter()
    for epoch in Trainer(network, dataset, recipe, seed=seed).epochs():
        yield time.perf_counter() - started, epoch.validation_accuracy


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--network", default="mobilenetv2-cifar")
    arguments.add_argument("--data-dir", type=Path)
    arguments.add_argument("--mark", type=float, default=0.94, help="accuracy on the test images, in [0, 1]")
    arguments.add_argument("--train-size", type=int)
    arguments.add_argument("--test-size", type=int, help="the first so many test images only")
    arguments.add_argument("--epochs", type=int, default=FAST.epochs)
    arguments.add_argument("--batch", type=int, default=FAST.batch_size)
    arguments.add_argument("--lr", type=float, default=FAST.lr)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    output = Output(given.out)

    recipe = replace(FAST.with_epochs(given.epochs), batch_size=given.batch, lr=given.lr)
    architecture = nas.load(given.network)
    dataset = load_dataset("cifar10", data_dir=given.data_dir, train_size=given.train_size)
    dataset = dataset.for_network(architecture.input.channels, architecture.input.resolution, given.device)
    dataset = judged_by_tests(dataset, keep_validation=given.train_size is not None, test_size=given.test_size)

    output(
        f"{given.network}: {len(dataset.train)} training and {len(dataset.validation)} test images, {recipe.epochs} "
        f"epochs of batch {recipe.batch_size}, learning rate {recipe.lr:g}, mark {given.mark:.1%}"
    )
    reached: list[float] = []
    for seed in range(given.seeds):
        curve = list(progress(architecture, dataset, recipe, seed))
        first = next((index for index, (_, accuracy) in enumerate(curve) if accuracy >= given.mark), None)
        outcome = "not reached" if first is None else f"reached after {curve[first][0]:.1f} s, in epoch {first + 1}"
        output(f"seed {seed}: {outcome}; in the end {curve[-1][1]:.2%} after {curve[-1][0]:.1f} s")
        if first is not None:
            reached.append(curve[first][0])
    if reached:
        output(f"seconds to {given.mark:.1%}: {spread(reached, '.1f')}, n = {len(reached)} of {given.seeds} seeds")
        output(f"mean {statistics.fmean(reached):.1f} s")
    else:
        output(f"{given.mark:.1%} was not reached, n = {given.seeds} seeds")


if __name__ == "__main__":
    main()
