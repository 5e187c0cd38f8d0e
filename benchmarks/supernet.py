"""How well a supernet ranks networks that are trained alone, beside cheaper guesses.

24 members of a space, drawn evenly over the logarithm of MACs, each trained alone from fresh weights with two seeds and
judged by the test images: the mean is its true accuracy. Guessed by

- `supernet`: one training of all networks; BatchNorm recalibrated, validation images.
- `short`: one short training each, as many epochs as the supernet's seconds pay for (at least one).
- `params`, `macs`: more is better.
- `gradient norm`: of one batch at fresh weights (a zero-cost proxy; Abdelfattah et al. 2021).

Kendall's tau-b and Spearman's rho, over all members and within halves of like cost; seconds of one core.
Rows go to ``FOLDER/rows.jsonl`` at once, and a second call goes on.

    python benchmarks/supernet.py FOLDER --data-dir DIR --space micro --images 5000
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau, spearmanr

import nas
from nas.network.build import build
from nas.training.augment import Normaliser
from nas.training.data import Dataset, load_dataset
from nas.training.loop import Trainer
from nas.training.members import Members
from nas.training.recipe import RECIPES
from nas.training.supernet import SupernetTrainer, TrainedSupernet

MEMBERS, SEEDS = 24, 2


def train_alone(network: nas.Architecture, data: Dataset, epochs: int, seed: int) -> tuple[float, float, float]:
    """Train from fresh weights: validation and test accuracy, seconds."""
    started = time.process_time()
    torch.manual_seed(seed)
    images = data.for_network(data.channels, network.input.resolution, "cpu")
    recipe = RECIPES["search"].for_images(len(images.train), epochs=epochs)
    trainer = Trainer(build(network, len(data.classes)), images, recipe, seed=seed)
    *_, last = trainer.epochs()
    seconds = time.process_time() - started
    return last.validation_accuracy, trainer.evaluate("test").accuracy, seconds


def gradient_norm(network: nas.Architecture, data: Dataset) -> float:
    torch.manual_seed(0)
    images = data.for_network(data.channels, network.input.resolution, "cpu")
    fresh = build(network, len(data.classes)).train()
    batch = Normaliser(images.mean, images.std, images.device)(images.train.images[:128])
    F.cross_entropy(fresh(batch), images.train.labels[:128]).backward()
    return float(torch.stack([p.grad.norm() for p in fresh.parameters() if p.grad is not None]).sum())


def measure(options: argparse.Namespace, known: dict[str, Any], note: Callable[[str, Any], None]) -> None:
    data = load_dataset("cifar10", data_dir=options.data_dir, resolution=options.resolution, train_size=options.images)
    space = nas.load_space(options.space).with_input(channels=3, resolution=options.resolution)
    recipe = RECIPES["search"].for_images(len(data.train), epochs=options.supernet_epochs)
    images = data.for_network(3, options.resolution, "cpu")
    trainer = SupernetTrainer(space, images, recipe, seed=0)
    rng = np.random.default_rng(0)
    drawn = Members(space)
    members = [drawn.draw(rng) for _ in range(options.members)]
    if "supernet" not in known:
        started = time.process_time()
        for epoch in trainer.epochs():
            print(f"supernet: epoch {epoch.epoch}, largest {100 * epoch.validation_accuracy:.1f} %", flush=True)
        seconds = time.process_time() - started
        trained = TrainedSupernet(trainer.supernet, data)
        started = time.process_time()
        judged = [trained.judge(member).accuracy for member in members]
        note("supernet", {"seconds": seconds, "judged": judged, "seconds_judging": time.process_time() - started})
    for seed in range(SEEDS):
        for number, member in enumerate(members):
            if (name := f"alone {seed} {number}") not in known:
                _, accuracy, seconds = train_alone(member, data, options.epochs, 1 + seed)
                counts = nas.cost(member, 10)
                row = {"accuracy": accuracy, "seconds": seconds, "params": counts.params, "macs": counts.macs}
                note(name, row)
    alone = sum(known[f"alone 0 {number}"]["seconds"] for number in range(len(members)))
    short = max(1, round(options.epochs * known["supernet"]["seconds"] / alone))
    for number, member in enumerate(members):
        if (name := f"short {number}") not in known:
            accuracy, _, seconds = train_alone(member, replace(data, test=data.validation), short, 7)
            note(name, {"accuracy": accuracy, "seconds": seconds, "gradient": gradient_norm(member, data)})


def judge(known: dict[str, Any], members: int, say: machine.Output) -> None:
    rows = [[known[f"alone {seed} {number}"] for number in range(members)] for seed in range(SEEDS)]
    truth = np.mean([[row["accuracy"] for row in each] for each in rows], axis=0)
    macs = np.array([row["macs"] for row in rows[0]])
    short = [known[f"short {number}"] for number in range(members)]
    guesses = {
        "supernet": known["supernet"]["judged"],
        "short": [row["accuracy"] for row in short],
        "params": [row["params"] for row in rows[0]],
        "macs": macs,
        "gradient norm": [row["gradient"] for row in short],
        "the other seed": [row["accuracy"] for row in rows[1]],
    }
    small = macs <= np.median(macs)
    alone = sum(row["seconds"] for row in rows[0])
    one = alone / members
    say(f"{members} members, alone {100 * truth.min():.1f} to {100 * truth.max():.1f} %, {one:.0f} s each")
    say(
        f"supernet: {known['supernet']['seconds']:.0f} s, {known['supernet']['seconds'] / one:.1f} trainings; a member "
        f"is judged in {known['supernet']['seconds_judging'] / members:.1f} s; short: "
        f"{sum(row['seconds'] for row in short) / one:.1f} trainings"
    )
    say(f"{'guess':16}{'Kendall':>9}{'Spearman':>10}{'small half':>12}{'large half':>12}   (Kendall)")
    for name, guess in guesses.items():
        values = np.asarray(guess)
        true = np.array([row["accuracy"] for row in rows[0]]) if name == "the other seed" else truth
        halves = [kendalltau(values[half], true[half]).statistic for half in (small, ~small)]
        say(
            f"{name:16}{kendalltau(values, true).statistic:>9.2f}{spearmanr(values, true).statistic:>10.2f}"
            f"{halves[0]:>12.2f}{halves[1]:>12.2f}"
        )


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default="micro")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--supernet-epochs", type=int, default=6)
    parser.add_argument("--members", type=int, default=MEMBERS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "rows.jsonl"
    known = dict(json.loads(line) for line in file.read_text().splitlines()) if file.exists() else {}

    def note(name: str, row: Any) -> None:
        known[name] = row
        with file.open("a") as out:
            out.write(json.dumps([name, row]) + "\n")

    measure(options, known, note)
    judge(known, options.members, machine.Output(options.out))


if __name__ == "__main__":
    main()
