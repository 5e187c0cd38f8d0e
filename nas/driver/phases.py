"""The phases of a search on its workers: rehearse, probe the supernet, train, test, confirm."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.driver.checkpoints import Checkpoints
from nas.driver.confirmation import Confirmation
from nas.driver.earlier_supernet import TRUSTED
from nas.driver.final_evaluation import FinalTest, to_evaluate
from nas.driver.limits import leaves_some
from nas.driver.objectives import OBJECTIVES, Limit
from nas.driver.prepare import Prepared, Queued, sampler_for
from nas.driver.rehearsal import Rehearsal
from nas.driver.run import Run
from nas.driver.scheduler import Progress, Scheduler
from nas.driver.settings import Settings
from nas.driver.stopping import DominanceStopping
from nas.driver.study import SearchStudy, may_stand_on_front
from nas.driver.supernet import Judged, enqueue_best, enqueue_probe, teach_sampler
from nas.driver.time_budget import TimeBudget
from nas.driver.trial_scheduler import TrialScheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phases:
    """A search's phases, each a scheduler that begins where the one before it ended.

    settings      of the search
    prepared      what it needs
    study         its record
    out           the run's folder
    checkpoints   of its trials
    judged        members in the supernet; none without one
    budget        of its time, where that is limited
    max_failures  in a row that end it
    on_change     told the progress after every change
    """

    settings: Settings
    prepared: Prepared
    study: SearchStudy
    out: Path
    checkpoints: Checkpoints
    judged: Sequence[Judged]
    budget: TimeBudget | None
    max_failures: int
    on_change: Callable[[Progress], None]

    def __iter__(self) -> Iterator[Scheduler]:
        queue = self.prepared.queue
        if self.budget is not None:
            begun = any(map(may_stand_on_front, self.study.study.get_trials(deepcopy=False)))
            yield (rehearsal := Rehearsal(self.prepared, self.settings.parsed_recipe, self.budget, begun=begun))
            queue = rehearsal.plan(queue)
        self._enqueue(queue)
        if self.judged:
            if TRUSTED not in self.study.study.user_attrs:
                yield self._trials(enqueue_probe(self.study, self.judged, self.settings.trials))
            enqueue_best(self.study, self.judged, self.settings.trials)
        scheduler = self._trials(self.settings.trials)
        self.checkpoints.sweep(scheduler.needs_weights)
        yield scheduler
        Run.open(self.out).write_tables()
        yield FinalTest(self.study.study, Run.open(self.out))
        if self.settings.confirm:
            yield self._confirmation(scheduler)

    def _trials(self, count: int) -> TrialScheduler:
        """Train networks until there are so many trials."""
        return TrialScheduler(
            self.study,
            stopping=DominanceStopping(self.settings.rungs, self.settings.reduction),
            epochs=self.settings.parsed_recipe.epochs,
            trials=count,
            images=len(self.prepared.dataset.validation),
            max_failures=self.max_failures,
            on_change=self.on_change,
            discard=self.checkpoints.discard,
            time=self.budget,
            narrow=self._narrow,
        )

    def _narrow(self, macs: float) -> bool:
        """Let the sampler propose networks of at most so many MACs; False where none of them keeps the limits."""
        limit = Limit(OBJECTIVES["macs"], macs)
        if not leaves_some(self.prepared.space, [*self.study.limits, limit], self.prepared.costs):
            return False
        self.study.study.sampler = sampler_for(self.settings, self.prepared, [limit])
        teach_sampler(self.study, self.judged)
        return True

    def _confirmation(self, trained: TrialScheduler) -> Confirmation:
        """Train the front with further seeds, after the trials."""
        return Confirmation(
            self.study.study,
            to_evaluate(Run.open(self.out)),
            seeds=self.settings.confirm,
            epochs=self.settings.epochs_of_confirmation,
            resplits=self.prepared.dataset.can_be_resplit,
            max_failures=self.max_failures,
            on_change=self.on_change,
            time=self.budget,
            times=trained.time_left,
        )

    def _enqueue(self, queue: Sequence[Queued]) -> None:
        """Queue what was asked for.

        A published network that is known stays as it is: in a search that goes on in another time, another resolution
        would fit.
        """
        published = {
            trial.user_attrs["name"]
            for trial in self.study.study.get_trials(deepcopy=False)
            if trial.user_attrs.get("origin") == "published"
        }
        beside = []
        for architecture, origin in queue:
            if origin == "published" and architecture.name in published:
                continue
            is_new = self.study.enqueue(architecture, origin)
            if is_new and (why := self.study.why_beside(architecture, self.prepared.costs(architecture), origin)):
                beside.append(f"{architecture.name} ({why})")
        if beside:
            log.info("trained beside the search, never on its front: %s", ", ".join(beside))
