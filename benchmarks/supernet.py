"""How well a supernet ranks networks that are trained alone, beside cheaper guesses.

24 members of a space, drawn evenly over the logarithm of MACs, each trained alone from fresh weights with some seeds
and judged by the test images: the mean is its true accuracy. Guessed by

- `supernet`: one training of all networks; BatchNorm recalibrated, validation images. Then with another seed.
- `short`: one short training each, as many epochs as the first supernet's seconds pay for (at least one).
- `params`, `MACs`: more is better.
- `gradient norm`: of one batch at fresh weights (a zero-cost proxy; Abdelfattah et al. 2021).

Kendall's tau-b and Spearman's rho over all members, and the share of concordant less that of discordant pairs among
pairs of like cost, whose MACs differ by less than a factor of 2. Seconds of one core. Then what a search makes of it:
the sampler's model, which knows MACs, the accuracies of 8 members and the guesses of all, ranks the other 16, for 20
choices of the 8. Then what members reach that begin with the supernet's weights and train for a fifth of the epochs,
what int8 does to the supernet's judgement, and the seconds of a step against those of its networks by themselves.

Rows go to ``FOLDER/rows.jsonl`` at once, and a second call goes on; ``supernet_tables.py`` makes the tables of them.

    python benchmarks/supernet.py FOLDER --data-dir DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import torch
import torch.nn.functional as F
from supernet_tables import BEGUN, INT8, judge

import nas
from nas.architecture.space import Space
from nas.driver.objectives import OBJECTIVES, Limit
from nas.driver.prepare import cost_function
from nas.driver.region import Region, allowed_networks, members_within
from nas.export.shipping import ship
from nas.network.build import build, skeleton
from nas.training.augment import Normaliser
from nas.training.checkpoint import Checkpoint
from nas.training.data import Dataset, load_dataset
from nas.training.loop import Trainer
from nas.training.members import draw_members as training_members
from nas.training.members import largest, smallest
from nas.training.recipe import RECIPES
from nas.training.supernet import SupernetTrainer, TrainedSupernet

INT8_MEMBERS, TIMED_ROUNDS, TIMED_STEPS = 12, 6, 8


class Arm(NamedTuple):
    """A supernet that is trained."""

    name: str
    epochs: int
    seed: int = 0


def arms(epochs: int) -> list[Arm]:
    """Return the supernets that are trained."""
    return [Arm("supernet", epochs), Arm("another seed", epochs, seed=1)]


def limited(max_macs: float) -> Region:
    """Return the region of the networks of at most so many MACs."""
    return Region() if math.isinf(max_macs) else Region(limits={"macs": max_macs})


def draw_members(space: Space, count: int, max_macs: float = math.inf) -> list[nas.Architecture]:
    """Draw networks evenly over the logarithm of MACs: each the one of 8 whose cost is nearest to a cost drawn.

    The dearest that is aimed at has the largest network's choices, and the largest strides. With a limit, each is a
    random network that is made smaller to the cost drawn: few random ones keep it.
    """
    rng = np.random.default_rng(0)

    def log_macs(network: nas.Architecture) -> float:
        return math.log(nas.cost(network, 1).macs)

    def drawn(wanted: float) -> nas.Architecture:
        if max_macs < math.inf:
            limit, one = Limit(OBJECTIVES["macs"], math.exp(wanted)), space.sample_parameters(rng)
            return allowed_networks(space, [limit], cost_function(1), [one], rng)[0]
        return min([space.sample(rng) for _ in range(8)], key=lambda each: abs(log_macs(each) - wanted))

    strides = {name: max(each.values) for name, each in space.parameters_by_name.items() if name.endswith("stride")}
    top = space.architecture(space.parameters(largest(space)) | strides)
    ends = [log_macs(smallest(space)), min(log_macs(top), math.log(max_macs))]
    return [drawn(rng.uniform(*ends)) for _ in range(count)]


def train_alone(
    network: nas.Architecture, data: Dataset, epochs: int, seed: int, begun: TrainedSupernet | None = None
) -> tuple[float, float]:
    """Train from fresh weights, or from a supernet's: test accuracy, seconds."""
    started = time.process_time()
    torch.manual_seed(seed)
    images = data.for_network(data.channels, network.input.resolution, "cpu")
    recipe = RECIPES["search"].for_images(len(images.train), epochs=epochs)
    module = build(network, len(data.classes)) if begun is None else begun.recalibrated(network)[0]
    trainer = Trainer(module, images, recipe, seed=seed)
    for _ in trainer.epochs():
        pass
    return trainer.evaluate("test").accuracy, time.process_time() - started


def gradient_norm(network: nas.Architecture, data: Dataset) -> float:
    torch.manual_seed(0)
    images = data.for_network(data.channels, network.input.resolution, "cpu")
    fresh = build(network, len(data.classes)).train()
    batch = Normaliser(images.mean, images.std, images.device)(images.train.images[:128])
    F.cross_entropy(fresh(batch), images.train.labels[:128]).backward()
    return float(torch.stack([p.grad.norm() for p in fresh.parameters() if p.grad is not None]).sum())


def train_supernet(
    arm: Arm, space: Space, data: Dataset, members: Sequence[nas.Architecture], options: argparse.Namespace
) -> dict[str, Any]:
    """Train a supernet within the limit, and let members judge the validation images; the first ones in int8 too."""
    images = data.for_network(3, max(space.resolutions), "cpu")
    recipe = RECIPES["search"].for_images(len(data.train), epochs=arm.epochs)
    among = members_within(limited(options.max_macs), space, cost_function(1), seed=arm.seed)
    trainer = SupernetTrainer(space, images, recipe, seed=arm.seed, among=among)
    started = time.process_time()
    for epoch in trainer.epochs():
        print(f"{arm.name}: epoch {epoch.epoch}, largest {100 * epoch.validation_accuracy:.1f} %", flush=True)
    trained_by = time.process_time()
    trained = TrainedSupernet(trainer.supernet, data)
    judged = [trained.judge(member).accuracy for member in members]
    row = {"seconds": trained_by - started, "judged": judged, "seconds_judging": time.process_time() - trained_by}
    if arm.name == "supernet":
        row["int8"] = judge_int8(trained, members[:INT8_MEMBERS])
        epochs = max(1, round(BEGUN * options.epochs))
        row["begun"] = [train_alone(member, data, epochs, 1, trained) for member in members]
    return row


