"""Real searches of equal wall-clock time: the known-cost sampler, random search, TPE, and no search at all.

CIFAR-10 at 16x16 pixels, 5,000 images, recipe `search`, objectives accuracy and size, early stopping as by default.
`--max-macs` keeps all arms to networks that train fast: with few minutes each would else see a handful.

- `known-cost`, `random`, `tpe`: ``nas search --sampler``, ended by SIGTERM when its minutes are over (background jobs
  ignore Ctrl-C).
- `ladder`: no search. E, MobileNetV2-CIFAR and PydMobileNet at widths from 0.1 to 1, smallest first, trained to the end
  in as many minutes.

`search` runs what is missing of all arms and seeds, the arms in turn, so that the machine's other load meets all alike.
`judge` takes the front of what each had trained to the end, thins it to at most six networks over the range of sizes,
and trains these again with three new seeds, judged by the 10,000 test images; rows go to ``FOLDER/confirmed.jsonl`` at
once. Nothing that chose a network judges it.

Figures, median over seeds and range: the hypervolume of the confirmed front (error against log size, between chance
and the dearest network, relative to that of all confirmed networks together); and the confirmed accuracy of the network
that each search's own validation images call the best within a size.

    python benchmarks/real_search.py search FOLDER --data-dir DIR --minutes 6 --seeds 3
    python benchmarks/real_search.py judge FOLDER --data-dir DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np
import torch

import nas
from nas import pareto
from nas.driver.objectives import parse_limit
from nas.network.build import build
from nas.training.data import load_dataset
from nas.training.loop import Trainer
from nas.training.recipe import RECIPES

RESOLUTION, MEMBERS = 16, 6
SAMPLERS = ("known-cost", "random", "tpe")
ARMS = (*SAMPLERS, "ladder")
LADDER, WIDTHS = ("han-e", "mobilenetv2-cifar", "pydmobilenet-add-29-1"), (0.1, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0)
MARKS = ("100kB", "300kB", "1MB")
CHANCE = 0.1
GRACE = 120
"""Seconds in which an interrupted search has to end."""


def ladder(folder: Path, max_macs: float) -> list[Path]:
    """Write the published networks at each width that keeps the limit, smallest first."""
    folder.mkdir(parents=True, exist_ok=True)
    thinner = [
        nas.Architecture.from_dict({**nas.load(name).to_dict(), "width": width, "name": f"{name}-at-{width:g}"})
        for name, width in itertools.product(LADDER, WIDTHS)
    ]
    costs = {network: nas.cost(network.with_input(channels=3, resolution=RESOLUTION), 10) for network in thinner}
    by_params = {own.params: network for network, own in costs.items() if own.macs <= max_macs}
    files = []
    for _, network in sorted(by_params.items()):
        file = folder / f"{network.name}.yaml"
        file.write_text(network.to_yaml())
        files.append(file)
    return files


def command_of(arm: str, seed: int, run: Path, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "nas", "search", "--space", options.space, "--dataset", "cifar10"]
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    command += ["--resolution", str(RESOLUTION), "--train-size", str(options.images), "--epochs", str(options.epochs)]
    command += ["--objectives", "accuracy,size", "--published", "none", "--seed", str(seed), "--report-every", "0"]
    command += ["--out", str(run), "--keep", "none"]
    command += ["--limit", f"macs<={options.max_macs:.0f}"] if math.isfinite(options.max_macs) else []
    if arm != "ladder":
        return [*command, "--sampler", arm, "--trials", "2000"]
    files = ladder(options.folder / "ladder", options.max_macs)
    own = itertools.chain.from_iterable(("--enqueue", str(file)) for file in files)
    return [*command, "--sampler", "random", "--reduction", "1", "--trials", str(len(files)), *own]


def search(options: argparse.Namespace) -> None:
    for seed in range(options.seeds):
        turned = ARMS[seed % len(ARMS) :] + ARMS[: seed % len(ARMS)]
        for arm in turned:
            run = options.folder / f"{arm}-{seed}"
            if (run / "ended").exists():
                continue
            process = subprocess.Popen(command_of(arm, seed, run, options), stdout=subprocess.DEVNULL)
            try:
                process.wait(60 * options.minutes)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.wait(GRACE)
            trained = [record for record in nas.open_run(run).records if record.was_trained]
            complete = sum(record.state == "complete" for record in trained)
            (run / "ended").touch()
            print(f"{arm}, seed {seed}: {len(trained)} networks begun, {complete} trained to the end", flush=True)


class Trained(NamedTuple):
    """A network that a search trained to the end, its validation accuracy, its bytes."""

    network: nas.Architecture
    accuracy: float
    size: float


class Searched(NamedTuple):
    """What one arm trained to the end with one seed."""

    arm: str
    networks: list[Trained]


def searched(folder: Path, arms: Iterable[str]) -> Iterator[Searched]:
    for arm in arms:
        for run in sorted(folder.glob(f"{arm}-*")):
            if (run / "ended").exists():
                yield Searched(arm, trained_networks(nas.open_run(run)))


def trained_networks(run: nas.Run) -> list[Trained]:
    """The networks that a search trained to the end, in turn."""
    complete = [each for each in run.records if each.state == "complete" and not each.untrained]
    return [Trained(each.architecture, each.accuracy or 0, each.costs["size"]) for each in complete]


def thinned_front(networks: Sequence[Trained]) -> list[Trained]:
    """At most `MEMBERS` networks of the front, spread over the range of log sizes, its ends included."""
    if not networks:
        return []
    points = np.array([[1 - each.accuracy, math.log(each.size)] for each in networks])
    front = sorted(np.flatnonzero(pareto.front_mask(points)).tolist(), key=lambda place: points[place, 1])
    wanted = np.linspace(points[front[0], 1], points[front[-1], 1], MEMBERS)
    if len(front) > MEMBERS:
        front = sorted({min(front, key=lambda place: abs(points[place, 1] - at)) for at in wanted})
    return [networks[place] for place in front]


def best_within(networks: Sequence[Trained], mark: str) -> list[Trained]:
    """The most accurate network within a size, by the search's own validation images; none where all are larger."""
    limit = parse_limit(f"size<={mark}").value
    allowed = [each for each in networks if each.size <= limit]
    return [max(allowed, key=lambda each: each.accuracy)] if allowed else []


