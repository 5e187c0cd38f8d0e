"""Training the front again: how much of an accuracy is the network's, and how much the luck of one seed.

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
from scipy import stats

from nas.driver.run import Record
from nas.driver.scheduler import Candidate, Progress
from nas.driver.time_left import TimeLeft

log = logging.getLogger(__name__)


class Confirmation:
    """Leads the trainings, as :class:`nas.driver.conductor.Conductor` leads a search.

    Args:
        study: the run's study.
        records: the networks.
        seeds: how often each is trained.
        epochs: of each training.
        max_failures: after so many failures in a row the fault is not the networks', and the confirmation ends; those
            failures are not written down, so that a resume trains these networks again.
        on_change: called with the progress after every change.
    """

    def __init__(
        self,
        study: optuna.Study,
        records: Sequence[Record],
        *,
        seeds: int,
        epochs: int,
        max_failures: int = 5,
        on_change: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.study = study
        self.epochs = epochs
        self.max_failures = max_failures
        self.on_change = on_change
        self.broken: str | None = None
        self._failures_in_a_row: list[tuple[Record, int, str]] = []
        self._jobs = [
            (record, seed) for seed in range(seeds) for record in records if str(seed) not in self._known(record)
        ]
        self.progress = Progress(budget=len(self._jobs))
        self._running: dict[int, tuple[Record, int]] = {}
        self._next = 0
        self._time_left = TimeLeft(epochs)
        log.info("training %d networks again with %d seeds and %d epochs", len(records), seeds, epochs)

    def next_candidate(self) -> Candidate | None:
        """The next training, or None when all are handed out, or the confirmation is broken."""
        if self.broken or self._next >= len(self._jobs):
            return None
        record, seed = self._jobs[self._next]
        number = self._next
        self._running[number] = (record, seed)
        self._next += 1
        self._time_left.start(number, record.costs["macs"], asked=True)
        self.progress.running += 1
        self._changed()
        return Candidate(
            number, record.architecture, seed_of=f"confirmation {seed}", checkpointed=False, epochs=self.epochs
        )

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in an epoch; the last one is what counts."""
        if "failure" in result:
            self.fail_trial(number, str(result["failure"]))
            return True
        self._time_left.epoch(number, result["epoch"]["seconds"])
        if int(result["epoch"]["epoch"]) < self.epochs:
            self._changed()
            return False
        record, seed = self._running.pop(number)
        accuracy = round(float(result["epoch"]["validation_accuracy"]), 6)
        self._write([*self._lost(), (record, seed, "repeats", accuracy)])
        self.progress.done += 1
        self._closed(number)
        return True

    def fail_trial(self, number: int, reason: str) -> None:
        """A training broke; the network has one accuracy fewer."""
        if number not in self._running:
            return
        self._failures_in_a_row.append((*self._running.pop(number), reason))
        self.progress.failed += 1
        self.progress.note = reason
        if len(self._failures_in_a_row) >= self.max_failures:
            self.broken = f"{len(self._failures_in_a_row)} trainings in a row failed, the last with: {reason}"
        elif self._next >= len(self._jobs) and not self._running:
            self._write(self._lost())
        self._closed(number)

    def _known(self, record: Record) -> set[str]:
        """The seeds that a network was trained with, successfully or not."""
        entry = self.study.user_attrs.get("confirmed", {}).get(str(record.number), {})
        return {seed for kind in ("repeats", "failed") for seed in entry.get(kind, {}).get(str(self.epochs), {})}

    def _lost(self) -> list[tuple[Record, int, str, str]]:
        """The failures that turned out to be the networks' own; they are none in a row any more."""
        lost = [(record, seed, "failed", reason) for record, seed, reason in self._failures_in_a_row]
        self._failures_in_a_row = []
        return lost

    def _write(self, found: Sequence[tuple[Record, int, str, float | str]]) -> None:
        confirmed = dict(self.study.user_attrs.get("confirmed", {}))
        for record, seed, kind, value in found:
            entry = confirmed.setdefault(str(record.number), {})
            entry.setdefault(kind, {}).setdefault(str(self.epochs), {})[str(seed)] = value
        self.study.set_user_attr("confirmed", confirmed)

    def _closed(self, number: int) -> None:
        self.progress.running -= 1
        self._time_left.close(number)
        self._changed()

    def _changed(self) -> None:
        to_come = [record.costs["macs"] for record, _ in self._jobs[self._next :]]
        self.progress.expect(self._time_left.seconds(to_come, 0))
        self.on_change(self.progress)


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
    found = []
    for record in records:
        if record.confirmed.get("accuracies"):
            found.append(Confirmed(record, record.confirmed["epochs"], tuple(record.confirmed["accuracies"])))
    return found


def rank_correlation(confirmed: Sequence[Confirmed]) -> float | None:
    """Spearman's, between the search's accuracy and the confirmed mean; None for fewer than three networks."""
    searched = [item.record.accuracy or 0.0 for item in confirmed]
    means = [item.mean for item in confirmed]
    if len(confirmed) < 3 or len(set(searched)) == 1 or len(set(means)) == 1:
        return None
    return float(stats.spearmanr(searched, means).statistic)
