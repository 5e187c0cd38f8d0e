"""Does our faster training cost accuracy? Ours against the plain loop on the same networks, images, recipe and epochs.

Ours: batched augmentation with alternating flip, channels_last, bf16 where `auto` chooses it, no decay on normalisation
and biases. Plain: torchvision's transforms with random flip, fp32, NCHW, decay on everything. Test accuracy in fp32 for
both. Passed when ours is not below plain by more than plain's own spread (its largest minus its smallest value).

    python benchmarks/accuracy_parity.py --data-dir DIR --train-size 5000 --epochs 6      # CPU, a subset
    python benchmarks/accuracy_parity.py --data-dir DIR --device cuda --epochs 30         # not yet measured: no GPU
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from machine import Output, parser
from plain_loop import PlainLoop

import nas
from nas.training.data import Images, load_dataset
from nas.training.evaluate import evaluate
from nas.training.loop import Trainer, channels_last_
from nas.training.recipe import load_recipe


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--networks", nargs="+", default=["han-e", "mobilenetv2-cifar"])
    arguments.add_argument("--dataset", default="cifar10")
    arguments.add_argument("--data-dir", type=Path)
    arguments.add_argument("--train-size", type=int)
    arguments.add_argument("--test-size", type=int, help="use the first so many test images only")
    arguments.add_argument("--recipe", default="search")
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    output = Output(given.out)

    dataset = load_dataset(given.dataset, data_dir=given.data_dir, train_size=given.train_size)
    recipe = load_recipe(given.recipe).with_epochs(given.epochs)
    if given.test_size:
        test = Images(dataset.test.images[: given.test_size], dataset.test.labels[: given.test_size])
        dataset = replace(dataset, test=test)
    output(
        f"{given.dataset}: {len(dataset.train)} training and {len(dataset.test)} test images, recipe {given.recipe}, "
        f"{given.epochs} epochs, n = {given.seeds} seeds; test accuracy in %"
    )
    for name in given.networks:
        architecture = nas.load(name)
        data = dataset.for_network(architecture.input.channels, architecture.input.resolution, given.device)
        accuracies: dict[str, list[float]] = {"ours": [], "plain": []}
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        for seed in range(given.seeds):
            for side in ("ours", "plain"):
                torch.manual_seed(seed)
                network = architecture.build(len(data.classes))
                started = time.perf_counter()
                if side == "ours":
                    unread = replace(data, validation=data.test.take(torch.arange(2, device=data.device)))
                    for _ in Trainer(network, unread, recipe, seed=seed).epochs():
                        pass
                else:
                    loop = PlainLoop(network, data, recipe, device=given.device, workers=given.workers, seed=seed)
                    for _ in range(recipe.epochs):
                        loop.run_epoch()
                    channels_last_(network)  # only to evaluate faster
                seconds[side].append(time.perf_counter() - started)
                accuracies[side].append(100 * evaluate(network, data, "test").accuracy)
        ours, plain = accuracies["ours"], accuracies["plain"]
        allowed = max(plain) - min(plain)
        verdict = "passed" if statistics.fmean(ours) >= statistics.fmean(plain) - allowed else "FAILED"
        for side, values in accuracies.items():
            listed = ", ".join(f"{value:.1f}" for value in values)
            mean, deviation = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            took = statistics.median(seconds[side])
            output(f"{name:20}{side:6} mean {mean:.2f}, deviation {deviation:.2f} ({listed}); {took:.0f} s per run")
        difference = statistics.fmean(ours) - statistics.fmean(plain)
        output(f"{name:20}ours - plain {difference:+.2f} points, plain's spread {allowed:.2f}: {verdict}")


if __name__ == "__main__":
    main()
