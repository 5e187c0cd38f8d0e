"""Runs a search on Ray Tune: a thin adapter between Tune's interfaces and our schedulers.

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
from nas.driver.conductor import training_seed
from nas.driver.scheduler import Candidate, Scheduler
from nas.driver.trial import NetworkTrainable, explain
from nas.training.data import Dataset
from nas.training.recipe import Recipe

MOVES = 3
"""How often a training is handed out again because the node that it ran on died."""

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
) -> Scheduler:
    """Train what the schedulers ask for, one scheduler after the other, on the same workers. Ray must run.

    Args:
        schedulers: at least one; the next one is asked for when nothing of the one before it is left to do.
        dataset: as loaded; no worker reads its test part but for a candidate that is to be tested.
        recipe: how each network is trained.
        workers: how many, how large.
        seed: of the run.
        checkpoints: reachable for all workers.
        epoch_timeout: seconds after which an epoch is given up; 0: never.

    Returns:
        The last one that was begun; the others were not, where it broke.
    """
    bridge = _Bridge(schedulers, seed, checkpoints, epoch_timeout)
    # Travels through Ray's object store: once to each node, not once to each trial.
    trainable = tune.with_parameters(
        NetworkTrainable,
        dataset=dataset,
        recipe=recipe.to_dict(),
        device=workers.device,
        gpu_share=workers.gpus,
        threads=workers.cpus,
        epoch_timeout=epoch_timeout or None,
    )
    bundle = tune.PlacementGroupFactory([{"CPU": workers.cpus, "GPU": workers.gpus}])
    with tempfile.TemporaryDirectory(prefix="nas-ray-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, bundle),
            tune_config=tune.TuneConfig(
                search_alg=bridge,
                num_samples=-1,
                max_concurrent_trials=workers.count,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                stop=_Stop(bridge),
                callbacks=[_Faults(bridge), _Forgetting()],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()
    return bridge.scheduler


@dataclass
class _Training:
    """A candidate in a worker's hands."""

    candidate: Candidate
    epoch: int = 0
    actor: Any = None
    deadline: float = inf
    verdict: str = ""
    """Why its worker was killed, if it was."""


class _Bridge(Searcher):
    """Tune's view of the schedulers."""

    def __init__(
        self, schedulers: Iterator[Scheduler], seed: int, checkpoints: Checkpoints, epoch_timeout: float
    ) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.schedulers = schedulers
        self.scheduler = next(schedulers)
        self.seed = seed
        self.checkpoints = checkpoints
        self.epoch_timeout = epoch_timeout
        self.trainings: dict[str, _Training] = {}
        self.orphans: list[Candidate] = []
        self.moves: Counter[int] = Counter()

    def suggest(self, trial_id: str) -> Any:
        candidate = self._next_candidate()
        if candidate is None:
            # Nothing now, but the end only when nothing that runs can come back.
            return None if self.trainings else Searcher.FINISHED
        self.trainings[trial_id] = _Training(candidate)
        return {
            "number": candidate.number,
            "document": candidate.architecture.to_dict(),
            "seed": training_seed(self.seed, candidate),
            "checkpoint": str(self.checkpoints.path(candidate.number)) if candidate.checkpointed else None,
            "tested": candidate.tested,
            "epochs": candidate.epochs,
        }

    def _next_candidate(self) -> Candidate | None:
        if self.orphans:
            return self.orphans.pop(0)
        candidate = self.scheduler.next_candidate()
        while candidate is None and not self.trainings and not self.scheduler.broken:
            following = next(self.schedulers, None)
            if following is None:
                return None
            self.scheduler = following
            self.moves.clear()  # the numbers are another scheduler's now
            candidate = self.scheduler.next_candidate()
        return candidate

    def begin(self, trial_id: str, actor: Any) -> None:
        """A worker has begun with a trial."""
        self.trainings[trial_id].actor = actor
        self._renew(self.trainings[trial_id])

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Hand an epoch on; returns whether the trial ends here."""
        training = self.trainings[trial_id]
        training.epoch += 1
        self._renew(training)
        return self.scheduler.report(training.candidate.number, result)

    def fail_trial(self, trial_id: str, error: BaseException | None) -> None:
        """A trial's worker is gone, with what Ray says of it."""
        training = self.trainings.pop(trial_id)
        number = training.candidate.number
        if not training.verdict and _is_the_nodes_fault(error):
            self.moves[number] += 1
            if self.moves[number] <= MOVES:
                self.orphans.append(training.candidate)  # it goes on from its last epoch
                return
            training.verdict = f"{self.moves[number]} nodes died while they trained it"
        if isinstance(error, RayTaskError):
            training.verdict = explain(error.cause)
        self.scheduler.fail_trial(
            number, training.verdict or "the worker process died: killed by the system, or crashed"
        )

    def kill_overdue(self) -> None:
        """End the workers that hang in an epoch so fast asleep that they do not notice themselves."""
        for training in self.trainings.values():
            if time.monotonic() > training.deadline:
                training.deadline = inf
                training.verdict = f"epoch {training.epoch + 1} hung for over {self.epoch_timeout:g} s"
                ray.kill(training.actor)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if not error:
            self.trainings.pop(trial_id, None)

    def _renew(self, training: _Training) -> None:
        if self.epoch_timeout:
            training.deadline = time.monotonic() + self.epoch_timeout + GRACE

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Tune pickles its searcher into a snapshot that nobody reads; the study behind it does not pickle.
        return object, ()

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see :meth:`save`."""


class _Stop(tune.Stopper):
    """Tune asks a stopper about every result, which makes it the one place where results come by in order."""

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.bridge.report(trial_id, result)

    def stop_all(self) -> bool:
        """Asked several times a second."""
        self.bridge.kill_overdue()
        return self.bridge.scheduler.broken is not None


class _Faults(tune.Callback):
    """Ray Tune's account of lost workers, which it does not pass on to a searcher: whose trial, and why."""

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.bridge.begin(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.bridge.fail_trial(trial.trial_id, _error_of(trial))


class _Forgetting(tune.Callback):
    """Drops Tune's running statistics of every figure that a trial reported: of 80 kB that the driver grew by with
    each trial, 50 were these and their JSON, which nobody reads."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        trial.run_metadata.metric_analysis = {}
        trial.run_metadata.metric_n_steps = {}


def _error_of(trial: Trial) -> BaseException | None:
    """Return what Ray said when a trial's worker was lost; Tune keeps it in a file beside its own records."""
    file = trial.pickled_error_file
    return pickle.loads(Path(file).read_bytes()) if file else None


def _is_the_nodes_fault(error: BaseException | None) -> bool:
    """Return whether a worker was lost with its whole node, or with the way there, and not by itself.

    Ray notices a dead worker at once and a dead node after some seconds; until then its workers are only out of reach.
    """
    if isinstance(error, ActorUnavailableError | ActorUnschedulableError):
        return True
    return isinstance(error, RayError) and "node has died" in str(error)
