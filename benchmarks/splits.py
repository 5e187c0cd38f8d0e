"""Which validation split picks the better network when there are few images?

`record` trains small networks of the default space on 500 images of CIFAR-10, drawn again for each seed, in 16x16
pixels (one core affords no more), and keeps the accuracies in a file of JSON lines; where that has some already, it
goes on. For each network and seed:

- `fixed`: trained on 425 images; the other 75, the same for all networks, judge it.
- `resplit`: likewise, but the 75 are drawn for each network.
- `folds`: three trainings of a third of the steps, each on two thirds of the images, each judged by the other third.

5,000 of the 59,500 other images judge the networks of `fixed` and `resplit` as well. The mean over both and over the
other seeds is a network's true accuracy: no training that a rule sees is among those that it is judged by.

`judge` lets each rule pick its best network by the accuracy after the last epoch (a tie is drawn). Regret is the
highest true accuracy less that of the network picked. A pair is judged well where the truly better one has the higher
accuracy (a tie counts half). In brackets: one standard error over seeds, which share networks.

    python benchmarks/splits.py record results/benchmarks/splits.jsonl --data-dir DIR
    python benchmarks/splits.py judge results/benchmarks/splits.jsonl
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from torch import Tensor

import nas
from nas.network.build import build
from nas.training.data import Dataset, load_dataset
from nas.training.images import Images, channel_statistics
from nas.training.loop import Trainer
from nas.training.recipe import RECIPES, Recipe
from nas.training.split import stratified_order

IMAGES, OTHERS, HELD_OUT, FOLDS = 500, 5_000, 75, 3
EPOCHS = {"fixed": 7, "resplit": 7, "folds": 3}
"""Of 26, 26 and 20 steps: 182 steps, and three times 60."""


def small_networks(count: int) -> list[nas.Architecture]:
    """Draw networks of the default space at its least width, with one kernel size per stage, neither squeeze and
    excitation nor conditional convolution: expansions, kernels and head differ.
    """
    space = nas.load_space("inverted_residual").with_input(channels=3, resolution=16)
    rng = np.random.default_rng(0)
    networks = []
    for index in range(count):
        drawn = space.sample_parameters(rng) | {"width": 0.25}
        for name, value in drawn.items():
            if name.endswith("kernels"):
                drawn[name] = "[3]" if value in ("[3]", "[3, 5]") else "[5]"
            elif name.endswith(("se_ratio", "experts")):
                drawn[name] = 0 if name.endswith("se_ratio") else 1
        networks.append(space.architecture(drawn, f"drawn-{index}"))
    return networks


def train_once(network: nas.Architecture, dataset: Dataset, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train from fresh weights: validation accuracy after each epoch, test accuracy after the last."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer = Trainer(build(network, len(dataset.classes)), dataset, recipe, seed=seed)
    curve = [epoch.validation_accuracy for epoch in trainer.epochs()]
    return {"curve": curve, "test": trainer.evaluate("test").accuracy if len(dataset.test) else None}


def train_all_ways(network: nas.Architecture, number: int, whole: Dataset, seed: int) -> dict[str, Any]:
    """Train one network on one seed's images by every rule; `whole` has all 60,000 as its training part."""
    order = stratified_order(whole.train.labels, seed=seed)
    images, others = whole.train.take(order[:IMAGES]), whole.train.take(order[IMAGES : IMAGES + OTHERS])
    own = 1000 * (seed + 1) + number

    def train(rule: str, validation: Tensor, train: Tensor, test: Images, of: int) -> dict[str, Any]:
        part = images.take(train)
        mean, std = channel_statistics(part.images)
        data = replace(whole, train=part, validation=images.take(validation), test=test, mean=mean, std=std)
        return train_once(network, data, RECIPES["search"].for_images(len(part), epochs=EPOCHS[rule]), of)

    def held_out(rule: str, split: int, of: int) -> dict[str, Any]:
        order = stratified_order(images.labels, seed=split)
        return train(rule, order[:HELD_OUT], order[HELD_OUT:], others, of)

    parts, fold = stratified_order(images.labels, seed=seed), torch.arange(IMAGES) % FOLDS
    nothing = others.take(torch.arange(0))
    folds = [train("folds", parts[fold == k], parts[fold != k], nothing, own + 200 + k * 100) for k in range(FOLDS)]
    return {
        "fixed": held_out("fixed", seed, own),
        "resplit": held_out("resplit", own, own + 100),
        "folds": {"curve": [statistics.fmean(epoch) for epoch in zip(*(each["curve"] for each in folds), strict=True)]},
    }


def record(path: Path, *, data_dir: str | None, networks: int, seeds: int) -> None:
    known = {(line["network"], line["seed"]) for line in read(path)} if path.exists() else set()
    torch.set_num_threads(1)
    data = load_dataset("cifar10", data_dir=data_dir, resolution=16)
    parts = (data.train, data.validation, data.test)
    everything = Images(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    whole = replace(data, train=everything)
    for (number, network), seed in itertools.product(enumerate(small_networks(networks)), range(seeds)):
        if (number, seed) in known:
            continue
        line = {"network": number, "id": network.id, "seed": seed, **train_all_ways(network, number, whole, seed)}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"network {number}, seed {seed}", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(lines: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines by seed and network, of the networks that every seed has."""
    by_place = {(line["seed"], line["network"]): line for line in lines}
    seeds, networks = ({place[axis] for place in by_place} for axis in (0, 1))
    whole = [network for network in sorted(networks) if all((seed, network) in by_place for seed in seeds)]
    return [[by_place[seed, network] for network in whole] for seed in sorted(seeds)]


def mean(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):5.1f} ({100 * statistics.stdev(values) / len(values) ** 0.5:.1f})"


def judge(path: Path) -> None:
    rows = table(read(path))
    tested = np.array([[[line[rule]["test"] for rule in ("fixed", "resplit")] for line in row] for row in rows])
    by_seed = tested.mean(axis=2)
    truth = by_seed.mean(axis=0)
    pairs = list(itertools.combinations(range(len(truth)), 2))
    print(
        f"{IMAGES} images of 16x16 pixels, {len(truth)} networks, {len(rows)} seeds; true accuracy from "
        f"{100 * truth.min():.1f} to {100 * truth.max():.1f}% (standard error of one: "
        f"{100 * (by_seed.std(axis=0, ddof=1) / len(rows) ** 0.5).mean():.1f})\n"
        "rule     regret, points  pairs judged well, %"
    )
    for rule in EPOCHS:
        regrets, well = [], []
        for seed, row in enumerate(rows):
            guess = np.array([line[rule]["curve"][-1] for line in row])
            others = np.delete(by_seed, seed, axis=0).mean(axis=0)
            regrets.append(float(others.max() - others[np.isclose(guess, guess.max())].mean()))
            signs = [np.sign(round(guess[i] - guess[j], 9)) * np.sign(others[i] - others[j]) for i, j in pairs]
            well.append(float(np.mean(signs)) / 2 + 0.5)
        print(f"{rule:<7}  {mean(regrets):<14}  {mean(well)}")
    print(
        f"(blind)  {100 * float(truth.max() - truth.mean()):5.1f}            50.0\n"
        "Left out: larger networks, images and budgets (`search` trains for 364 steps), early stopping, searches of "
        "more trials,\nobjectives other than accuracy, and the images that judge none."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "judge"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if given.action == "record":
        print(machine.describe(), flush=True)
        record(given.file, data_dir=given.data_dir, networks=given.networks, seeds=given.seeds)
    judge(given.file)


if __name__ == "__main__":
    main()
