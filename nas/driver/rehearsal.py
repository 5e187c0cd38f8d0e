"""Rehearse trainings where a search's time is limited: what one takes is known before any is begun."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver import references
from nas.driver.prepare import Prepared, Queued
from nas.driver.scheduler import Candidate, Progress, Scheduler
from nas.driver.time_budget import TimeBudget
from nas.driver.time_left import TimeLeft
from nas.training.members import largest, smallest
from nas.training.recipe import Recipe, steps_per_epoch
from nas.units import show_seconds

log = logging.getLogger(__name__)

DRAWN = 16
DEARER = 2
"""Trainings may take so many times as long as that of the space's smallest network, however little time there is."""


def rehearsed(space: Space, macs: Callable[[Architecture], float]) -> list[Architecture]:
    """Choose the networks whose steps are timed: the cheapest, and one dearer than a quarter of random ones."""
    drawn = sorted(map(space.sample, range(DRAWN)), key=macs)
    chosen = [smallest(space), drawn[DRAWN // 4]]
    return chosen if chosen[0].id != chosen[1].id else chosen[:1]


class Rehearsal(Scheduler):
    """Lets the workers take a few steps with some networks, side by side as they will train.

    Args:
        prepared: what is searched.
        recipe: of its trainings.
        budget: the search's time; what is found out goes into it.
        begun: whether networks are trained already: then too little time for one more is no failure.
    """

    def __init__(self, prepared: Prepared, recipe: Recipe, budget: TimeBudget, *, begun: bool = False) -> None:
        self._prepared, self._budget, self._begun = prepared, budget, begun
        self._steps, _ = steps_per_epoch(len(prepared.dataset.train), recipe.batch_size)
        self._networks = rehearsed(prepared.space, self._macs)
        self._waiting = list(enumerate(self._networks))
        self._times = TimeLeft(recipe.epochs)
        self.progress = Progress(budget=len(self._networks))

    def next_candidate(self) -> Candidate | None:
        if not self._waiting:
            return None
        number, network = self._waiting.pop(0)
        return Candidate(number, network, checkpointed=False, rehearsed=True)

    def take_in(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in a network's seconds of a step and of validating; it is done with that."""
        step, validating = result["pace"]
        macs = self._macs(self._networks[number])
        pace = macs, self._steps * step + validating
        self._times.rehearse(*pace)
        self._budget.rehearsed.append(pace)
        self._budget.validated(macs, validating)
        needed, left = self._seconds(self._networks[0]), max(0.0, self._budget.left())
        if not self._begun and len(self._budget.rehearsed) == len(self._networks) and needed > left:
            self.broken = (
                f"--hours: training the space's smallest network takes about {show_seconds(needed)}, "
                f"{show_seconds(left)} are left; give more time"
            )
        return True

    def fail_trial(self, number: int, reason: str) -> None:
        """Go without: the first trial's epochs tell the time."""
        log.warning("a training's time could not be estimated: %s", reason)

    def plan(self, queue: Sequence[Queued]) -> list[Queued]:
        """Bound the proposals by the time that their trainings take, and return what of the queue fits, cheapest first.

        Published networks are brought to a resolution at which they fit into their share of the time; one's own stay as
        they are. What this changes is said, in a line each.
        """
        if self._budget.rehearsed:
            self._budget.most_macs = self._most_macs()
        published = [item.architecture for item in queue if item.origin == "published"]
        sides = self._prepared.space.resolutions
        kept, side = references.in_time(published, sides, self._seconds, self._budget.for_references())
        names = {network.name for network in kept}
        if left_out := [network.name for network in published if network.name not in names]:
            log.info("published networks left out for lack of time: %s", ", ".join(left_out))
        if kept and side < max(sides):
            log.info("published networks are trained at %d pixels: so they fit into the time", side)
        own = [item for item in queue if item.origin != "published"]
        fitting = [*own, *(Queued(network, "published") for network in kept)]
        return sorted(fitting, key=lambda item: self._macs(item.architecture))

    def _most_macs(self) -> float:
        """Return the MACs of the dearest network that is to be proposed, and say so."""
        paces = sorted(self._budget.rehearsed)
        takes = [f"{show_seconds(self._times.epochs * each)} at {macs / 1e6:.3g} M MACs" for macs, each in paces]
        seconds = max(self._budget.for_one(), DEARER * self._seconds(self._networks[0]))
        most = self._times.affordable(seconds)
        if most >= self._macs(largest(self._prepared.space)):
            log.info("a training takes about %s", " and ".join(takes))
            return math.inf
        fit = max(1, round(self._budget.for_all() / seconds))
        bound = f"at most {most / 1e6:.3g} M are proposed, so that the time is enough for {fit} or more"
        log.info("a training takes about %s: %s", " and ".join(takes), bound)
        return most

    def _seconds(self, network: Architecture) -> float:
        return self._times.training(self._macs(network)) or 0.0

    def _macs(self, network: Architecture) -> float:
        return self._prepared.costs(network)["macs"]
