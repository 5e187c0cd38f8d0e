"""A search that ends in time: what may be begun, and what is kept for the end.

Kept for are the test images, the front's confirmation, its latencies and the report; how long these take follows from
what the trials took. A training is begun only where it can end.
"""

import math
import time
from collections.abc import Callable, Sequence

from nas.driver.seconds_by_macs import SecondsByMacs
from nas.driver.time_left import TimeLeft

END_SECONDS = 8.0
"""For Ray's end, the tables and the report."""
MEASURING_SECONDS = 20.0
"""For measuring a group of 16 networks."""
TEST_SECONDS = 0.5
"""For reading a network's weights before it judges the test images."""
FEWEST = 8
"""So many networks can be trained even where all are the dearest that are proposed: with fewer there is no search."""
REFERENCES = 0.25
"""Share of the trials' time that published networks may take."""
MOST_CONFIRMING = 0.25
"""Share of the time that confirming the front may take: the search itself is worth more."""


class TimeBudget:
    """The end of a search on the clock.

    Args:
        deadline: in seconds of `clock`.
        workers: that train side by side.
        seeds: that the front is confirmed with.
        confirm_epochs: of each of these trainings.
        tested: number of test images for each validation image.
        measured: the latencies of the front are measured at the end.
        clock: seconds that only grow.

    Attributes:
        rehearsed: MACs of networks, and the seconds of an epoch of theirs, known before the first trial.
        most_macs: of the networks that are proposed.
    """

    def __init__(
        self,
        deadline: float,
        *,
        workers: int = 1,
        seeds: int = 0,
        confirm_epochs: int = 1,
        tested: float = 1.0,
        measured: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = deadline
        self._whole = deadline - clock()
        self.workers = workers
        self._seeds = seeds
        self._confirm_epochs = confirm_epochs
        self._tested = tested
        self._measured = measured
        self._validating = SecondsByMacs()
        self.rehearsed: list[tuple[float, float]] = []
        self.most_macs = math.inf

    def validated(self, macs: float, seconds: float) -> None:
        """Take in how long a network took to judge the validation images."""
        self._validating.add(macs, seconds)

    def spent(self) -> float:
        """Return the seconds since the budget was begun."""
        return self._whole - (self._deadline - self._clock())

    def left(self) -> float:
        """Return the seconds until all but the end has to be done."""
        return self._deadline - END_SECONDS - self._clock()

    def for_one(self) -> float:
        """Return the seconds that one training may take, so that :data:`FEWEST` fit, before the first is begun."""
        return self.for_all() / FEWEST

    def for_references(self) -> float:
        """Return the seconds of training that published networks may take, before the first trial is begun."""
        return self.for_all() * REFERENCES

    def for_all(self) -> float:
        """Return the seconds of training that the workers have together, before the first trial is begun."""
        kept = MOST_CONFIRMING * self._whole if self._seeds else 0.0
        return max(0.0, self.for_confirmation(1) - kept) * self.workers

    def for_trials(self, front: Sequence[float], times: TimeLeft, *, confirming: float = 1.0) -> float:
        """Return the seconds that are left for trials.

        Args:
            front: MACs of the networks that will be tested and confirmed, as far as they are known.
            times: of the trials.
            confirming: share that is kept of what the confirmation takes.
        """
        tests = sum(self._tested * self._validating.at(macs) + TEST_SECONDS for macs in front) / self.workers
        again = [times.training(macs, self._confirm_epochs) or 0.0 for macs in front]
        confirmation = self._seeds * sum(again) / self.workers + (max(again, default=0.0) if self._seeds else 0.0)
        kept = confirming * min(confirmation, MOST_CONFIRMING * self._whole)
        return self.for_confirmation(len(front)) - tests - kept

    def for_confirmation(self, front: int) -> float:
        """Return the seconds that are left for confirming a front of so many networks, once they are tested."""
        return self.left() - (MEASURING_SECONDS * math.ceil(front / 16) if self._measured else 0.0)
