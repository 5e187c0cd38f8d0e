"""What early stopping by dominance saves, and what it costs.

`record` trains networks of a space to the end, none stopped, and keeps their learning curves and costs in a small file.
`replay` runs the rule over the recorded curves as a search with several workers would have met them (a trial begins
when a worker is free, epochs take as long as they took) and compares with training everything:

- epochs trained, and how many times fewer
- the hypervolume of the front, as a part of the true front's (reference: the worst values recorded)
- which members of the true front were stopped
- which part of the trials goes on past each rung

once with our rungs, which double, and once with rungs as far apart as the reduction (Li et al. 2020). The part that
goes on is the mean over the orders.

    python benchmarks/early_stopping.py record tests/driver/fixtures/curves.json --data-dir DIR
    python benchmarks/early_stopping.py replay tests/driver/fixtures/curves.json
"""

import argparse
import heapq
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nas
from nas import pareto
from nas.driver.stopping import DominanceStopping, rungs
from nas.training.recipe import RECIPES, Recipe

OBJECTIVES = ("accuracy", "size", "macs")


@dataclass(frozen=True)
class Curve:
    """A network trained to the end: accuracy after and seconds of every epoch, and its known costs."""

    accuracies: tuple[float, ...]
    seconds: tuple[float, ...]
    costs: tuple[float, ...]

    def losses(self, epoch: int) -> tuple[float, ...]:
        """Every objective minimised, after `epoch` epochs."""
        return (-self.accuracies[epoch - 1], *self.costs)


@dataclass(frozen=True)
class Replayed:
    """What a search with early stopping would have done."""

    epochs: int
    all_epochs: int
    finished: tuple[int, ...]
    true_front: tuple[int, ...]
    hypervolume: float
    """As a part of the true front's."""
    went_on: tuple[float, ...]
    """Past each rung, of those that reached it."""

    @property
    def saving(self) -> float:
        return self.all_epochs / self.epochs

    @property
    def stopped_front(self) -> tuple[int, ...]:
        """Members of the true front that were stopped."""
        return tuple(index for index in self.true_front if index not in self.finished)


def spaced(epochs: int, first: int, reduction: int) -> tuple[int, ...]:
    """Rungs as far apart as the reduction, the last at most that part of the budget."""
    return tuple(first * reduction**k for k in range(epochs) if first * reduction ** (k + 1) <= epochs)


def replay(
    curves: Sequence[Curve], *, levels: tuple[int, ...], reduction: int, workers: int, order: Sequence[int]
) -> Replayed:
    """Run the rule over recorded curves, `workers` trials at once, beginning in this order."""
    budget = len(curves[0].accuracies)
    rule = DominanceStopping(levels, reduction)
    waiting = list(order)
    running = [(curves[index].seconds[0], index, 1) for index in waiting[:workers]]
    del waiting[:workers]
    heapq.heapify(running)
    epochs, finished, stopped_at = 0, [], []
    while running:
        now, index, epoch = heapq.heappop(running)
        epochs += 1
        ended = epoch == budget
        if ended:
            finished.append(index)
        stopped = not ended and rule.stops(index, epoch, curves[index].losses(epoch))
        if stopped:
            stopped_at.append(epoch)
        if ended or stopped:
            if waiting:
                following = waiting.pop(0)
                heapq.heappush(running, (now + curves[following].seconds[0], following, 1))
        else:
            heapq.heappush(running, (now + curves[index].seconds[epoch], index, epoch + 1))
    points = np.array([curve.losses(budget) for curve in curves])
    # Costs span decades: their logarithms count.
    points[:, 1:] = np.log(points[:, 1:])
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / (high - low)
    reference = np.full(points.shape[1], 1.1)
    true = np.flatnonzero(pareto.front_mask(points))
    share = pareto.hypervolume(points[finished], reference) / pareto.hypervolume(points[true], reference)
    went_on = tuple(1 - stopped_at.count(level) / len(rule.reached[level]) for level in levels)
    return Replayed(epochs, budget * len(curves), tuple(finished), tuple(int(i) for i in true), share, went_on)


def read(path: Path) -> tuple[list[Curve], int]:
    """The curves of a recorded file, and the first rung of that search."""
    document = json.loads(path.read_text())
    curves = [
        Curve(tuple(item["accuracies"]), tuple(item["seconds"]), tuple(item["costs"])) for item in document["networks"]
    ]
    return curves, int(document["about"]["first_rung"])