def judge_int8(trained: TrainedSupernet, members: Sequence[nas.Architecture]) -> dict[str, list[float]]:
    """Judge members as int8 computes, simulated in torch and by the file that would ship: accuracies and seconds."""
    rounded = replace(trained, target=INT8)
    found: dict[str, list[float]] = {"simulated": [], "file": [], "seconds_simulated": [], "seconds_file": []}
    for member in members:
        started = time.process_time()
        found["simulated"].append(rounded.judge(member).accuracy)
        simulated = time.process_time()
        network, images = trained.recalibrated(member)
        checkpoint = Checkpoint(
            architecture=member.to_dict(),
            classes=images.classes,
            mean=images.mean,
            std=images.std,
            dataset=images.name,
            split=asdict(images.split),
            recipe=RECIPES["search"].to_dict(),
            epoch=1,
            accuracy=0.0,
            weights=network.state_dict(),
            extra={"source_resolution": images.resolution},
        )
        found["file"].append(ship(INT8, checkpoint, images).judge(images, "validation").accuracy)
        found["seconds_simulated"].append(simulated - started)
        found["seconds_file"].append(time.process_time() - simulated)
    return found


class FixedMembers(SupernetTrainer):
    """Trains the same members in turn; what drawing others takes is done for nothing."""

    def _train_epoch(self) -> tuple[float, float, float]:
        for member in training_members(self._space, self._steps, np.random.default_rng(0)):
            skeleton(member, self.supernet.num_classes)
        self._members = itertools.cycle(self._among)
        return Trainer._train_epoch(self)  # without recalibrating the largest network, once an epoch


def time_steps(space: Space, data: Dataset, members: Sequence[nas.Architecture]) -> list[list[float]]:
    """Time an epoch of the supernet's training, and of each of its members by itself, in turn: seconds of a step."""
    part = replace(data, train=data.train.take(torch.arange(TIMED_STEPS * 64)))
    recipe = replace(RECIPES["search"], steps=None).with_epochs(1)  # its only epoch does not end in a recalibration
    rounds = []
    for _ in range(TIMED_ROUNDS + 1):
        images = part.for_network(3, max(space.resolutions), "cpu")
        trainers: list[Trainer] = [FixedMembers(space, images, recipe, among=members)]
        for each in members:
            images = part.for_network(3, each.input.resolution, "cpu")
            trainers.append(Trainer(build(each, len(data.classes)), images, recipe))
        rounds.append([trainer.run_epoch().seconds_train / trainer.steps for trainer in trainers])
    return rounds[1:]  # the first one warms up


def measure(
    options: argparse.Namespace,
    space: Space,
    members: Sequence[nas.Architecture],
    known: dict[str, Any],
    note: Callable[[str, Any], None],
) -> None:
    """Train and time what is not known yet."""
    data = load_dataset("cifar10", data_dir=options.data_dir, resolution=options.resolution, train_size=options.images)

    def train_all(seed: int) -> None:
        for number, member in enumerate(members):
            if (name := f"alone {seed} {number}") not in known:
                accuracy, seconds = train_alone(member, data, options.epochs, 1 + seed)
                counts = nas.cost(member, 10)
                row = {"accuracy": accuracy, "seconds": seconds, "params": counts.params, "macs": counts.macs}
                note(name, row)

    def train_arm(arm: Arm) -> None:
        if arm.name not in known:
            note(arm.name, train_supernet(arm, space, data, members, options))

    first, *others = arms(options.supernet_epochs)
    train_all(0)
    train_arm(first)
    if "steps" not in known:
        note("steps", time_steps(space, data, members[:4]))
    alone = sum(known[f"alone 0 {number}"]["seconds"] for number in range(len(members)))
    short = max(1, round(options.epochs * known["supernet"]["seconds"] / alone))
    for number, member in enumerate(members):
        if (name := f"short {number}") not in known:
            accuracy, seconds = train_alone(member, replace(data, test=data.validation), short, 7)
            note(name, {"accuracy": accuracy, "seconds": seconds, "gradient": gradient_norm(member, data)})
    for arm in others:
        train_arm(arm)
    for seed in range(1, options.seeds):
        train_all(seed)


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default=str(Path(__file__).with_name("supernet_space.yaml")))
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=30, help="of a training alone")
    parser.add_argument("--supernet-epochs", type=int, default=12, help="of a supernet, each of four times the steps")
    parser.add_argument("--max-macs", type=float, default=math.inf, help="of the members, and of those in training")
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2, help="of the trainings alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "rows.jsonl"
    known = dict(json.loads(line) for line in file.read_text().splitlines()) if file.exists() else {}

    def note(name: str, row: Any) -> None:
        known[name] = row
        with file.open("a") as out:
            out.write(json.dumps([name, row]) + "\n")

    space = nas.load_space(options.space).with_input(channels=3, resolution=options.resolution)
    members = draw_members(space, options.members, options.max_macs)
    measure(options, space, members, known, note)
    trained = [arm.name for arm in arms(options.supernet_epochs)]
    judge(known, space, members, trained, options.seeds, machine.Output(options.out))


if __name__ == "__main__":
    main()
