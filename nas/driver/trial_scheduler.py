"""The search itself: which network next, whether a trial goes on, when it is over. Knows nothing of Ray.

The runner (:mod:`nas.driver.tuning`, on Ray Tune) asks :meth:`TrialScheduler.next_candidate` whenever a worker is free,
gives every epoch to :meth:`TrialScheduler.report`, and says so when a worker is lost.
"""

import hashlib
import logging
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from nas import pareto
from nas.architecture.document import Architecture
from nas.driver.objectives import losses
from nas.driver.scheduler import Candidate, Progress, Scheduler
from nas.driver.stopping import DominanceStopping
from nas.driver.study import SearchStudy, curve_of, may_stand_on_front
from nas.driver.time_budget import TimeBudget
from nas.driver.time_left import TimeLeft

log = logging.getLogger(__name__)

SPARE = 0.9
"""Where a proposal does not fit into the time, the next ones take at most so much of what is left."""


class TrialScheduler(Scheduler):
    """See the module's docstring.

    Args:
        study: the record.
        stopping: the early-stopping rule.
        epochs: the full budget of a trial.
        trials: number of networks to train.
        images: in the validation part.
        max_failures: after so many failures in a row the fault is not the networks', and the search ends.
        on_change: called with the progress after every change.
        discard: told the number of a trial whose weights are of no more use.
        time: when all has to be done, if ever.
        narrow: lets the sampler propose networks of at most so many MACs; tells whether the space has any.
    """

    def __init__(
        self,
        study: SearchStudy,
        *,
        stopping: DominanceStopping,
        epochs: int,
        trials: int,
        images: int | None = None,
        max_failures: int = 5,
        on_change: Callable[[Progress], None] = lambda progress: None,
        discard: Callable[[int], None] = lambda number: None,
        time: TimeBudget | None = None,
        narrow: Callable[[float], bool] = lambda macs: False,
    ) -> None:
        self.study = study
        self.stopping = stopping
        self.epochs = epochs
        self.max_failures = max_failures
        self.on_change = on_change
        self.discard = discard
        self.progress = Progress(budget=trials, images=images)
        self.time = time
        self.time_left = TimeLeft(epochs)
        for macs, seconds in time.rehearsed if time is not None else ():
            self.time_left.rehearse(macs, seconds)
        self._narrow = narrow
        self._narrowed = time is not None and time.most_macs < math.inf and narrow(time.most_macs)
        self._trials = trials
        self._macs: dict[int, float] = {}
        self._asked: set[int] = set()
        self._ended = False
        self._failures_in_a_row = 0
        self._losses: dict[int, list[float]] = {}
        self._front: set[int] = set()
        waiting = study.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queue = {t.number: Architecture.from_dict(t.user_attrs["document"], f"trial {t.number}") for t in waiting}
        self._queue_macs = {number: study.costs(architecture)["macs"] for number, architecture in queue.items()}
        reopened = study.reopen()
        self._recall()
        self._reopened = [candidate for candidate in reopened if not self._ended_before(candidate.number)]

    def next_candidate(self) -> Candidate | None:
        """The next network to train, or None when the budget is spent, the space is, or the search is broken."""
        progress = self.progress
        if self.broken:
            return None
        if self._reopened:
            candidate = self._reopened.pop(0)
        else:
            if progress.closed + progress.running >= self._trials or self._is_late():
                return None
            proposed = self._proposed_in_time()
            if proposed is None and self._narrowed:  # the space may well hold more
                self._end()
            if proposed is None and self._ended:
                return None
            if proposed is None:
                self.study.study.set_user_attr("exhausted", True)
                within = " that keep the limits" if self.study.limits else ""
                progress.note = f"the space holds no more networks{within}"
                progress.budget = self._trials = progress.closed + progress.running
                return None
            candidate, macs = proposed, self.study.costs(proposed.architecture)["macs"]
            asked = candidate.number in self._queue_macs
            if asked:
                self._asked.add(candidate.number)
            self.time_left.start(candidate.number, macs, asked=asked)
            self._macs[candidate.number] = macs
            # What came before it in the queue and was not worth training has been passed over.
            self._queue_macs = {number: macs for number, macs in self._queue_macs.items() if number > candidate.number}
        progress.running += 1
        self._changed()
        return candidate if self.time is None else replace(candidate, seconds=self._seconds_for_trials(0.5))

    def take_in(self, number: int, result: Mapping[str, Any]) -> bool:
        front_before = self._front
        epoch = _metrics(result["epoch"])
        ends = False
        # Written as one: a driver that dies leaves an epoch together with what followed from it, or neither.
        with self.study.batch():
            # Else it is from the worker's checkpoint, for a driver that may not have heard of it.
            if epoch["epoch"] > self.study.epochs_done(number):
                self.study.record_epoch(number, epoch)
                self.time_left.epoch(number, epoch["seconds"])
                if self.time is not None:
                    self.time.validated(self._macs[number], epoch["seconds_eval"])
                ends = self._close_if_ended(number)
        if ends:
            self._closed(number)
            self._failures_in_a_row = 0
            self._discard_unneeded({number} | (front_before - self._front))
        self._changed()
        return ends

    def fail_trial(self, number: int, reason: str) -> None:
        if number not in self.study.running():
            return
        self.study.fail(number, reason)
        self._closed(number)
        self.progress.failed += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.max_failures:
            self.broken = f"{self._failures_in_a_row} trials in a row failed, the last with: {reason}"
        self._discard_unneeded({number})
        self._changed()

    def give_up(self, number: int, step: str) -> None:
        """Close a trial whose time was over within an epoch: stopped, with what it had reached before; one that was
        never judged has failed, through no fault of its own.
        """
        done = self.study.epochs_done(number)
        if done:
            self.study.stop(number, f"out of time at {step}, judged at epoch {done} of {self.epochs}", self.epochs)
            self.progress.stopped += 1
        else:
            self.study.fail(number, f"out of time at {step}, before it was judged")
            self.progress.failed += 1
        self._closed(number)
        self._discard_unneeded({number})
        self._changed()

    def needs_weights(self, number: int) -> bool:
        """Tell whether a trial's weights are needed: it runs, is queued, or stands on the front."""
        return number in self.study.running() or number in self._front or self.study.is_queued(number)

    def _is_late(self) -> bool:
        """Tell whether nothing can be begun any more, however small."""
        if self.time is not None and not self._ended and self._seconds_for_trials() <= 0:
            self._end()
        return self._ended

    def _end(self) -> None:
        self._ended = True
        self.progress.note = "no time for more"
        self._changed()

    def _can_end(self, macs: float, epochs: int | None = None, confirming: float = 1.0) -> bool:
        """Tell whether a training, or the last epochs of one, ends before the time that is kept for the end."""
        if self.time is None:
            return True
        seconds = self.time_left.training(macs, epochs)
        return seconds is None or seconds <= self._seconds_for_trials(confirming)

    def _seconds_for_trials(self, confirming: float = 1.0) -> float:
        assert self.time is not None
        evaluated = [macs for number, macs in self._macs.items() if number in self._front or number in self._asked]
        return self.time.for_trials(evaluated, self.time_left, confirming=confirming)

    def _proposed_in_time(self) -> Candidate | None:
        """Propose a network that can be trained in time; after one that cannot, the next ones are to be smaller."""
        while (proposed := self.study.propose()) is not None:
            if self._can_end(self.study.costs(proposed.architecture)["macs"]):
                return proposed
            self.study.pass_over(proposed.number, "not begun: its training would not have ended in time")
            if proposed.number in self._queue_macs:
                if self.study.origin(proposed.number):
                    log.info("%s: not begun, its training would not end in time", proposed.architecture.name)
                continue
            macs = self.time_left.affordable(SPARE * self._seconds_for_trials())
            self._narrowed = macs > 0 and self._narrow(macs)
            if not self._narrowed:
                self._end()
                return None
        return None

    def _changed(self) -> None:
        progress = self.progress
        if self.time is not None:
            left = max(0.0, self._seconds_for_trials())
            given = progress.closed + progress.running
            more = 0 if self._ended else min(self._trials - given, self._fit_into(left, self.time))
            progress.budget = given + max(0, more)
            progress.expect(left)
            self.on_change(progress)
            return
        to_come = max(0, progress.budget - progress.closed - progress.running)
        queue = list(self._queue_macs.values())[:to_come]
        progress.expect(self.time_left.seconds(queue, to_come - len(queue)))
        self.on_change(progress)

    def _fit_into(self, seconds: float, time: TimeBudget) -> int:
        """Estimate how many further trials end in so many seconds: as many as ended so far in their time; before the
        first has ended, trainings like those that run, in full, after these.
        """
        if self.progress.closed:
            return int(seconds * self.progress.closed / max(time.spent(), 1e-9))
        if not self._macs:
            return 0
        training = self.time_left.training(statistics.fmean(self._macs.values()))
        return max(0, int(seconds * time.workers / training) - self.progress.running) if training else 0

    def _ended_before(self, number: int) -> bool:
        """Close a reopened trial that ends with its last epoch: where the two are not written as one (a database, the
        journal of an older version), the driver may have died between them."""
        if not self.study.epochs_done(number):
            return False
        with self.study.batch():
            ended = self._close_if_ended(number)
        if ended:
            self.time_left.close(number)
        return ended

    def _close_if_ended(self, number: int) -> bool:
        """Close a trial that ends with its last epoch in the record; returns whether it does."""
        done, values = self.study.epochs_done(number), self.study.last_values(number)
        if done >= self.epochs:
            self.study.complete(number)
            self.progress.done += 1
            if not self.study.is_beside(number):
                self._update_front(number, values)
        elif self._stops(number, done, losses(self.study.objectives, values)):
            self.study.stop(number, f"dominated at epoch {done} of {self.epochs}", self.epochs)
            self.progress.stopped += 1
        elif number in self._macs and not self._can_end(self._macs[number], self.epochs - done, confirming=0.5):
            self.study.stop(number, f"out of time at epoch {done} of {self.epochs}", self.epochs)
            self.progress.stopped += 1
        else:
            return False
        return True

    def _stops(self, number: int, epoch: int, values: list[float]) -> bool:
        """Tell whether a proposal ends here.

        Queued networks were asked for, and are what proposals are compared with, unless they stand beside the search:
        nothing in the space shall be stopped for what is outside it.
        """
        if self.study.is_beside(number):
            return False
        return self.stopping.stops(number, epoch, values) and not self.study.is_queued(number)

    def _closed(self, number: int) -> None:
        self.progress.running -= 1
        self.time_left.close(number)

    def _discard_unneeded(self, numbers: set[int]) -> None:
        """Called when the record knows why, so that a driver that dies here has not lost what it still needs."""
        for number in numbers:
            if not self.needs_weights(number):
                self.discard(number)

    def _update_front(self, number: int, values: list[float]) -> None:
        self._losses[number] = losses(self.study.objectives, values)
        points = np.array(list(self._losses.values()))
        accuracy = next(i for i, objective in enumerate(self.study.objectives) if not objective.known)
        self.progress.best_accuracy = -float(points[:, accuracy].min())
        self._front = {n for n, kept in zip(self._losses, pareto.front_mask(points), strict=True) if kept}
        self.progress.front = len(self._front)

    def _recall(self) -> None:
        """Rebuild rungs, front and counts from the study: a resumed search knows what the interrupted one did."""
        for trial in self.study.study.get_trials(deepcopy=False):
            for epoch in curve_of(trial.user_attrs) if "beside" not in trial.user_attrs else []:
                costs = trial.user_attrs["costs"]
                values = [costs[o.name] if o.known else epoch[o.name] for o in self.study.objectives]
                self.stopping.record(trial.number, int(epoch["epoch"]), losses(self.study.objectives, values))
            if may_stand_on_front(trial):
                self._update_front(trial.number, list(trial.values))
            if "untrained" in trial.user_attrs:
                continue
            self._recall_time(trial)
            self.progress.done += trial.state == TrialState.COMPLETE
            self.progress.stopped += trial.state == TrialState.PRUNED
            self.progress.failed += trial.state == TrialState.FAIL

    def _recall_time(self, trial: FrozenTrial) -> None:
        if "costs" in trial.user_attrs:
            self._macs[trial.number] = trial.user_attrs["costs"]["macs"]
            if "origin" in trial.user_attrs:
                self._asked.add(trial.number)
            self.time_left.start(trial.number, self._macs[trial.number], asked="origin" in trial.user_attrs)
            for epoch in curve_of(trial.user_attrs):
                self.time_left.epoch(trial.number, epoch["seconds"], here=False)
            if trial.state.is_finished():
                self.time_left.close(trial.number)


def training_seed(seed: int, candidate: Candidate) -> int:
    """The seed of one training: the same in every run with the same seed, in whatever order it comes."""
    return seed_of(seed, f"{candidate.architecture.id}:{candidate.seed_of}")


def seed_of(seed: int, purpose: str) -> int:
    """Derive the seed of one purpose from a run's."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:4], "big")


def _metrics(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return what the study keeps of an epoch."""
    accuracies = ("validation_accuracy", "validation_balanced_accuracy", "int8_accuracy", "int8_balanced_accuracy")
    names = (*accuracies, "train_accuracy", "loss")
    rounded = {name.removeprefix("validation_"): round(float(epoch[name]), 6) for name in names if name in epoch}
    seconds = {name: round(float(epoch[name]), 4) for name in ("seconds", "seconds_train", "seconds_eval")}
    return {"epoch": epoch["epoch"], **rounded, **seconds}
