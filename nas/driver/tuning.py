"""Run schedulers on Ray Tune: a thin adapter between Tune's interfaces and :class:`nas.driver.scheduler.Scheduler`.

Ray's stock ``OptunaSearch`` is not used: it records stopped trials as complete, leaves failed ones running and shows no
values to constraints. Tune's own record (its experiment snapshot) is not read and goes to a temporary folder.
"""

import pickle
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from nas.driver.checkpoints import Checkpoints
from nas.driver.cluster import Workers
from nas.driver.scheduler import Candidate, Scheduler
from nas.driver.trial import NetworkTrainable, explain
from nas.driver.trial_scheduler import seed_of, training_seed
from nas.training.data import Dataset
from nas.training.recipe import Recipe

MAX_RESTARTS = 3
"""Restarts of a training whose node died."""

GRACE = 10.0
"""Seconds beyond the limit of an epoch in which a worker may end it by itself, before it is killed."""


def run_trials(
    schedulers: Iterator[Scheduler],
    dataset: Dataset,
    *,
    recipe: Recipe,
    workers: Workers,
    seed: int,
    checkpoints: Checkpoints,
    epoch_timeout: float = 0.0,
    resplit: bool = False,
    target: str = "torch",
    init: str | None = None,
) -> Scheduler:
    """Train what the schedulers ask for, one scheduler after the other, on the same workers. Ray must run.

    Args:
        schedulers: at least one; the next one is asked for when nothing of the one before it is left to do.
        dataset: as loaded; no worker reads its test part but for a candidate that is to be tested.
        epoch_timeout: seconds after which an epoch is given up; 0: never.
        resplit: every training draws its own validation images.
        target: whose networks are judged, in int8 where it is int8.
        init: the parent whose weights the networks of its family begin with.

    Returns:
        The last scheduler that was begun; where it broke, those after it were not.
    """
    searcher = _Searcher(schedulers, seed, checkpoints, epoch_timeout, resplit)
    # Travels through Ray's object store: once to each node, not once to each trial.
    trainable = tune.with_parameters(
        NetworkTrainable,
        dataset=dataset,
        recipe=recipe.to_dict(),
        device=workers.device,
        gpu_share=workers.gpus,
        threads=workers.cpus,
        epoch_timeout=epoch_timeout or None,
        target=target,
        init=init,
    )
    bundle = tune.PlacementGroupFactory([{"CPU": workers.cpus, "GPU": workers.gpus}])
    with tempfile.TemporaryDirectory(prefix="nas-ray-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, bundle),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=workers.count,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                stop=_Results(searcher),
                callbacks=[_WorkerEvents(searcher)],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()
    return searcher.scheduler


@dataclass
class _Training:
    """A candidate on a worker; `killed_for` is why the driver killed the worker, if it did."""

    candidate: Candidate
    epoch: int = 0
    actor: Any = None
    deadline: float = inf
    killed_for: str = ""


class _Searcher(Searcher):
    """Tune's view of the schedulers."""

    def __init__(
        self, schedulers: Iterator[Scheduler], seed: int, checkpoints: Checkpoints, epoch_timeout: float, resplit: bool
    ) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.schedulers = schedulers
        self.scheduler = next(schedulers)
        self.seed = seed
        self.checkpoints = checkpoints
        self.epoch_timeout = epoch_timeout
        self.resplit = resplit
        self.trainings: dict[str, _Training] = {}
        self.to_restart: list[Candidate] = []
        self.restarts: Counter[int] = Counter()

    def suggest(self, trial_id: str) -> Any:
        candidate = self.to_restart.pop(0) if self.to_restart else self._next_candidate()
        if candidate is None:
            # Nothing now, but the end only when nothing that runs can come back.
            return None if self.trainings else Searcher.FINISHED
        self.trainings[trial_id] = _Training(candidate)
        seed = training_seed(self.seed, candidate)
        own_split = seed if self.resplit else None
        return {
            "number": candidate.number,
            "document": candidate.architecture.to_dict(),
            "seed": seed,
            "split": seed_of(self.seed, candidate.split_of) if candidate.split_of else own_split,
            "checkpoint": str(self.checkpoints.path(candidate.number)) if candidate.checkpointed else None,
            "tested": candidate.tested,
            "rehearsed": candidate.rehearsed,
            "epochs": candidate.epochs,
            "seconds": candidate.seconds,
        }

    def _next_candidate(self) -> Candidate | None:
        candidate = self.scheduler.next_candidate()
        while candidate is None and not self.trainings and not self.scheduler.broken:
            following = next(self.schedulers, None)
            if following is None:
                return None
            self.scheduler = following
            self.restarts.clear()  # the numbers are another scheduler's now
            candidate = self.scheduler.next_candidate()
        return candidate

    def begin(self, trial_id: str, actor: Any) -> None:
        """Note that a worker has begun with a trial."""
        self.trainings[trial_id].actor = actor
        self._renew_deadline(self.trainings[trial_id])

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Hand an epoch on; returns whether the trial ends here."""
        training = self.trainings[trial_id]
        training.epoch += 1
        self._renew_deadline(training)
        return self.scheduler.report(training.candidate.number, result)

    def fail_trial(self, trial_id: str, error: BaseException | None) -> None:
        """Restart a trial whose node died; one whose worker is gone otherwise has failed."""
        training = self.trainings.pop(trial_id)
        number, reason = training.candidate.number, training.killed_for
        if not reason and _is_the_nodes_fault(error):
            self.restarts[number] += 1
            if self.restarts[number] <= MAX_RESTARTS:
                self.to_restart.append(training.candidate)  # it goes on from its last epoch
                return
            reason = f"{self.restarts[number]} nodes died while they trained it"
        if isinstance(error, RayTaskError):
            reason = explain(error.cause)
        reason = reason or "the worker process died: killed by the system, or crashed"
        self.scheduler.fail_trial(number, reason)

    def kill_overdue(self) -> None:
        """Kill the workers that hang in an epoch and do not notice it themselves."""
        for training in self.trainings.values():
            if time.monotonic() > training.deadline:
                training.deadline = inf
                training.killed_for = f"epoch {training.epoch + 1} hung for over {self.epoch_timeout:g} s"
                ray.kill(training.actor)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:
            self.trainings.pop(trial_id, None)

    def _renew_deadline(self, training: _Training) -> None:
        if self.epoch_timeout:
            training.deadline = time.monotonic() + self.epoch_timeout + GRACE

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Tune pickles its searcher into a snapshot that nobody reads; the study behind it does not pickle.
        return object, ()

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see :meth:`save`."""


class _Results(tune.Stopper):
    """Tune asks a stopper about every result, which makes it the one place where results come by in order."""

    def __init__(self, searcher: _Searcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.searcher.report(trial_id, result)

    def stop_all(self) -> bool:
        # asked several times a second
        self.searcher.kill_overdue()
        return self.searcher.scheduler.broken is not None


class _WorkerEvents(tune.Callback):
    """Hands on what Tune does not tell a searcher: which worker has a trial, and why it was lost."""

    def __init__(self, searcher: _Searcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.begin(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        file = trial.pickled_error_file  # beside Tune's own records
        self.searcher.fail_trial(trial.trial_id, pickle.loads(Path(file).read_bytes()) if file else None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # Tune's running statistics of every figure that a trial reported, and their JSON, which nobody reads, were 50
        # of the 80 kB that the driver grew by with each trial.
        trial.run_metadata.metric_analysis = {}
        trial.run_metadata.metric_n_steps = {}


def _is_the_nodes_fault(error: BaseException | None) -> bool:
    """Tell whether a worker was lost with its whole node, or with the way there, and not by itself.

    Ray notices a dead worker at once and a dead node after some seconds; until then its workers are only out of reach.
    """
    if isinstance(error, ActorUnavailableError | ActorUnschedulableError):
        return True
    return isinstance(error, RayError) and "node has died" in str(error)
