"""Training the front again: how much of an accuracy is the network's, and how much the luck of one seed and split.

With each seed the validation images are drawn again too, the same for all networks, so that an accuracy is not that of
the images by which the front was chosen (X. Bouthillier et al., "Accounting for Variance in Machine Learning
Benchmarks", MLSys 2021). A validation part of the data set's own stays.

Every network of the front, and the published networks trained beside it, is trained with several seeds, for longer if
asked, and none is stopped early. The accuracies stand in the study's attribute ``confirmed``, by trial number, as
``repeats``, by epochs and seed, so that a confirmation that was interrupted goes on; the reasons of trainings that
failed stand there likewise, as ``failed``.
"""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from nas.driver.record import Record
from nas.driver.scheduler import Candidate, Progress, Scheduler
from nas.driver.time_budget import TimeBudget
from nas.driver.time_left import TimeLeft
from nas.units import counted

log = logging.getLogger(__name__)


class Confirmation(Scheduler):
    """The scheduler of these trainings.

    Args:
        study: the run's study.
        records: the networks.
        seeds: number of trainings of each.
        epochs: of each training.
        resplits: whether the validation images can be drawn again.
        max_failures: after so many failures in a row the fault is not the networks', and the confirmation ends; those
            failures are not written down, so that a resume trains these networks again.
        on_change: called with the progress after every change.
        time: when all has to be done, if ever: what cannot end until then is left out.
        times: of the trials.
    """

    def __init__(
        self,
        study: optuna.Study,
        records: Sequence[Record],
        *,
        seeds: int,
        epochs: int,
        resplits: bool = False,
        max_failures: int = 5,
        on_change: Callable[[Progress], None] = lambda progress: None,
        time: TimeBudget | None = None,
        times: TimeLeft | None = None,
    ) -> None:
        self.study = study
        self.epochs = epochs
        self.resplits = resplits
        self.max_failures = max_failures
        self.on_change = on_change
        self._time, self._times, self._networks = time, times, len(records)
        self._jobs = [
            (record, seed)
            for seed in range(seeds)
            for record in records
            if not any(str(seed) in record.confirmed.get(kind, {}).get(str(epochs), {}) for kind in _KINDS)
        ]
        self.progress = Progress(budget=len(self._jobs))
        self._running: set[int] = set()
        self._next = 0
        self._failures_in_a_row: list[tuple[int, str]] = []
        self._time_left = TimeLeft(epochs)
        again = (counted(len(records), "network"), counted(seeds, "other seed"), counted(epochs, "epoch"))
        log.info("training %s again with %s, %s each", *again)

    def next_candidate(self) -> Candidate | None:
        while self._next < len(self._jobs) and not self._can_end(self._jobs[self._next][0], self.epochs):
            self._next += 1
            self.progress.budget -= 1
            self.progress.note = "no time for all of them"
        if self.broken or self._next >= len(self._jobs):
            return None
        number, (record, seed) = self._next, self._jobs[self._next]
        self._running.add(number)
        self._next += 1
        self._time_left.start(number, record.costs["macs"], asked=True)
        self.progress.running += 1
        self._changed()
        purpose = f"confirmation {seed}"
        return Candidate(
            number,
            record.architecture,
            seed_of=purpose,
            split_of=purpose if self.resplits else "",
            checkpointed=False,
            epochs=self.epochs,
            seconds=None if self._time is None else self._time.for_confirmation(self._networks),
        )

    def take_in(self, number: int, result: Mapping[str, Any]) -> bool:
        epoch = result["epoch"]
        self._time_left.epoch(number, epoch["seconds"])
        done = int(epoch["epoch"])
        if done < self.epochs and self._can_end(self._jobs[number][0], self.epochs - done):
            self._changed()
            return False
        if done < self.epochs:
            self.give_up(number, f"epoch {done}")
            return True
        self._write_failures()
        self._write(number, "repeats", round(float(epoch.get("int8_accuracy", epoch["validation_accuracy"])), 6))
        self.progress.done += 1
        self._closed(number)
        return True

    def fail_trial(self, number: int, reason: str) -> None:
        """Take in that a training broke; the network has one accuracy fewer."""
        if number not in self._running:
            return
        self._failures_in_a_row.append((number, reason))
        self.progress.failed += 1
        self.progress.note = reason
        if len(self._failures_in_a_row) >= self.max_failures:
            self.broken = f"{len(self._failures_in_a_row)} trainings in a row failed, the last with: {reason}"
        elif self._next >= len(self._jobs) and self._running == {number}:
            self._write_failures()
        self._closed(number)

    def _can_end(self, record: Record, epochs: int) -> bool:
        if self._time is None or self._times is None:
            return True
        seconds = self._times.training(record.costs["macs"], epochs) or 0.0
        return seconds <= self._time.for_confirmation(self._networks)

    def give_up(self, number: int, step: str) -> None:
        self.progress.budget -= 1
        self.progress.note = "no time for all of them"
        self._closed(number)

    def _write_failures(self) -> None:
        """Write down the failures that turned out to be the networks' own; they are none in a row any more."""
        for number, reason in self._failures_in_a_row:
            self._write(number, "failed", reason)
        self._failures_in_a_row.clear()

    def _write(self, number: int, kind: str, value: float | str) -> None:
        record, seed = self._jobs[number]
        confirmed = dict(self.study.user_attrs.get("confirmed", {}))
        by_epochs = confirmed.setdefault(str(record.number), {}).setdefault(kind, {})
        by_epochs.setdefault(str(self.epochs), {})[str(seed)] = value
        self.study.set_user_attr("confirmed", confirmed)

    def _closed(self, number: int) -> None:
        self._running.remove(number)
        self.progress.running -= 1
        self._time_left.close(number)
        self._changed()

    def _changed(self) -> None:
        to_come = [record.costs["macs"] for record, _ in self._jobs[self._next :]]
        left = self._time_left.seconds(to_come, 0)
        if left is not None and self._time is not None:
            left = max(0.0, min(left, self._time.for_confirmation(self._networks)))
        self.progress.expect(left)
        self.on_change(self.progress)


_KINDS = ("repeats", "failed")


@dataclass(frozen=True)
class Confirmed:
    """A network's accuracies over seeds, at one number of epochs."""

    record: Record
    epochs: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation; 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def confirmed_networks(records: Sequence[Record]) -> list[Confirmed]:
    """Return what was confirmed."""
    return [
        Confirmed(record, record.confirmed["epochs"], tuple(record.confirmed["accuracies"]))
        for record in records
        if record.confirmed.get("accuracies")
    ]