def draw(space: str, count: int, max_macs: float, *, channels: int, resolution: int) -> list[nas.Architecture]:
    """Networks of a space, drawn uniformly among those of so few MACs."""
    fitted = nas.load_space(space).with_input(channels=channels, resolution=resolution)
    rng = np.random.default_rng(0)
    found: dict[str, nas.Architecture] = {}
    while len(found) < count:
        network = fitted.sample(rng)
        if nas.cost(network).macs <= max_macs:
            found[network.id] = network.model_copy(update={"name": f"drawn-{len(found)}"})
    return list(found.values())


def record(path: Path, *, trials: int, recipe: Recipe, space: str, max_macs: float, data: dict[str, Any]) -> None:
    """Train networks drawn at random to the end and keep their curves; `data` says on what, as in `nas.search`."""
    channels = 1 if data["dataset"] == "digits" else 3
    networks_drawn = draw(space, trials, max_macs, channels=channels, resolution=data["resolution"])
    with tempfile.TemporaryDirectory() as folder:
        run = nas.search(
            space,
            objectives=OBJECTIVES,
            sampler="random",
            published="none",
            enqueue=networks_drawn,
            reduction=1,
            trials=trials,
            recipe=recipe,
            **data,
            out=Path(folder) / "run",
            on_change=lambda progress: print(f"\r{progress.closed}/{progress.budget}", end="", flush=True),
        )
        networks: list[dict[str, Any]] = [
            {
                "name": record.architecture.name,
                "accuracies": [epoch["accuracy"] for epoch in record.curve],
                "seconds": [round(epoch["seconds"], 3) for epoch in record.curve],
                "costs": [record.costs[name] for name in OBJECTIVES[1:]],
            }
            for record in run.records
            if record.state == "complete" and record.was_trained
        ]
        about = {
            "space": space,
            "dataset": run.settings.dataset,
            "train_size": run.settings.train_size,
            "resolution": data["resolution"],
            "max_macs": max_macs,
            "recipe": run.settings.recipe,
            "first_rung": run.settings.first_rung,
        }
    lines = ",\n".join(json.dumps(network) for network in networks)
    path.write_text(f'{{"about": {json.dumps(about)},\n"networks": [\n{lines}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "replay"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--space", default="inverted_residual")
    parser.add_argument("--max-macs", type=float, default=0.4e6)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--train-size", type=int, default=2500)
    parser.add_argument("--resolution", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=50, help="orders in which the trials begin")
    options = parser.parse_args()
    if options.action == "record":
        recipe = RECIPES["search"].with_epochs(options.epochs)
        data = {name: getattr(options, name) for name in ("dataset", "data_dir", "train_size", "resolution")}
        record(
            options.file,
            trials=options.trials,
            recipe=recipe,
            space=options.space,
            max_macs=options.max_macs,
            data=data,
        )
        return
    curves, first = read(options.file)
    budget = len(curves[0].accuracies)
    print(f"{len(curves)} networks, {budget} epochs, objectives {', '.join(OBJECTIVES)}, {options.seeds} orders")
    print("reduction  rungs      epochs saved (median, min-max)  hypervolume kept (median, min)  front stopped  go on")
    for reduction, levels in [
        *((reduction, rungs(budget, first)) for reduction in (2, 3, 4)),
        *((reduction, spaced(budget, first, reduction)) for reduction in (3, 4)),
    ]:
        runs = [
            replay(
                curves,
                levels=levels,
                reduction=reduction,
                workers=options.workers,
                order=np.random.default_rng(seed).permutation(len(curves)).tolist(),
            )
            for seed in range(options.seeds)
        ]
        saving = [run.saving for run in runs]
        kept = [run.hypervolume for run in runs]
        lost = [len(run.stopped_front) for run in runs]
        spread = f"{np.median(saving):.2f}x ({min(saving):.2f}-{max(saving):.2f})"
        share = f"{np.median(kept):.4f} ({min(kept):.4f})"
        stopped = f"{np.median(lost):.1f} of {len(runs[0].true_front)}"
        parts = ", ".join(f"{part:.2f}" for part in np.mean([run.went_on for run in runs], axis=0))
        print(f"{reduction:>9}  {levels!s:<9}  {spread:<30}  {share:<30}  {stopped:<13}  {parts}")


if __name__ == "__main__":
    main()