def train_and_test(document: dict[str, object], seed: int, epochs: int, images: int, data_dir: str | None) -> float:
    """Train a network from fresh weights on all the search's images; its accuracy on the test images."""
    torch.set_num_threads(1)
    data = load_dataset("cifar10", data_dir=data_dir, resolution=RESOLUTION, train_size=images)
    torch.manual_seed(1_000 + seed)
    network = build(nas.Architecture.from_dict(document), 10)
    data = data.for_network(3, RESOLUTION, "cpu")
    recipe = RECIPES["search"].for_images(len(data.train), epochs=epochs)
    trainer = Trainer(network, data, recipe, seed=1_000 + seed)
    for _ in trainer.epochs():
        pass
    return trainer.evaluate("test").accuracy


def judge(options: argparse.Namespace, searches: Sequence[Searched], say: machine.Output) -> None:
    """Train what the searches chose again, and print the table."""
    file = options.folder / "confirmed.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    epochs = options.judging_epochs or options.epochs
    known = {(row["id"], row["seed"]): row["accuracy"] for row in rows if row["epochs"] == epochs}
    chosen = {
        each.network.id: each
        for _, networks in searches
        for each in (*thinned_front(networks), *(best for mark in MARKS for best in best_within(networks, mark)))
    }
    missing = [(id, seed) for seed in range(options.judging_seeds) for id in chosen if (id, seed) not in known]
    print(f"{len(missing)} trainings of {len(chosen)} networks are to come", flush=True)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(train_and_test, chosen[id].network.to_dict(), seed, epochs, options.images, options.data_dir): (
                id,
                seed,
            )
            for id, seed in missing
        }
        for job in as_completed(jobs):
            id, seed = jobs[job]
            known[id, seed] = job.result()
            with file.open("a") as out:
                row = {"id": id, "seed": seed, "epochs": epochs, "accuracy": known[id, seed]}
                out.write(json.dumps(row) + "\n")
    tell(
        searches,
        chosen,
        {id: statistics.fmean(known[id, n] for n in range(options.judging_seeds)) for id in chosen},
        say,
    )


def tell(
    searches: Sequence[Searched], chosen: Mapping[str, Trained], confirmed: Mapping[str, float], say: machine.Output
) -> None:
    """Print the table: hypervolume, and the best network within each size."""
    sizes = [each.size for each in chosen.values()]
    nadir, ideal = np.array([1 - CHANCE, math.log(1.01 * max(sizes))]), np.array([0.0, math.log(min(sizes))])

    def volume(networks: Iterable[Trained]) -> float:
        points = [[1 - confirmed[each.network.id], math.log(each.size)] for each in networks]
        return pareto.hypervolume((np.array(points) - ideal) / (nadir - ideal), np.ones(2)) if points else 0.0

    whole = volume(chosen.values())
    say(f"{'':12}{'n':>2}  {'trained to the end':22}{'hypervolume':24}" + "".join(f"{mark:24}" for mark in MARKS))
    for arm in dict.fromkeys(each.arm for each in searches):
        own = [networks for name, networks in searches if name == arm]
        fronts = [volume(thinned_front(networks)) / whole for networks in own]
        cells = [machine.spread([len(networks) for networks in own], "g"), machine.spread(fronts, ".3f")]
        for mark in MARKS:
            best = itertools.chain.from_iterable(best_within(networks, mark) for networks in own)
            values = [100 * confirmed[each.network.id] for each in best]
            cells.append(f"{machine.spread(values, '.1f')} %" if values else "none")
        say(f"{arm:12}{len(own):>2}  {cells[0]:22}" + "".join(f"{cell:24}" for cell in cells[1:]))


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("action", choices=("search", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--space", default="inverted_residual")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3, help="searches of each arm")
    parser.add_argument("--judging-seeds", type=int, default=3, help="trainings of each network that is judged")
    parser.add_argument("--judging-epochs", type=int, help="of these trainings (default: --epochs)")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--max-macs", type=float, default=math.inf, help="of every network, at this resolution")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once, of one thread each")
    options = parser.parse_args()
    if options.action == "search":
        search(options)
    else:
        judge(options, list(searched(options.folder, ARMS)), machine.Output(options.out))


if __name__ == "__main__":
    main()
