"""Interface of a search's part to the runner: the next network, and whether a trial goes on. Knows nothing of Ray."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.architecture.document import Architecture


@dataclass(frozen=True)
class Candidate:
    """A network to train.

    number       of the trial, or of the training where it is none of the search's
    seed_of      tells trainings of one network apart
    split_of     tells draws of validation images apart; empty: those of the search
    checkpointed whether its state is kept
    tested       whether it is trained already, and its weights are to judge the test images
    rehearsed    whether it is to take a few steps that are timed, and no more
    epochs       of the training; None: the search's
    seconds      after which it is given up, from when a worker begins with it; None: never
    """

    number: int
    architecture: Architecture
    seed_of: str = ""
    split_of: str = ""
    checkpointed: bool = True
    tested: bool = False
    rehearsed: bool = False
    epochs: int | None = None
    seconds: float | None = None


@dataclass
class Progress:
    """State of a running search."""

    budget: int
    done: int = 0
    stopped: int = 0
    failed: int = 0
    running: int = 0
    best_accuracy: float | None = None
    images: int | None = None
    """Of the validation part, which accuracies are counted on."""
    front: int = 0
    started: float = field(default_factory=time.monotonic)
    ends: float | None = None
    """When the last training is expected to end, on the clock of `started`; None while nothing is known."""
    note: str = ""

    @property
    def closed(self) -> int:
        return self.done + self.stopped + self.failed

    @property
    def counts(self) -> str:
        return f"{self.done} done, {self.stopped} stopped early, {self.failed} failed"

    @property
    def seconds_left(self) -> float | None:
        """Until the last training is expected to end."""
        return None if self.ends is None else max(0.0, self.ends - time.monotonic())

    def expect(self, seconds: float | None) -> None:
        """Set how long it will take from now on."""
        self.ends = None if seconds is None else time.monotonic() + seconds


class Scheduler(ABC):
    """Decides what the workers do: a search, the reading of the test images, a confirmation."""

    progress: Progress
    broken: str | None = None
    """Why it cannot go on, if so."""

    @abstractmethod
    def next_candidate(self) -> Candidate | None:
        """The next network for a free worker; None while there is none, and when all is done."""

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in what a worker reported of a trial; returns whether the trial ends here."""
        if "failure" in result:
            self.fail_trial(number, str(result["failure"]))
        elif "late" in result:
            self.give_up(number, str(result["late"]))
        else:
            return self.take_in(number, result)
        return True

    @abstractmethod
    def take_in(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in what a trial has reached; returns whether it ends here."""

    @abstractmethod
    def fail_trial(self, number: int, reason: str) -> None:
        """Take in that a trial broke, or its worker did."""

    def give_up(self, number: int, step: str) -> None:
        """Take in that a trial's own time was over at this step."""
        self.fail_trial(number, f"out of time at {step}")
