"""Seconds that a trial takes beside training and validating: ours against Ray Tune's function trainable with defaults.

One trial at a time on both sides, one epoch each on digits. A trial's time is that from the end of the trial before to
its own end; what its epoch took, training and validation, is taken off. The first trial of each side, which starts
everything, stands apart.

Ours is a real search (`nas.search`): included are the sampler's proposal, the study's records, Ray's scheduling, the
worker's change of networks, building the network and writing its checkpoint. Ray's side is a function that reads the
data, builds the network and trains it with our own trainer, as a user would write it; included are Ray's scheduling, a
new worker process per trial with its imports, and Ray's own records.

    python benchmarks/trial_overhead.py --out results/benchmarks/trial_overhead.txt
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from machine import Output, parser, spread
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune

import nas
from nas.driver.options import Resources
from nas.training.recipe import RECIPES

SPACE, RECIPE = "inverted_residual", RECIPES["search"].with_epochs(1)


def train_one(config: dict[str, Any]) -> None:
    """Ray's function trainable; imports inside of it, since Ray pickles it with its globals."""
    import torch

    import nas
    from nas.training.data import load_dataset
    from nas.training.loop import Trainer

    torch.set_num_threads(1)
    architecture = nas.Architecture.from_dict(config["document"])
    dataset = load_dataset("digits", train_size=config["train_size"])
    data = dataset.for_network(architecture.input.channels, architecture.input.resolution, config["device"])
    torch.manual_seed(0)
    trainer = Trainer(nas.build(architecture, len(data.classes)), data, RECIPE)
    for epoch in trainer.epochs():
        seconds = epoch.seconds_train + epoch.seconds_eval
        tune.report({"accuracy": epoch.validation_accuracy, "training": seconds, "ended": time.time()})


def ray_defaults(trials: int, train_size: int, device: str) -> list[float]:
    """Seconds beside training, trial by trial, the first one's from the start of all."""
    space = nas.load_space(SPACE).with_input(channels=1, resolution=8)
    documents = [space.sample(index).to_dict() for index in range(trials)]
    parameters = {"document": tune.grid_search(documents), "train_size": train_size, "device": device}
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(train_one, {"CPU": 1, "GPU": 1 if device.startswith("cuda") else 0}),
            param_space=parameters,
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    if results.errors:
        raise results.errors[0]
    metrics = sorted((result.metrics for result in results), key=lambda metrics: metrics["ended"])
    return beside([entry["ended"] for entry in metrics], [entry["training"] for entry in metrics], started)


def ours(trials: int, train_size: int) -> tuple[list[float], list[float]]:
    """Seconds beside training, trial by trial; and the part of them that passes in the worker's steps."""
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        run = nas.search(
            SPACE,
            dataset="digits",
            train_size=train_size,
            objectives=("accuracy", "size"),
            recipe=RECIPE,
            trials=trials,
            published="none",
            out=Path(folder) / "run",
            resources=Resources(max_concurrent=1, cpus_per_trial=1),
        )
        journal = JournalStorage(JournalFileBackend(str(run.path / "study.journal")))
        (study,) = optuna.get_all_study_summaries(journal)
        done = [
            trial
            for trial in optuna.load_study(study_name=study.study_name, storage=journal).trials
            if "epoch:1" in trial.user_attrs and trial.datetime_complete is not None
        ]
    done.sort(key=lambda trial: trial.datetime_complete or datetime.datetime.min)
    epochs = [trial.user_attrs["epoch:1"] for trial in done]
    training = [epoch["seconds_train"] + epoch["seconds_eval"] for epoch in epochs]
    ends = [trial.datetime_complete.timestamp() for trial in done if trial.datetime_complete]
    in_steps = [epoch["seconds"] - seconds for epoch, seconds in zip(epochs, training, strict=True)]
    return beside(ends, training, started), in_steps


def beside(ends: Sequence[float], training: Sequence[float], started: float) -> list[float]:
    begins = [started, *ends[:-1]]
    return [end - begin - trained for begin, end, trained in zip(begins, ends, training, strict=True)]


def measured(side: str, given: argparse.Namespace) -> Any:
    """What a side returns, from a process of its own: Ray's remains are not in the other's way."""
    options = ["--trials", given.trials, "--train-size", given.train_size, "--device", given.device]
    command = [sys.executable, __file__, "--side", side, *options]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=50)
    arguments.add_argument("--train-size", type=int, default=500, help="images; few, since training is not measured")
    arguments.add_argument("--side", choices=("ray", "ours"), help="this one alone, as JSON")
    given = arguments.parse_args()
    if given.side == "ray":
        print(json.dumps(ray_defaults(given.trials + 1, given.train_size, given.device)))
        return
    if given.side == "ours":
        print(json.dumps(ours(given.trials + 1, given.train_size)))
        return
    output = Output(given.out)
    output(f"seconds per trial beside training and validation, n = {given.trials} trials, median [quartiles]")
    our_seconds, in_steps = measured("ours", given)
    ray_seconds = measured("ray", given)
    for name, values in (("Ray's function trainable", ray_seconds), ("ours", our_seconds)):
        output(f"{name:26}{spread(values[1:], '.3f')}, longest {max(values[1:]):.3f}; first trial {values[0]:.1f}")
    output(f"{'  of ours, in the worker':26}{spread(in_steps[1:], '.3f')}: building, first use, checkpoint")


if __name__ == "__main__":
    main()
