"""One trial of a run, as reports and tables show it, read from the study."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas import pareto
from nas.architecture.document import Architecture
from nas.driver.objectives import Objective, losses
from nas.driver.settings import Settings
from nas.driver.study import SUPERNET_ACCURACY, curve_of, may_stand_on_front, of_what_ships
from nas.driver.validation import check_confirmed, check_trial

STATES: Mapping[TrialState, str] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Record:
    """One trial, as the report and the tables show it.

    accuracy   validation, last epoch; of a stopped trial the last one reached; None before the first epoch. On an int8
               target that of the int8 network once the trial is trained to the end
    balanced_accuracy  likewise, the mean over the classes; None also in runs of earlier versions
    fp32_accuracy  of the network as it was trained, where `accuracy` is that of int8; else None
    supernet_accuracy  what the supernet said of it before it was trained; None where none judged it
    reached    accuracies as the study has them, by name
    costs      known figures by objective name; ``latency`` is predicted, in ms
    curve      one mapping per epoch: epoch, accuracy, train_accuracy, loss, seconds, seconds_train, seconds_eval
    confirmed  what was found out after the search, as far as it was: test_accuracy and test_hits (one bit per test
               image, most significant first, as hexadecimal text; set where it was judged right), where these are
               those of int8 also fp32_test_accuracy; file_bytes and memory_bytes of what ships; latency_ms with
               latency_low_ms, latency_high_ms and latency_noisy (why it is not to be trusted); accuracies, one per
               seed, after epochs
    untrained  no worker had it: over a limit, the twin of an earlier trial, or taken from an earlier run
    origin     ``published`` or ``own`` (the user's) where it was queued; empty where the search found it
    beside     why it may not stand on the front, such as ``outside the space``; empty where it may
    """

    number: int
    architecture: Architecture
    state: str
    reason: str
    accuracy: float | None
    balanced_accuracy: float | None
    fp32_accuracy: float | None
    supernet_accuracy: float | None
    reached: Mapping[str, float]
    costs: Mapping[str, float]
    curve: Sequence[Mapping[str, float]]
    twin: int | None
    untrained: bool
    confirmed: Mapping[str, Any]
    origin: str
    beside: str
    params: Mapping[str, Any]
    started: datetime.datetime | None
    finished: datetime.datetime | None
    on_front: bool

    @property
    def published(self) -> bool:
        """Return whether it is a published network, trained here."""
        return self.origin == "published"

    @property
    def ended(self) -> bool:
        """Return whether it was trained to the end, here or in an earlier run, and is no second trial of a network."""
        return self.state == "complete" and self.twin is None

    @property
    def was_trained(self) -> bool:
        """Return whether the trial is closed and was given to a worker: these count towards the budget."""
        return self.state in ("complete", "stopped", "failed") and not self.untrained

    @property
    def was_imported(self) -> bool:
        """Return whether an earlier run trained it to the end: it may stand on the front and costs this run nothing."""
        return self.ended and self.untrained

    @property
    def seconds(self) -> float:
        """Worker time of all its epochs."""
        return sum(epoch["seconds"] for epoch in self.curve)

    @property
    def measured(self) -> dict[str, float]:
        """Return what was measured of the shipped file at the end, as far as it was, by objective name."""
        known = {"size": "file_bytes", "memory": "memory_bytes", "latency": "latency_ms"}
        return {name: value for name, key in known.items() if (value := self.confirmed.get(key)) is not None}

    def repeats(self, epochs: int) -> int:
        """Return how often the network was trained again for so many epochs, trainings that failed included."""
        return sum(len(self.confirmed.get(kind, {}).get(str(epochs), {})) for kind in ("repeats", "failed"))

    def value(self, objective: Objective) -> float | None:
        if objective.known:
            return self.costs.get(objective.name)
        return self.accuracy if objective.name == "accuracy" else self.balanced_accuracy


def read_records(study: optuna.Study, settings: Settings, where: str) -> list[Record]:
    """Read all trials of a study, in order.

    Raises:
        UserError: the study, called `where`, holds something else than a search writes.
    """
    objectives = settings.parsed_objectives
    confirmed = study.user_attrs.get("confirmed", {})
    check_confirmed(confirmed, where)
    space = settings.open_space(f"{where}: ")
    trials = [trial for trial in study.get_trials(deepcopy=False) if "document" in trial.user_attrs]
    for trial in trials:
        check_trial(trial, objectives, space, f"{where}: trial {trial.number}")
    front = front_numbers(trials, objectives)
    return [_record(trial, confirmed.get(str(trial.number), {}), trial.number in front, where) for trial in trials]


def front_numbers(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> set[int]:
    """Numbers of the trials on the front: those that may stand there and are dominated by none."""
    complete = [trial for trial in trials if may_stand_on_front(trial)]
    if not complete:
        return set()
    mask = pareto.front_mask(np.array([losses(objectives, trial.values) for trial in complete]))
    return {trial.number for trial, on_front in zip(complete, mask, strict=True) if on_front}


def _record(trial: FrozenTrial, confirmed: Mapping[str, Any], on_front: bool, where: str) -> Record:
    attributes = trial.user_attrs
    curve = curve_of(attributes)
    last = curve[-1] if curve else attributes
    names = [name for kind in ("accuracy", "balanced_accuracy") for name in (kind, f"int8_{kind}") if name in last]
    reached = {name: last[name] for name in names}
    shipped = of_what_ships(reached)
    if repeats := confirmed.get("repeats"):  # those of the longest trainings
        epochs = max(repeats, key=int)
        confirmed = {**confirmed, "epochs": int(epochs), "accuracies": list(repeats[epochs].values())}
    return Record(
        number=trial.number,
        architecture=Architecture.from_dict(attributes["document"], f"{where}: trial {trial.number}"),
        state=STATES[trial.state],
        reason=attributes.get("reason", ""),
        accuracy=shipped.get("accuracy"),
        balanced_accuracy=shipped.get("balanced_accuracy"),
        fp32_accuracy=reached["accuracy"] if "int8_accuracy" in reached else None,
        supernet_accuracy=attributes.get(SUPERNET_ACCURACY),
        reached=reached,
        costs=attributes.get("costs", {}),
        curve=curve,
        twin=attributes.get("twin"),
        untrained=attributes.get("untrained", False),
        confirmed=confirmed,
        origin=attributes.get("origin", ""),
        beside=attributes.get("beside", ""),
        params=trial.params,
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        on_front=on_front,
    )


CELLS: Mapping[str, Callable[[Record], Any]] = {
    "trial": lambda record: record.number,
    "id": lambda record: record.architecture.id,
    "name": lambda record: record.architecture.name,
    "state": lambda record: record.state,
    "accuracy": lambda record: record.accuracy,
    "test_accuracy": lambda record: record.confirmed.get("test_accuracy"),
    "params": lambda record: record.costs.get("params"),
    "macs": lambda record: record.costs.get("macs"),
    "size_bytes": lambda record: record.costs.get("size"),
    "latency_predicted_ms": lambda record: record.costs.get("latency"),
    "latency_measured_ms": lambda record: record.confirmed.get("latency_ms"),
    "epochs": lambda record: len(record.curve),
    "seconds": lambda record: round(record.seconds, 3),
    "on_front": lambda record: record.on_front,
    "reason": lambda record: record.reason or record.beside,
    "balanced_accuracy": lambda record: record.balanced_accuracy,
    "fp32_accuracy": lambda record: record.fp32_accuracy,
    "fp32_test_accuracy": lambda record: record.confirmed.get("fp32_test_accuracy"),
    "size_measured_bytes": lambda record: record.measured.get("size"),
    "memory_predicted_bytes": lambda record: record.costs.get("memory"),
    "memory_measured_bytes": lambda record: record.measured.get("memory"),
}

COLUMNS = (*CELLS, "accuracy_low", "accuracy_high", "accuracy_expected", "front_probability")
"""Columns of ``trials.csv``."""
WHOLE = ("size_measured_bytes", "memory_predicted_bytes", "memory_measured_bytes")
"""Columns of whole numbers that are not known of every trial; pandas would make floats of them."""
