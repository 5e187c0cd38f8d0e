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

Rows go to ``FOLDER/rows.jsonl`` at once, and a second call goes on.

    python benchmarks/supernet.py FOLDER --data-dir DIR
"""

from __future__ import annotations

import argparse
import functools
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
import optuna
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, spearmanr

import nas
from nas.architecture.space import Space
from nas.driver.sampler.known_cost import KnownCostSampler
from nas.driver.study import distributions
from nas.export.shipping import ship
from nas.network.build import build, skeleton
from nas.targets import TARGETS
from nas.training.augment import Normaliser
from nas.training.checkpoint import Checkpoint
from nas.training.data import Dataset, load_dataset
from nas.training.loop import Trainer
from nas.training.members import draw_members as training_members
from nas.training.members import largest, smallest
from nas.training.recipe import RECIPES
from nas.training.supernet import SupernetTrainer, TrainedSupernet

LIKE = 2.0
"""Factor of MACs below which two members are of like cost."""
INT8 = TARGETS["onnxruntime-int8"]
INT8_MEMBERS, TIMED_ROUNDS, TIMED_STEPS = 12, 6, 8
TRAINED, CHOICES = 8, 20
BEGUN = 0.2
"""Share of the epochs that members train for which begin with the supernet's weights."""
SMALL = 100_000
"""Bytes of fp32 up to which a member is small."""


class Arm(NamedTuple):
    """A supernet that is trained."""

    name: str
    epochs: int
    seed: int = 0


def arms(epochs: int) -> list[Arm]:
    return [Arm("supernet", epochs), Arm("another seed", epochs, seed=1)]


def open_space(options: argparse.Namespace) -> Space:
    return nas.load_space(options.space).with_input(channels=3, resolution=options.resolution)


def draw_members(space: Space, count: int) -> list[nas.Architecture]:
    """Draw networks evenly over the logarithm of MACs: each the one of 8 whose cost is nearest to a cost drawn.

    The dearest that is aimed at has the largest network's choices, and the largest strides.
    """
    rng = np.random.default_rng(0)

    def log_macs(network: nas.Architecture) -> float:
        return math.log(nas.cost(network, 1).macs)

    strides = {name: max(each.values) for name, each in space.parameters_by_name.items() if name.endswith("stride")}
    top = space.architecture(space.parameters(largest(space)) | strides)
    ends = [log_macs(smallest(space)), log_macs(top)]
    members = []
    for _ in range(count):
        wanted, drawn = rng.uniform(*ends), [space.sample(rng) for _ in range(8)]
        members.append(min(drawn, key=lambda each: abs(log_macs(each) - wanted)))
    return members


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


def train_supernet(arm: Arm, space: Space, data: Dataset, members: Sequence[nas.Architecture]) -> dict[str, Any]:
    """Train a supernet, and let its members judge the validation images; the first one's in int8 too."""
    images = data.for_network(3, max(space.resolutions), "cpu")
    recipe = RECIPES["search"].for_images(len(data.train), epochs=arm.epochs)
    trainer = SupernetTrainer(space, images, recipe, seed=arm.seed)
    started = time.process_time()
    for epoch in trainer.epochs():
        print(f"{arm.name}: epoch {epoch.epoch}, largest {100 * epoch.validation_accuracy:.1f} %", flush=True)
    trained_by = time.process_time()
    trained = TrainedSupernet(trainer.supernet, data)
    judged = [trained.judge(member).accuracy for member in members]
    row = {"seconds": trained_by - started, "judged": judged, "seconds_judging": time.process_time() - trained_by}
    if arm.name == "supernet":
        row["int8"] = judge_int8(trained, members[:INT8_MEMBERS])
        epochs = max(1, round(BEGUN * arm.epochs))
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

    fixed: Sequence[nas.Architecture] = ()

    def _train_epoch(self) -> tuple[float, float, float]:
        for member in training_members(self._space, self._steps, np.random.default_rng(0)):
            skeleton(member, self.supernet.num_classes)
        self._members = itertools.cycle(self.fixed)
        return Trainer._train_epoch(self)  # without recalibrating the largest network, once an epoch


