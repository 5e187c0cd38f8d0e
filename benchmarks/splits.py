"""Which validation split picks the better network when there are few images?

`record` trains small networks of the default space on 500 images of CIFAR-10 (16x16 pixels, to be affordable), drawn
again for each seed, and keeps every training's accuracies in a file of JSON lines; where that has some already, it goes
on. For each seed and network:

- `fixed`: on 85% of the images; the other 15%, the same for all networks, judge it.
- `resplit`: likewise, but each network's split is drawn for itself.
- `folds`: three trainings of a third of the steps, each on two thirds; each judged by its other third.
- `all`: on all 500, judged by 10,000 images of the other 59,500: the truth that the three rules guess at.

`judge` lets each rule pick its best network, by the accuracy after the last epoch. The truth of a network is its mean
accuracy over the seeds. Regret is the best network's truth less that of the one picked; a pair is judged well where the
rule puts the truly better network first (a tie counts half). Intervals are one standard error over seeds.

    python benchmarks/splits.py record results/benchmarks/splits.jsonl --data-dir DIR
    python benchmarks/splits.py judge results/benchmarks/splits.jsonl
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from scipy import stats
from torch import Tensor

import nas
from nas.network.build import build
from nas.training.data import Dataset, load_dataset
from nas.training.images import Images
from nas.training.loop import Trainer
from nas.training.pixels import channel_statistics
from nas.training.recipe import RECIPES, steps_per_epoch
from nas.training.split import stratified_order

IMAGES, OTHERS, HELD_OUT, FOLDS = 500, 10_000, 75, 3
RULES = ("fixed", "resplit", "folds")
Cell = dict[str, list[float]]
"""By rule and `all`: the accuracy after each epoch, in [0, 1]."""


def small_networks(count: int) -> list[nas.Architecture]:
    """Draw networks of the default space, at its least width and without conditional convolution."""
    space = nas.load_space("inverted_residual").with_input(channels=3, resolution=16)
    rng = np.random.default_rng(0)
    networks = []
    for index in range(count):
        drawn = space.sample_parameters(rng)
        drawn |= {name: 1 for name in drawn if name.endswith("experts")} | {"width": 0.25}
        networks.append(space.architecture(drawn, f"drawn-{index}"))
    return networks


def accuracies(
    network: nas.Architecture, dataset: Dataset, steps: int, seed: int, *, last_only: bool = False
) -> list[float]:
    """Train with the recipe `search` for about so many steps; the accuracy after each epoch, or the last one's alone,
    on the test part.
    """
    recipe = RECIPES["search"].for_images(len(dataset.train))
    per_epoch, _ = steps_per_epoch(len(dataset.train), recipe.batch_size)
    recipe = RECIPES["search"].for_images(len(dataset.train), epochs=max(1, round(steps / per_epoch)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer = Trainer(build(network, len(dataset.classes)), dataset, recipe, seed=seed)
    epochs = [epoch.validation_accuracy for epoch in trainer.epochs()]
    return [trainer.evaluate("test").accuracy] if last_only else epochs


def cell(network: nas.Architecture, number: int, whole: Dataset, seed: int, steps: int) -> Cell:
    """Train one network in every way on one seed's images; `whole` holds all 60,000 as its training part."""
    order = stratified_order(whole.train.labels, seed=seed)
    images, others = whole.train.take(order[:IMAGES]), whole.train.take(order[IMAGES : IMAGES + OTHERS])

    def divided(validation: Tensor, train: Tensor) -> Dataset:
        return on(whole, images.take(train), images.take(validation))

    def drawn(split: int) -> Dataset:
        order = stratified_order(images.labels, seed=split)
        return divided(order[:HELD_OUT], order[HELD_OUT:])

    folds = stratified_order(images.labels, seed=seed)
    apart = torch.arange(IMAGES) % FOLDS
    own = 1000 * seed + number
    judged = [
        accuracies(network, divided(folds[apart == fold], folds[apart != fold]), steps // FOLDS, own)
        for fold in range(FOLDS)
    ]
    return {
        "fixed": accuracies(network, drawn(seed), steps, own),
        "resplit": accuracies(network, drawn(1_000_000 + own), steps, own),
        "folds": [statistics.fmean(epoch) for epoch in zip(*judged, strict=True)],
        # once at the end: 10,000 images take as long as an epoch
        "all": accuracies(
            network, replace(on(whole, images, others.take(torch.arange(2))), test=others), steps, own, last_only=True
        ),
    }


def on(whole: Dataset, train: Images, validation: Images) -> Dataset:
    mean, std = channel_statistics(train.images)
    return replace(whole, train=train, validation=validation, mean=mean, std=std)


def record(path: Path, *, data_dir: str | None, networks: int, seeds: int, steps: int) -> None:
    known = {(line["seed"], line["network"]) for line in read(path)} if path.exists() else set()
    torch.set_num_threads(1)
    data = load_dataset("cifar10", data_dir=data_dir, resolution=16)
    parts = (data.train, data.validation, data.test)
    everything = Images(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    whole = replace(data, train=everything)
    for seed, (number, network) in itertools.product(range(seeds), enumerate(small_networks(networks))):
        if (seed, number) in known:
            continue
        line = {"seed": seed, "network": number, "steps": steps, **cell(network, number, whole, seed, steps)}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"seed {seed}, network {number}", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def whole_seeds(lines: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The lines of each seed that has every network."""
    networks = {line["network"] for line in lines}
    for seed in sorted({line["seed"] for line in lines}):
        own = sorted((line for line in lines if line["seed"] == seed), key=lambda line: line["network"])
        if len(own) == len(networks):
            yield own


def mean(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{100 * statistics.fmean(values):5.1f} ({100 * error:.1f})"


def judge(path: Path) -> None:
    lines = read(path)
    seeds = list(whole_seeds(lines))
    truth = np.array([[line["all"][-1] for line in own] for own in seeds])
    quality = truth.mean(axis=0)
    pairs = list(itertools.combinations(range(len(quality)), 2))
    print(
        f"{IMAGES} images at 16x16, {len(quality)} networks, {len(seeds)} seeds, {lines[0]['steps']} steps in all; "
        f"truth {100 * quality.min():.1f} to {100 * quality.max():.1f}%, of one training +-"
        f"{100 * truth.std(axis=0, ddof=1).mean():.1f} (standard deviation over seeds)"
    )
    print("rule      regret, points    pairs judged well, %   rank correlation (x100)")
    for rule in RULES:
        guesses = np.array([[line[rule][-1] for line in own] for own in seeds])
        regrets, well, ranks = [], [], []
        for guess in guesses:
            picked = np.flatnonzero(guess == guess.max())  # a tie is drawn
            regrets.append(float(quality.max() - quality[picked].mean()))
            signs = [np.sign(guess[i] - guess[j]) * np.sign(quality[i] - quality[j]) for i, j in pairs]
            well.append(float(np.mean(signs)) / 2 + 0.5)
            ranks.append(float(stats.spearmanr(guess, quality).statistic))
        print(f"{rule:<8}  {mean(regrets):<16}  {mean(well):<21}  {mean(ranks)}")
    print(f"any       {100 * float(quality.max() - quality.mean()):5.1f}              50.0                     0.0")
    print(
        "Left out: larger networks, pixels and budgets (`search` takes 341 steps), early stopping, objectives other "
        "than accuracy, searches of more trials, and the 49,500 images that judge none."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "judge"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=180)
    given = parser.parse_args()
    if given.action == "record":
        print(machine.describe(), flush=True)
        record(given.file, data_dir=given.data_dir, networks=given.networks, seeds=given.seeds, steps=given.steps)
    judge(given.file)


if __name__ == "__main__":
    main()
