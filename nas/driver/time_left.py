"""Estimate the rest of a search's time from its trainings: what a network costs is known before it is trained."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nas.driver.seconds_by_macs import SecondsByMacs

FIRST = 5
"""So many proposals more than there have been cost what an epoch of the networks that were asked for did."""
LARGE = 5.0
"""A proposal's epochs count for at most so many times the median: the first proposals are spread over all costs, and
one that is a hundred times as large as the others says nothing of those to come."""


@dataclass
class _Training:
    macs: float
    asked: bool
    epochs: int = 0
    seconds: float = 0.0


class _Proposal(NamedTuple):
    """Seconds of a proposal's epoch, and how many it had or will have."""

    epoch: float
    epochs: float


class TimeLeft:
    """Told of every training, answers for those to come.

    Seconds of an epoch are a straight line over the network's MACs, fitted to all epochs so far. What was asked for by
    name is trained to the end; proposals cost what proposals have cost, those that were stopped early included.
    Workers, and what lies between their epochs, are in the rate at which seconds of training were done so far.

    Args:
        epochs: of a training that is not stopped.
        clock: seconds that only grow.
    """

    def __init__(self, epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.epochs = epochs
        self._clock = clock
        self._running: dict[int, _Training] = {}
        self._began: float | None = None
        self._spent = 0.0  # seconds of training since then
        self._epoch = SecondsByMacs()
        self._proposals: list[_Proposal] = []  # closed ones
        self._lengths: Counter[int] = Counter()  # of closed proposals, in epochs
        self._asked = (0, 0.0)

    def rehearse(self, macs: float, seconds: float) -> None:
        """Take in what an epoch of a network takes, by a few steps of it."""
        self._epoch.add(macs, seconds)

    def start(self, number: int, macs: float, *, asked: bool) -> None:
        """A training begins, or goes on; `asked`: for its network, by name."""
        self._running[number] = _Training(macs, asked)

    def epoch(self, number: int, seconds: float, *, here: bool = True) -> None:
        """A training's next epoch; `here`: by this process, not by one before it."""
        training = self._running[number]
        training.epochs += 1
        training.seconds += seconds
        self._epoch.add(training.macs, seconds)
        if here:
            if self._began is None:
                self._began = self._clock() - seconds
            self._spent += seconds

    def close(self, number: int) -> None:
        """A training has ended, one way or the other."""
        training = self._running.pop(number)
        if training.asked:
            self._asked = self._asked[0] + 1, self._asked[1] + training.seconds
        else:
            if training.epochs:
                self._proposals.append(_Proposal(training.seconds / training.epochs, training.epochs))
            self._lengths[training.epochs] += 1

    def seconds(self, waiting: Iterable[float], proposals: int) -> float | None:
        """Until all is trained; None before the first epoch.

        Args:
            waiting: MACs of the networks that were asked for and wait.
            proposals: how many networks are to be proposed yet.
        """
        if self._began is None or self._spent <= 0:
            return None
        queue = [self.epochs * self._epoch.at(macs) for macs in waiting]
        left = {number: self._left(training) for number, training in self._running.items()}
        work = [*queue, *left.values()]
        rate = self._spent / max(self._clock() - self._began, 1e-9)
        total = sum(work) + proposals * self._per_proposal(left, queue)
        return max([total / rate, *work])

    def training(self, macs: float, epochs: int | None = None) -> float | None:
        """Return the seconds of a network's training, in full or of so many epochs; None while nothing is known."""
        return (self.epochs if epochs is None else epochs) * self._epoch.at(macs) if self._epoch else None

    def affordable(self, seconds: float) -> float:
        """Return the MACs of the dearest network whose training takes at most so long; unlimited while that is not
        known.
        """
        return self._epoch.macs_within(seconds / self.epochs)

    def _left(self, training: _Training) -> float:
        """Of a running training; a proposal goes on for as long as those did that came as far."""
        length = float(self.epochs) if training.asked else self._length(training.epochs)
        return max(length - training.epochs, 0.0) * self._epoch_of(training)

    def _epoch_of(self, training: _Training) -> float:
        # One epoch says little of the next: in the first one a network's way of computing is chosen.
        return (training.seconds + self._epoch.at(training.macs)) / (training.epochs + 1)

    def _length(self, epochs: int) -> float:
        """Of a proposal that came so far, in epochs."""
        # Two more than have ended, one stopped at once and one not at all: those that are stopped end first.
        ended = [*self._lengths.items(), (1, 1), (self.epochs, 1)]
        longer = [(length, count) for length, count in ended if length > epochs]
        total = sum(length * count for length, count in longer)
        return total / max(sum(count for _, count in longer), 1)

    def _per_proposal(self, left: dict[int, float], queue: list[float]) -> float:
        running = [(self._epoch_of(t), t.seconds + left[number]) for number, t in self._running.items() if not t.asked]
        proposals = [*self._proposals, *(_Proposal(epoch, total / epoch) for epoch, total in running if epoch)]
        asked = [t.seconds + left[number] for number, t in self._running.items() if t.asked] + queue
        known = self._asked[0] + len(asked)
        if known:
            mean = (self._asked[1] + sum(asked)) / known
            proposals += [_Proposal(mean / self.epochs, self._length(0))] * FIRST
        if not proposals:
            return 0.0
        most = LARGE * statistics.median_low(proposal.epoch for proposal in proposals)
        return statistics.fmean(min(proposal.epoch, most) * proposal.epochs for proposal in proposals)