def time_steps(space: Space, data: Dataset, members: Sequence[nas.Architecture]) -> list[list[float]]:
    """Time an epoch of the supernet's training, and of each of its members by itself, in turn: seconds of a step."""
    part = replace(data, train=data.train.take(torch.arange(TIMED_STEPS * 64)))
    recipe = replace(RECIPES["search"], steps=None).with_epochs(1)  # its only epoch does not end in a recalibration
    rounds = []
    for _ in range(TIMED_ROUNDS + 1):
        images = part.for_network(3, max(space.resolutions), "cpu")
        supernet = FixedMembers(space, images, recipe)
        supernet.fixed = members
        trainers: list[Trainer] = [supernet]
        for each in members:
            images = part.for_network(3, each.input.resolution, "cpu")
            trainers.append(Trainer(build(each, len(data.classes)), images, recipe))
        rounds.append([trainer.run_epoch().seconds_train / trainer.steps for trainer in trainers])
    return rounds[1:]  # the first one warms up


def measure(options: argparse.Namespace, known: dict[str, Any], note: Callable[[str, Any], None]) -> None:
    data = load_dataset("cifar10", data_dir=options.data_dir, resolution=options.resolution, train_size=options.images)
    space = open_space(options)
    members = draw_members(space, options.members)

    def train_all(seed: int) -> None:
        for number, member in enumerate(members):
            if (name := f"alone {seed} {number}") not in known:
                accuracy, seconds = train_alone(member, data, options.epochs, 1 + seed)
                counts = nas.cost(member, 10)
                row = {"accuracy": accuracy, "seconds": seconds, "params": counts.params, "macs": counts.macs}
                note(name, row)

    def train_arm(arm: Arm) -> None:
        if arm.name not in known:
            note(arm.name, train_supernet(arm, space, data, members))

    first, *others = arms(options.epochs)
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


def concordance(guess: ArrayLike, truth: ArrayLike, macs: ArrayLike) -> tuple[float, int]:
    """Return Kendall's tau over the pairs of members of like cost, and how many they are."""
    guessed, true, cost = (np.subtract.outer(x, x) for x in (np.asarray(guess), np.asarray(truth), np.log(macs)))
    pairs = np.triu(np.abs(cost) < np.log(LIKE), 1)
    return float((np.sign(guessed) * np.sign(true))[pairs].mean()), int(pairs.sum())


def judge(known: dict[str, Any], options: argparse.Namespace, say: machine.Output) -> None:
    members = options.members
    rows = [[known[f"alone {seed} {number}"] for number in range(members)] for seed in range(options.seeds)]
    truth = np.mean([[row["accuracy"] for row in each] for each in rows], axis=0)
    macs = np.array([row["macs"] for row in rows[0]])
    short = [known[f"short {number}"] for number in range(members)]
    trained = [arm for arm in arms(options.epochs) if arm.name in known]
    guesses = {
        **{arm.name: known[arm.name]["judged"] for arm in trained},
        "short": [row["accuracy"] for row in short],
        "params": [row["params"] for row in rows[0]],
        "MACs": macs,
        "gradient norm": [row["gradient"] for row in short],
    }
    if options.seeds > 1:
        guesses["the other seed"] = [row["accuracy"] for row in rows[1]]
    one = sum(row["seconds"] for row in rows[0]) / members
    costs = {arm.name: known[arm.name]["seconds"] for arm in trained}
    costs["short"] = sum(row["seconds"] for row in short)
    test = f"alone {100 * truth.min():.1f} to {100 * truth.max():.1f} % on the test images"
    say(f"{members} members of {macs.min() / 1e6:.2f} to {macs.max() / 1e6:.2f} M MACs; {test}, {one:.0f} s each")
    judging = known["supernet"]["seconds_judging"] / members
    say(f"a member is judged in {judging:.2f} s; {concordance(macs, truth, macs)[1]} pairs of like cost")
    say(f"{'guess':20}{'trainings':>10}{'Kendall':>9}{'Spearman':>10}{'like cost':>11}")
    for name, guess in guesses.items():
        true = np.array([row["accuracy"] for row in rows[0]]) if name == "the other seed" else truth
        cost = f"{costs[name] / one:.1f}" if name in costs else ""
        ranks = kendalltau(guess, true).statistic, spearmanr(guess, true).statistic, concordance(guess, true, macs)[0]
        say(f"{name:20}{cost:>10}{ranks[0]:>9.2f}{ranks[1]:>10.2f}{ranks[2]:>11.2f}")
    say()
    costs_of = np.log([[row["macs"], row["params"]] for row in rows[0]])
    judge_choices(options, truth, np.array(known["supernet"]["judged"]), costs_of, say)
    say()
    judge_model(options, truth, {name: guesses[name] for name in ("MACs", *costs)}, say)
    say()
    judge_begun(known["supernet"]["begun"], rows, say)
    say()
    judge_rounding(known["supernet"], say)
    say()
    steps = np.array(known["steps"])
    alone = steps[:, 1:].mean(1)
    ideal = 100 * alone / steps[:, 0]
    of = f"mean of {steps.shape[1] - 1} members"
    say(f"a step of the supernet, {of}: {machine.spread(1e3 * steps[:, 0])} ms (n = {len(steps)})")
    say(f"the same members by themselves: {machine.spread(1e3 * alone)} ms")
    say(f"share of the ideal: {machine.spread(ideal)} %")


