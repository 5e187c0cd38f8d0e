"""Evaluate the front when the trainings are over: test accuracy, and latency on this machine."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from nas.driver.conductor import Conductor
from nas.driver.run import Record, Run
from nas.driver.study import Candidate
from nas.latency import measure

log = logging.getLogger(__name__)

MEASURE_SECONDS = 10.0


def to_judge(run: Run) -> list[Record]:
    """The networks of the front, and the queued (published, own) ones trained beside them."""
    return [
        record
        for record in run.records
        if record.on_front or (record.origin and record.state == "complete" and not record.untrained)
    ]


class ThenTestImages:
    """Leads a search, and when nothing is trained any more lets its workers read the test images, side by side.

    Once for each network that is judged; what was read before an interruption is not read again.

    Args:
        search: what is led first.
        study: the run's; what was found out goes into its attribute ``confirmed``.
        judged: the networks of :func:`to_judge` as the search left them.
    """

    def __init__(
        self,
        search: Conductor,
        study: optuna.Study,
        judged: Callable[[], Sequence[Record]],
    ) -> None:
        self.search = search
        self.study = study
        self._judged = judged
        self._unread: list[Record] | None = None
        self._reading: set[int] = set()

    @property
    def broken(self) -> str | None:
        return self.search.broken

    def next_candidate(self) -> Candidate | None:
        """The next network to train; when all are closed, the next one to be tested."""
        candidate = self.search.next_candidate()
        if candidate is not None or self.search.broken or self.search.progress.running:
            return candidate
        if self._unread is None:
            self._unread = [record for record in self._judged() if "test_accuracy" not in record.confirmed]
            if self._unread:
                log.info("reading the test images, for %d networks", len(self._unread))
        if not self._unread:
            return None
        record = self._unread.pop(0)
        self._reading.add(record.number)
        return Candidate(record.number, record.architecture, tested=True)

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in what a worker reported; returns whether it is done with this network."""
        if number not in self._reading:
            return self.search.report(number, result)
        if "failure" in result:
            self.fail_trial(number, str(result["failure"]))
        else:
            self._reading.remove(number)
            note(self.study, {number: result["test"]})
        return True

    def fail_trial(self, number: int, reason: str) -> None:
        """A training broke, or a network could not be tested."""
        if number not in self._reading:
            self.search.fail_trial(number, reason)
        else:
            self._reading.remove(number)
            log.warning("trial %d: the test images could not be read with it: %s", number, reason)


def note(study: optuna.Study, found: Mapping[int, Mapping[str, Any]]) -> None:
    """Write down what was found out about closed trials; what was known already stays."""
    confirmed = dict(study.user_attrs.get("confirmed", {}))
    for number, figures in found.items():
        confirmed[str(number)] = {**confirmed.get(str(number), {}), **figures}
    study.set_user_attr("confirmed", confirmed)


def measure_latencies(run: Run, study: optuna.Study, num_classes: int) -> None:
    """Measure the judged networks that were not yet, on this machine's CPU; the search itself uses it no more.

    Args:
        run: whose front, and queued networks, are measured.
        study: its study, to be written.
        num_classes: of the data set.
    """
    records = [record for record in to_judge(run) if "latency_ms" not in record.confirmed]
    if not records:
        return
    log.info("measuring the latency of %d networks on this machine", len(records))
    figures = measure([record.architecture for record in records], num_classes=num_classes, max_seconds=MEASURE_SECONDS)
    noisy = [figure.reason for figure in figures if figure.noisy]
    if noisy:
        advice = "nas latency measures a network again"
        log.warning("%d of these latencies are noisy: %s; %s", len(noisy), noisy[0], advice)
    note(
        study,
        {
            record.number: {
                "latency_ms": figure.value_ms,
                "latency_low_ms": figure.low_ms,
                "latency_high_ms": figure.high_ms,
                "latency_noisy": figure.reason if figure.noisy else "",
            }
            for record, figure in zip(records, figures, strict=True)
        },
    )
