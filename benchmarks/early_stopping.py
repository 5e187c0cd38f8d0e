"""What early stopping by dominance saves, and what it costs.

`record` trains networks of a space to the end, none stopped, and keeps their learning curves and costs in a small file.
`replay` lets rules meet the recorded curves as a search with several workers would have (a trial begins when a worker
is free, epochs take as long as they took). Printed are

- the rank correlation (Spearman) of the accuracies after each epoch with those at the end;
- at equal time, a quarter and a half of what training all takes: the hypervolume of the front of the networks that were
  trained to the end by then, as a part of the true front's (reference: the worst values recorded);
- with all the time: epochs trained, how many times fewer, the hypervolume, which members of the true front were
  stopped, and which part of the trials goes on past each rung.

Rules: stop nothing; our rungs, which double, with a first rung at several epochs; rungs as far apart as the reduction
(Li et al. 2020); `predicted`, ours by the accuracy at the end that a line over the accuracy so far and the logarithms
of the costs, fitted to all that ended so far, expects; `short for all` trains all for a few epochs, and then the best,
front by front, to the end (Egele et al. 2023).

    python benchmarks/early_stopping.py record tests/driver/fixtures/curves.json --data-dir DIR
    python benchmarks/early_stopping.py replay tests/driver/fixtures/curves.json
"""

import argparse
import functools
import heapq
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import nas
from nas import pareto
from nas.driver.stopping import DominanceStopping, rungs
from nas.training.recipe import RECIPES, Recipe

OBJECTIVES = ("accuracy", "size", "macs")
FEWEST_ENDED = 5
"""Networks that ended, before which none is expected by them."""
SHARES = (0.25, 0.5)
"""Of the time that training all takes, at which rules are compared."""


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


def expected_losses(own: Curve, epoch: int, ended: Sequence[Curve]) -> tuple[float, ...]:
    """Losses with the accuracy that is expected at the end: least squares over the accuracy so far and the costs."""
    if len(ended) < FEWEST_ENDED:
        return own.losses(epoch)
    rows = np.array([[curve.accuracies[epoch - 1], *np.log(curve.costs)] for curve in (*ended, own)])
    ends = np.array([curve.accuracies[-1] for curve in ended])
    scaled = (rows - rows[:-1].mean(axis=0)) / (rows[:-1].std(axis=0) + 1e-9)
    known, wanted = scaled[:-1], scaled[-1]
    # A ridge of one observation, so that few networks make no wild slopes.
    weights = np.linalg.solve(known.T @ known + np.eye(known.shape[1]), known.T @ (ends - ends.mean()))
    return (-float(ends.mean() + wanted @ weights), *own.costs)


def spaced(epochs: int, first: int, reduction: int) -> tuple[int, ...]:
    """Rungs as far apart as the reduction, the last at most that part of the budget."""
    return tuple(first * reduction**k for k in range(epochs) if first * reduction ** (k + 1) <= epochs)


def hypervolume(curves: Sequence[Curve], finished: Sequence[int]) -> tuple[float, tuple[int, ...]]:
    """The part of the true front's hypervolume that the finished networks have, and the true front."""
    points = np.array([curve.losses(len(curve.accuracies)) for curve in curves])
    # Costs span decades: their logarithms count.
    points[:, 1:] = np.log(points[:, 1:])
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / (high - low)
    reference = np.full(points.shape[1], 1.1)
    true = np.flatnonzero(pareto.front_mask(points))
    whole = pareto.hypervolume(points[true], reference)
    part = pareto.hypervolume(points[list(finished)], reference) / whole if finished else 0.0
    return part, tuple(int(index) for index in true)


def replay(
    curves: Sequence[Curve],
    *,
    levels: tuple[int, ...],
    reduction: int,
    workers: int,
    order: Sequence[int],
    seconds: float = math.inf,
    predicted: bool = False,
) -> Replayed:
    """Run the rule over recorded curves, `workers` trials at once, beginning in this order, for so many seconds."""
    budget = len(curves[0].accuracies)
    rule = DominanceStopping(levels, reduction)
    waiting = list(order)
    running = [(curves[index].seconds[0], index, 1) for index in waiting[:workers]]
    del waiting[:workers]
    heapq.heapify(running)
    epochs, finished, stopped_at = 0, [], []
    while running:
        now, index, epoch = heapq.heappop(running)
        if now > seconds:
            break
        epochs += 1
        ended = epoch == budget
        if ended:
            finished.append(index)
        ended_before = [curves[each] for each in finished] if predicted else []
        losses = expected_losses(curves[index], epoch, ended_before)
        stopped = not ended and rule.stops(index, epoch, losses)
        if stopped:
            stopped_at.append(epoch)
        if ended or stopped:
            if waiting:
                following = waiting.pop(0)
                heapq.heappush(running, (now + curves[following].seconds[0], following, 1))
        else:
            heapq.heappush(running, (now + curves[index].seconds[epoch], index, epoch + 1))
    share, true = hypervolume(curves, finished)
    went_on = tuple(1 - stopped_at.count(level) / len(rule.reached[level]) for level in levels if level in rule.reached)
    return Replayed(epochs, budget * len(curves), tuple(finished), true, share, went_on)