def judge_choices(
    options: argparse.Namespace, truth: np.ndarray, guess: np.ndarray, costs: np.ndarray, say: machine.Output
) -> None:
    """Say which choices the supernet misjudges, by correlations with both accuracies, Kendall without the worst, and
    what the supernet tells of that part of the accuracies which costs and the worst choice do not explain.
    """
    space = open_space(options)
    chosen = [space.parameters(member) for member in draw_members(space, options.members)]
    found = []
    for name, choice in space.parameters_by_name.items():
        places = np.array([choice.values.index(each[name]) for each in chosen])
        alone, within = (float(np.corrcoef(places, accuracy)[0, 1]) for accuracy in (truth, guess))
        found.append((abs(within - alone), name, alone, within, places))
    found.sort(key=lambda each: -each[0])
    say(f"{'correlation of':22}{'alone':>7}{'in the supernet':>17}")
    for _, name, alone, within, _ in found[:4]:
        say(f"{name:22}{alone:>7.2f}{within:>17.2f}")
    _, name, *_, places = found[0]
    for place in np.unique(places):
        same = places == place
        option = space.parameters_by_name[name].values[place]
        tau = kendalltau(guess[same], truth[same]).statistic
        say(f"the supernet among {same.sum()} members of {name} {option}: Kendall {tau:.2f}")
    known = np.column_stack([np.ones(len(truth)), costs, places])
    alone, within = (each - known @ np.linalg.lstsq(known, each, rcond=None)[0] for each in (truth, guess))
    told = f"log MACs, log params and {name} explain {100 * (1 - alone.var() / truth.var()):.0f} % of the variance"
    say(f"{told}, {100 * alone.std():.1f} points are left;")
    say(f"of these the supernet tells: correlation {np.corrcoef(alone, within)[0, 1]:.2f}")


