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
from dataclasses import replace
from pathlib import Path

import torch
from machine import Output, parser, spread

import nas
from nas.training.data import Images, load_dataset
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
    train = dataset.train
    if given.train_size is None:  # nothing is chosen by validation here
        parts = (dataset.train, dataset.validation)
        train = Images(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    test = Images(dataset.test.images[: given.test_size], dataset.test.labels[: given.test_size])
    dataset = replace(dataset, train=train, validation=test)

    output(
        f"{given.network}: {len(train)} training and {len(test)} test images, {recipe.epochs} epochs of batch "
        f"{recipe.batch_size}, learning rate {recipe.lr:g}, mark {given.mark:.1%}"
    )
    reached: list[float] = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        network = architecture.build(len(dataset.classes))
        started = time.perf_counter()
        trainer = Trainer(network, dataset, recipe, seed=seed)
        seconds = None
        for epoch in trainer.epochs():
            if seconds is None and epoch.validation_accuracy >= given.mark:
                seconds, at = time.perf_counter() - started, epoch.epoch
        whole = time.perf_counter() - started
        outcome = "not reached" if seconds is None else f"reached after {seconds:.1f} s, in epoch {at}"
        output(f"seed {seed}: {outcome}; in the end {trainer.accuracy:.2%} after {whole:.1f} s")
        if seconds is not None:
            reached.append(seconds)
    if reached:
        output(f"seconds to {given.mark:.1%}: {spread(reached, '.1f')}, n = {len(reached)} of {given.seeds} seeds")
        output(f"mean {statistics.fmean(reached):.1f} s")
    else:
        output(f"{given.mark:.1%} was not reached, n = {given.seeds} seeds")


if __name__ == "__main__":
    main()