def short_for_all(
    curves: Sequence[Curve], *, epochs: int, workers: int, order: Sequence[int], seconds: float
) -> Replayed:
    """Train all for `epochs`, then the best of them to the end, front by front, while there is time."""
    budget = len(curves[0].accuracies)
    free = [0.0] * workers
    tried: list[int] = []
    for index in order:
        end = free[0] + sum(curves[index].seconds[:epochs])
        heapq.heapreplace(free, end)
        if end <= seconds:
            tried.append(index)
    ranks = pareto.ranks(np.array([curves[index].losses(epochs) for index in tried])) if tried else []
    finished, trained = [], epochs * len(tried)
    for _, index in sorted(zip(ranks, tried, strict=True), key=lambda each: each[0]):
        end = free[0] + sum(curves[index].seconds[epochs:])
        heapq.heapreplace(free, end)
        if end <= seconds:
            finished.append(index)
            trained += budget - epochs
    share, true = hypervolume(curves, finished)
    return Replayed(trained, budget * len(curves), tuple(finished), true, share, ())


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
    orders = [np.random.default_rng(seed).permutation(len(curves)).tolist() for seed in range(options.seeds)]
    print(f"{len(curves)} networks, objectives {', '.join(OBJECTIVES)}, {options.seeds} orders")
    correlate(curves)
    at_equal_time(curves, first, options.workers, orders)
    with_all_the_time(curves, first, options.workers, orders)


def correlate(curves: Sequence[Curve]) -> None:
    """Print how early accuracies rank the networks as those at the end do."""
    accuracies = np.array([curve.accuracies for curve in curves])
    ranks = [spearmanr(column, accuracies[:, -1]).statistic for column in accuracies.T]
    print(f"accuracy at the end: {100 * accuracies[:, -1].min():.1f} to {100 * accuracies[:, -1].max():.1f} %")
    print("Spearman with the end, by epoch: " + ", ".join(f"{rank:.2f}" for rank in ranks))


def at_equal_time(curves: Sequence[Curve], first: int, workers: int, orders: Sequence[Sequence[int]]) -> None:
    """Print the hypervolumes that rules reach in a share of the time that training all takes."""
    budget = len(curves[0].accuracies)
    levels = sorted({first, *(level for level in (2, 3, 4, 6) if 2 * level <= budget)})
    rules: dict[str, Callable[..., Replayed]] = {
        "stop nothing": functools.partial(replay, levels=(), reduction=1),
        **{
            f"dominance from {level}": functools.partial(replay, levels=rungs(budget, level), reduction=3)
            for level in levels
        },
        **{
            f"predicted from {level}": functools.partial(
                replay, levels=rungs(budget, level), reduction=3, predicted=True
            )
            for level in levels
        },
        **{f"short for all, {level}": functools.partial(short_for_all, epochs=level) for level in levels},
    }
    whole = sum(sum(curve.seconds) for curve in curves) / workers
    print("\nrule              " + "".join(f"hypervolume in {share:.0%} of the time    " for share in SHARES))
    for name, rule in rules.items():
        cells = []
        for share in SHARES:
            found = [rule(curves, workers=workers, order=order, seconds=share * whole) for order in orders]
            volumes = [each.hypervolume for each in found]
            ended = np.median([len(each.finished) for each in found])
            cells.append(f"{np.median(volumes):.4f} ({min(volumes):.4f}), {ended:.0f} ended")
        print(f"{name:18}" + "".join(f"{cell:34}" for cell in cells))


def with_all_the_time(curves: Sequence[Curve], first: int, workers: int, orders: Sequence[Sequence[int]]) -> None:
    """Print what rules save, and what they stop."""
    budget = len(curves[0].accuracies)
    print()
    print("reduction  rungs      epochs saved (median, min-max)  hypervolume kept (median, min)  front stopped  go on")
    for reduction, levels in [
        *((reduction, rungs(budget, first)) for reduction in (2, 3, 4)),
        *((reduction, spaced(budget, first, reduction)) for reduction in (3, 4)),
    ]:
        runs = [replay(curves, levels=levels, reduction=reduction, workers=workers, order=order) for order in orders]
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