def judge_model(options: argparse.Namespace, truth: np.ndarray, guesses: dict[str, Any], say: machine.Output) -> None:
    """Say how the sampler's model, given some members' accuracies and guesses of all, ranks the others."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = open_space(options)
    members = draw_members(space, options.members)
    points, space_of_study = [space.parameters(member) for member in members], distributions(space)
    named = functools.partial(json.dumps, sort_keys=True)
    macs = {named(point): nas.cost(member, 10).macs for point, member in zip(points, members, strict=True)}
    orders = [np.random.default_rng(seed).permutation(len(members)) for seed in range(CHOICES)]

    def ranks(guess: Sequence[float], order: np.ndarray) -> list[float]:
        sampler = KnownCostSampler(known={1: lambda point: macs[named(point)]}, search_space=space_of_study)
        sampler.learn_from(list(zip(points, guess, strict=False)))
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for place in order[:TRAINED]:
            values = [truth[place], macs[named(points[place])]]
            study.add_trial(
                optuna.trial.create_trial(values=values, params=points[place], distributions=space_of_study)
            )
        others = order[TRAINED:]
        expected = sampler.expected(study, [points[place] for place in others])
        assert expected is not None
        return ranked(expected[:, 0], others)

    def ranked(guess: ArrayLike, others: np.ndarray) -> list[float]:
        cost = np.array([macs[named(points[place])] for place in others])
        tau, rho = kendalltau(guess, truth[others]).statistic, spearmanr(guess, truth[others]).statistic
        return [tau, rho, concordance(guess, truth[others], cost)[0]]

    rows = {
        name: [ranked(np.array(guess)[order[TRAINED:]], order[TRAINED:]) for order in orders]
        for name, guess in guesses.items()
    }
    rows |= {
        f"model, {name}": [ranks(guess, order) for order in orders] for name, guess in guesses.items() if name != "MACs"
    }
    rows["model alone"] = [ranks([], order) for order in orders]
    alone = np.array(rows["model alone"])
    say(f"{len(members) - TRAINED} members ranked, {TRAINED} others trained: mean of {CHOICES} choices, and deviation")
    say(f"{'guess':22}{'Kendall':>14}{'Spearman':>10}{'like cost':>11}{'less than the model alone':>27}")
    for name, found in rows.items():
        row = np.array(found)
        means, less = row.mean(0), (alone - row)[:, 0]
        tau = f"{means[0]:.2f} +- {row[:, 0].std(ddof=1):.2f}"
        own = "" if name == "model alone" else f"{less.mean():.2f} +- {less.std(ddof=1):.2f}"
        say(f"{name:22}{tau:>14}{means[1]:>10.2f}{means[2]:>11.2f}{own:>27}")


def judge_begun(
    begun: Sequence[Sequence[float]], rows: Sequence[Sequence[dict[str, Any]]], say: machine.Output
) -> None:
    """Compare members that begin with the supernet's weights with the same from fresh ones, all and small ones."""
    truth = np.mean([[row["accuracy"] for row in each] for each in rows], axis=0)
    gained = 100 * (np.array(begun)[:, 0] - truth)
    part = sum(seconds for _, seconds in begun) / sum(row["seconds"] for row in rows[0])
    spent = f"{BEGUN:.0%} of the epochs ({part:.0%} of the seconds)"
    say(f"from the supernet's weights in {spent}, against fresh ones in all epochs:")
    small = np.array([4 * row["params"] <= SMALL for row in rows[0]])
    for name, some in {"all": np.ones_like(small), f"up to {SMALL // 1000} kB": small}.items():
        if some.any():
            ends = f"[{gained[some].min():+.1f}, {gained[some].max():+.1f}]"
            say(f"{name:14} n = {some.sum():2}: mean {gained[some].mean():+.1f} points, {ends}")
    tau = kendalltau(np.array(begun)[:, 0], truth).statistic
    say(f"rank correlation with the trainings from fresh weights: Kendall {tau:.2f}")


def judge_rounding(row: dict[str, Any], say: machine.Output) -> None:
    """Say how near simulated int8 is to the file's, and whether fp32 would rank alike."""
    int8 = row["int8"]
    file, fp32 = np.array(int8["file"]), np.array(row["judged"][: len(int8["file"])])
    say(f"int8 ({INT8.name}) of {len(file)} members in the supernet, against the file's accuracy:")
    for name, guess in {"fp32": fp32, "simulated int8": np.array(int8["simulated"])}.items():
        off = 100 * np.abs(guess - file)
        tau = kendalltau(guess, file).statistic
        say(f"{name:16} {off.mean():.2f} points off, at most {off.max():.2f}; Kendall {tau:.2f}")
    seconds = {name: np.mean(int8[f"seconds_{name}"]) for name in ("simulated", "file")}
    say(f"a member in int8: {seconds['simulated']:.2f} s simulated, {seconds['file']:.2f} s by its file")


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default=str(Path(__file__).with_name("supernet_space.yaml")))
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=10, help="of a training alone, and of the first supernet")
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

    measure(options, known, note)
    judge(known, options, machine.Output(options.out))


if __name__ == "__main__":
    main()
