"""What int8 costs in accuracy, and whether it changes which network is the better one.

Random networks of a space, small ones for a CPU, without conditional convolutions so that every target runs the same
ones, are trained briefly on CIFAR-10. Each is then quantised as `nas export --int8` does it (PTQ), and fine-tuned as
int8 computes and quantised again (QAT), as `nas train --target` does where int8 loses over 0.5 points; here every
network is, whatever it loses. Beside that, the same fine-tuning in float, to see what more steps alone give. Test
accuracies in %; ranks are compared by Spearman's correlation, its 95% interval over resampled networks.

    python benchmarks/int8_accuracy.py --data-dir DIR --record ROWS.jsonl --out results/benchmarks/int8_accuracy.txt

Rows are printed as they come; with `--record` an interrupted run goes on.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import Output, parser
from scipy.stats import spearmanr

import nas
from nas.architecture.catalogue import load_space
from nas.export import judging
from nas.export.shipping import ship
from nas.targets import TARGETS, Target, restricted
from nas.training.data import Dataset, load_dataset
from nas.training.evaluator import TrainingEvaluator
from nas.training.recipe import Recipe, load_recipe

FIGURES = ("fp32", "PTQ", "QAT", "QAT fp32", "float")


def measure(architecture: nas.Architecture, data: Dataset, recipe: Recipe, target: Target, seed: int) -> dict[str, Any]:
    """Train a network, and let its forms judge the test images."""
    started = time.perf_counter()
    saved = []
    for _ in TrainingEvaluator(data, recipe).run(architecture, seed=seed, on_end=lambda *end: saved.append(end)):
        pass
    checkpoint, images = saved[0]
    trained = time.perf_counter()

    def int8(weights: nas.training.checkpoint.Checkpoint) -> float:
        return ship(target, weights, images).judge(images, "test").accuracy

    tuned, tuned_fp32 = judging.fine_tuned(checkpoint, images, per_tensor=target.per_tensor)
    seconds = time.perf_counter() - trained
    longer = TrainingEvaluator(images, replace(recipe.for_int8(), qat=0.0)).trainer(architecture, seed=0)
    longer.network.load_state_dict(checkpoint.weights)
    list(longer.epochs())
    evaluator = TrainingEvaluator(images, recipe).trainer(architecture, seed=0)
    evaluator.network.load_state_dict(checkpoint.weights)
    return {
        "fp32": evaluator.evaluate("test").accuracy,
        "PTQ": int8(checkpoint),
        "QAT": int8(tuned),
        "QAT fp32": tuned_fp32,
        "float": longer.evaluate("test").accuracy,
        "seconds": [trained - started, seconds],
    }


def rank(ours: list[float], theirs: list[float]) -> str:
    """Spearman's correlation and its 95% interval by resampling networks."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(ours), size=len(ours)) for _ in range(2000)]
    values = [spearmanr(np.take(ours, draw), np.take(theirs, draw)).statistic for draw in draws]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return f"{spearmanr(ours, theirs).statistic:.3f} ({low:.3f} to {high:.3f})"


def summarise(out: Output, rows: list[dict[str, Any]]) -> None:
    """Print mean, standard deviation and extremes of what is lost, and how the ranks agree."""
    if len(rows) < 3:
        return
    values = {name: [100 * row[name] for row in rows] for name in FIGURES}
    out(f"fp32 from {min(values['fp32']):.1f} to {max(values['fp32']):.1f} %, n = {len(rows)} networks")
    for name, what in (
        ("PTQ", "int8 by PTQ"),
        ("QAT", "int8 by QAT"),
        ("QAT fp32", "fp32 of the same weights"),
        ("float", "fine-tuned in float, fp32"),
    ):
        lost = [before - after for before, after in zip(values["fp32"], values[name], strict=True)]
        over = sum(item > 100 * judging.MOST_LOST for item in lost)
        out(
            f"{what:26} loses {statistics.fmean(lost):+.2f} points on average (deviation {statistics.stdev(lost):.2f}, "
            f"{min(lost):+.2f} to {max(lost):+.2f}); over 0.5 points: {over}"
        )
    for name in ("PTQ", "QAT"):
        out(f"Spearman of fp32 and {name}: {rank(values['fp32'], values[name])}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--networks", type=int, default=20)
    arguments.add_argument("--space", default="micro")
    arguments.add_argument("--most-macs", type=float, default=2e6, help="of a network; larger draws are left out")
    arguments.add_argument("--target", default="onnxruntime-int8", help="or litert-int8, where the extra litert is")
    arguments.add_argument("--data-dir", type=Path)
    arguments.add_argument("--resolution", type=int, default=32)
    arguments.add_argument("--train-size", type=int, default=4000)
    arguments.add_argument("--test-size", type=int, default=5000)
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--record", type=Path, help="keep the rows in this file of JSON lines, and go on from it")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    target = TARGETS[given.target]
    target.require()
    out = Output(given.out)
    data = load_dataset("cifar10", data_dir=given.data_dir, train_size=given.train_size, resolution=given.resolution)
    data = replace(data, test=data.test.take(torch.arange(min(given.test_size, len(data.test)))))
    recipe = load_recipe("search").for_images(len(data.train), epochs=given.epochs)
    steps = recipe.for_int8().epochs * (recipe.all_steps(len(data.train)) // recipe.epochs)
    out(
        f"{target.name}, {given.space} up to {given.most_macs:,.0f} MACs, cifar10 at "
        f"{given.resolution}x{given.resolution}, {len(data.test)} test images"
    )
    out(f"{recipe.budget(len(data.train))}; fine-tuning: {steps} steps, learning rate {recipe.for_int8().lr:g}")
    out(f"{'network':20}{'size':>10}{'MACs':>12}" + "".join(f"{name:>10}" for name in FIGURES) + "   seconds")
    known = {}
    if given.record and given.record.exists():
        known = {row["id"]: row for row in map(json.loads, given.record.read_text().splitlines())}
    space, _ = restricted(load_space(given.space), TARGETS["litert"])
    rows = []
    drawn = (space.sample(seed).with_input(channels=3, resolution=given.resolution) for seed in itertools.count())
    fitting = (network for network in drawn if nas.cost(network).macs <= given.most_macs)
    for seed, architecture in enumerate(itertools.islice(fitting, given.networks)):
        row = known.get(architecture.id) or {
            "id": architecture.id,
            **measure(architecture, data, recipe, target, seed),
        }
        if given.record and architecture.id not in known:
            with given.record.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
        costs = f"{target.size(architecture, len(data.classes)):10,}{nas.cost(architecture).macs:12,}"
        accuracies = "".join(f"{100 * row[name]:10.2f}" for name in FIGURES)
        out(f"{architecture.id:20}{costs}{accuracies}   {row['seconds'][0]:.0f} + {row['seconds'][1]:.0f}")
    summarise(out, rows)


if __name__ == "__main__":
    main()
