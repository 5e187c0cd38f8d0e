"""Runs for the report's tests.

`trained_run` trains. `invented_run` does not: spaces, costs, stopping and states are real, the accuracies are invented;
it serves to see how the report looks and how fast it is with many trials, and says nothing about any network.
"""

import datetime
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import runs

from nas.architecture import catalogue
from nas.architecture.document import Architecture
from nas.costs.analytic import cost
from nas.driver.prepare import cost_function, queued
from nas.driver.record import Record
from nas.driver.run import Run
from nas.driver.run_file import describe_data, describe_environment
from nas.driver.settings import Settings
from nas.driver.stopping import DominanceStopping, rungs
from nas.driver.study import SearchStudy
from nas.driver.trial_scheduler import TrialScheduler
from nas.latency import Prediction
from nas.training.data import load_dataset
from nas.training.evaluate import evaluate
from nas.training.evaluator import TrainingEvaluator
from nas.training.recipe import Recipe

WORKERS = 2

SMALL = {
    "name": "small",
    "input": {"channels": 1, "resolution": 8},
    "stem": {"channels": 8},
    "stages": [
        {"block": "inverted_residual", "channels": 8, "expansion": {"choice": [1, 2, 3, 4]}},
        {
            "block": "inverted_residual",
            "channels": 16,
            "stride": 2,
            "expansion": {"choice": [1, 2, 4]},
            "kernels": {"choice": [[3], [3, 5]]},
        },
    ],
}


def trained_run(folder: Path) -> Run:
    """Six networks of a few thousand parameters, really trained for three epochs on the digits; the test set read."""
    digits = load_dataset("digits", train_size=500)
    recipe = Recipe(epochs=3, lr=0.05, batch_size=32, warmup_epochs=0)
    settings = Settings(space=SMALL, train_size=500, objectives=("accuracy", "size"), recipe=recipe.to_dict(), trials=6)
    study = runs.begin(folder, settings)
    scheduler = TrialScheduler(
        study,
        stopping=DominanceStopping(rungs(3), 3),
        epochs=3,
        trials=6,
    )
    evaluator = TrainingEvaluator(digits, recipe)
    confirmed = {}
    while (candidate := scheduler.next_candidate()) is not None:
        trainer = evaluator.trainer(candidate.architecture, 0)
        for epoch in trainer.epochs():
            seconds = epoch.seconds_train + epoch.seconds_eval
            if scheduler.report(candidate.number, {"epoch": {**asdict(epoch), "seconds": seconds}}):
                break
        images = digits.for_network(1, 8)
        test = evaluate(trainer.evaluated_network, images, "test").accuracy
        confirmed[str(candidate.number)] = {"test_accuracy": test}
    front = {str(record.number) for record in Run.open(folder).front_records}
    study.study.set_user_attr("confirmed", {number: found for number, found in confirmed.items() if number in front})
    run = Run.open(folder)
    run.write_tables()
    return run


def invented_run(
    path: Path,
    *,
    trials: int = 40,
    epochs: int = 9,
    objectives: Sequence[str] = ("accuracy", "size", "latency"),
    limits: Sequence[str] = (),
    published: str = "contained",
    own: Sequence[Architecture] = (),
    fails: Callable[[int], str | None] = lambda number: None,
    confirmed: bool = True,
    closed: int | None = None,
    seed: int = 0,
    dataset: str = "digits",
) -> Run:
    """A run as a search would leave it.

    Args:
        own: networks of the user's, queued first.
        fails: the reason why a trial fails in its first epoch; None for one that does not.
        confirmed: whether the front's test accuracy and latency were read.
        closed: after so many reports the driver is gone; default: the search ends.
        dataset: only its name is used.
    """
    digits = load_dataset("digits")
    space = catalogue.load_space("inverted_residual").with_input(channels=1, resolution=8)
    settings = Settings(
        space=dict(space.document),
        dataset=dataset,
        objectives=tuple(objectives),
        limits=tuple(limits),
        recipe=Recipe(epochs=epochs, warmup_epochs=0).to_dict(),
        trials=trials,
        published=published,
        enqueue=tuple(architecture.to_dict() for architecture in own),
        sampler="random",
        seed=seed,
    )
    study = SearchStudy(
        optuna.create_study(
            directions=["maximize" if o.maximise else "minimize" for o in settings.parsed_objectives],
            sampler=optuna.samplers.RandomSampler(seed=seed),
        ),
        space=space,
        objectives=settings.parsed_objectives,
        limits=settings.parsed_limits,
        costs=cost_function(10, _latency if "latency" in objectives else None),
    )
    for architecture, origin in queued(settings, space, digits):
        study.enqueue(architecture, origin)
    stopping = DominanceStopping(rungs(epochs), settings.reduction)
    scheduler = TrialScheduler(study, stopping=stopping, epochs=epochs, trials=trials, max_failures=10**6)
    times = _train(scheduler, epochs, fails, closed)
    known = {"environment": describe_environment("cpu"), "study": study.study, "data": describe_data(digits)}
    run = Run(path, settings, **known)
    if confirmed:
        study.study.set_user_attr("confirmed", _confirmed(run, "latency" in objectives))
        run = Run(path, settings, **known)
    start = datetime.datetime(2026, 5, 1, 9, 30)
    run.records = [_timed(record, start, times) for record in run.records]
    return run


