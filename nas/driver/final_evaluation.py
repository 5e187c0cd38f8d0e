"""Evaluate the front when the trainings are over: test accuracy, and latency on this machine."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import optuna

from nas.driver.prepare import runtime_of
from nas.driver.record import Record
from nas.driver.run import Run
from nas.driver.scheduler import Candidate, Progress, Scheduler
from nas.files import write_atomic
from nas.latency import measure
from nas.units import counted

log = logging.getLogger(__name__)

MEASURE_SECONDS = 10.0


def to_evaluate(run: Run) -> list[Record]:
    """The networks of the front, and the queued (published, own) ones trained beside them."""
    return [
        record
        for record in run.records
        if record.on_front or (record.origin and record.state == "complete" and not record.untrained)
    ]


class FinalTest(Scheduler):
    """Lets the workers read the test images, side by side, when nothing is trained any more.

    Once for each network that is judged and has its weights; what was read before an interruption is not read again.

    Args:
        study: the run's; what was found out goes into its attribute ``confirmed``.
        run: as the search left it; its folder takes how each network judges the test images class by class.
    """

    def __init__(self, study: optuna.Study, run: Run) -> None:
        self.study = study
        self._run = run
        self._unread = [
            record
            for record in to_evaluate(run)
            if "test_accuracy" not in record.confirmed and run.checkpoint(record).exists()
        ]
        self.progress = Progress(budget=len(self._unread))
        if self._unread:
            log.info("reading the test images, for %s", counted(len(self._unread), "network"))

    def next_candidate(self) -> Candidate | None:
        if not self._unread:
            return None
        record = self._unread.pop(0)
        return Candidate(record.number, record.architecture, tested=True)

    def take_in(self, number: int, result: Mapping[str, Any]) -> bool:
        if "judgement" in result:
            file = self._run.judgement_file(number)
            file.parent.mkdir(exist_ok=True)
            write_atomic(file, json.dumps(result["judgement"], separators=(",", ":")))
        note(self.study, {number: result["test"]})
        return True

    def fail_trial(self, number: int, reason: str) -> None:
        """A network could not be tested; a resumed search tries again."""
        log.warning("trial %d: the test images could not be read with it: %s", number, reason)


def note(study: optuna.Study, found: Mapping[int, Mapping[str, Any]]) -> None:
    """Write down what was found out about closed trials; what was known already stays."""
    confirmed = dict(study.user_attrs.get("confirmed", {}))
    for number, figures in found.items():
        confirmed[str(number)] = {**confirmed.get(str(number), {}), **figures}
    study.set_user_attr("confirmed", confirmed)


def measure_latencies(run: Run, study: optuna.Study, num_classes: int, *, max_seconds: float = MEASURE_SECONDS) -> None:
    """Measure the evaluated networks that were not yet, on this machine's CPU, by the engine of the run's target.

    The search itself uses the CPU no more. `max_seconds`: how long to wait for a machine that is too busy.
    """
    records = [record for record in to_evaluate(run) if "latency_ms" not in record.confirmed]
    if not records:
        return
    log.info("measuring the latency of %s on this machine", counted(len(records), "network"))
    networks, runtime = [record.architecture for record in records], runtime_of(run.settings.parsed_target)
    figures = measure(networks, runtime, num_classes=num_classes, max_seconds=max_seconds)
    noisy = [figure.reason for figure in figures if figure.noisy]
    if noisy:
        all_of_them = counted(len(figures), "measured latency", "measured latencies")
        log.warning("%d of %s: %s; nas latency measures a network again", len(noisy), all_of_them, noisy[0])
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