def _train(
    scheduler: TrialScheduler, epochs: int, fails: Callable[[int], str | None], closed: int | None
) -> dict[int, tuple[float, float]]:
    """Two workers in invented time; returns when each trial began and ended, in seconds."""
    times: dict[int, tuple[float, float]] = {}
    free = [(0.3 * worker, worker) for worker in range(WORKERS)]
    heapq.heapify(free)
    reports = 0
    while free:
        now, worker = heapq.heappop(free)
        candidate = scheduler.next_candidate()
        if candidate is None:
            continue
        began, number = now, candidate.number
        rng = np.random.default_rng(number)
        macs = cost(candidate.architecture, 10).macs
        for epoch in range(1, epochs + 1):
            reports += 1
            if closed is not None and reports > closed:
                return times
            seconds = (0.4 + 3e-7 * macs) * rng.uniform(0.9, 1.3)
            now += seconds
            reason = fails(number)
            if reason is not None:
                scheduler.report(number, {"failure": reason})
                break
            if scheduler.report(number, {"epoch": _epoch(candidate.architecture, epoch, epochs, seconds, rng)}):
                break
        times[number] = (began, now + 0.1)
        heapq.heappush(free, (now + rng.uniform(0.1, 0.5), worker))
    return times


def _epoch(
    architecture: Architecture, epoch: int, epochs: int, seconds: float, rng: np.random.Generator
) -> dict[str, float]:
    figures = cost(architecture, 10)
    early, late = (
        np.mean([getattr(stage, "expansion", 1) for stage in stages])
        for stages in (architecture.stages[1:4], architecture.stages[4:] or architecture.stages[-1:])
    )
    best = 0.99 - 0.25 * math.exp(-0.55 * math.log10(figures.params / 2e4) - 0.12 * early - 0.02 * late)
    reached = best * (1 - 0.85 * math.exp(-4.5 * epoch / epochs)) + rng.normal(0, 0.012)
    accuracy = float(np.clip(reached, 0.05, 1))
    return {
        "epoch": epoch,
        "validation_accuracy": accuracy,
        "train_accuracy": min(1.0, accuracy + 0.01),
        "loss": 2.3 * (1 - accuracy),
        "seconds": seconds,
        "seconds_train": 0.86 * seconds,
        "seconds_eval": 0.06 * seconds,
    }


def _latency(architecture: Architecture) -> Prediction:
    """Invented."""
    value = 0.3 + 4e-7 * cost(architecture, 10).macs
    return Prediction(value, value, value)


def _confirmed(run: Run, latency: bool) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(1)
    found: dict[str, dict[str, Any]] = {}
    for record in run.records:
        beside = record.published and record.state == "complete"
        if (record.on_front or beside) and record.accuracy is not None:
            found[str(record.number)] = {"test_accuracy": record.accuracy - abs(rng.normal(0.008, 0.006))}
            again = {str(s): record.accuracy - 0.004 + rng.normal(0, 0.006) for s in range(3)}
            found[str(record.number)]["repeats"] = {str(len(record.curve)): again}
            if latency:
                measured = record.costs["latency"] * rng.uniform(0.9, 1.25)
                spread = {"latency_low_ms": 0.96 * measured, "latency_high_ms": 1.07 * measured}
                found[str(record.number)] |= {"latency_ms": measured, **spread}
    return found


def _timed(record: Record, start: datetime.datetime, times: dict[int, tuple[float, float]]) -> Record:
    if record.number not in times:
        return record
    began, ended = (start + datetime.timedelta(seconds=seconds) for seconds in times[record.number])
    return replace(record, started=began, finished=ended if record.finished else None)
