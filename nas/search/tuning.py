"""Runs a search on Ray Tune: a thin adapter between Tune's interfaces and a :class:`Leader`.

Ray's stock ``OptunaSearch`` is not used: it records stopped trials as complete, leaves failed ones running and shows no
values to constraints. Tune's own record (its experiment snapshot) is not read and goes to a temporary folder.
"""

import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import ray
import torch
from ray import tune
from ray.tune.search import Searcher

from nas.errors import UserError
from nas.search.conductor import training_seed
from nas.search.study import Candidate
from nas.search.trial import NetworkTrainable
from nas.training.data import Dataset
from nas.training.threads import available_cores, worker_environment


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the search may use; not part of what it computes.

    cpus_per_trial   threads of a worker; default 1 on a CPU (several networks at once beat several threads on one),
                     and an equal share of the cores beside a GPU
    gpus_per_trial   part of a GPU; default 1 where there is one, else 0
    max_concurrent   workers at once; default as many as the cores or GPUs allow
    address          of a running Ray cluster, ``auto`` for the one on this machine; default: Ray starts here
    """

    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        for name in ("cpus_per_trial", "max_concurrent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name.replace('_', '-')} {value}: at least 1 is needed")
        if self.gpus_per_trial is not None and self.gpus_per_trial < 0:
            raise UserError(f"gpus-per-trial {self.gpus_per_trial}: 0 or more is needed")


@dataclass(frozen=True)
class Workers:
    """Resources, decided."""

    count: int
    cpus: int
    gpus: float

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


def decide(resources: Resources, cpus: int, gpus: float) -> Workers:
    """How many workers of what size fit into so many CPUs and GPUs.

    Raises:
        UserError: not even one fits.
    """
    per_gpu = resources.gpus_per_trial if resources.gpus_per_trial is not None else float(gpus >= 1)
    if per_gpu > gpus:
        raise UserError(f"gpus-per-trial {per_gpu:g}: there are {gpus:g} GPUs")
    by_gpu = int(gpus / per_gpu + 1e-9) if per_gpu else cpus
    per_cpu = resources.cpus_per_trial or (max(1, cpus // max(1, by_gpu)) if per_gpu else 1)
    if per_cpu > cpus:
        raise UserError(f"cpus-per-trial {per_cpu}: there are {cpus} cores")
    count = max(1, min(by_gpu, cpus // per_cpu, resources.max_concurrent or cpus))
    return Workers(count=count, cpus=per_cpu, gpus=per_gpu)


def start_ray(resources: Resources) -> Workers:
    """Start Ray here (loopback, no dashboard) or join a cluster.

    Raises:
        UserError: there is no cluster at that address, or it cannot hold one worker.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the study is the record
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the progress display is ours
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the search at once; the study has all but one epoch
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        # OpenMP reads its environment once, so it is set before a worker begins; the threads are set again in it.
        "runtime_env": {"env_vars": worker_environment(resources.cpus_per_trial or 1)},
    }
    if resources.address is None:
        gpus = torch.cuda.device_count()
        ray.init(
            num_cpus=len(available_cores()),
            num_gpus=gpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )
    else:
        try:
            ray.init(address=resources.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).splitlines()[0]
            raise UserError(f"--address {resources.address}: no Ray cluster answers ({line})") from error
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    try:
        return decide(resources, int(total.get("CPU", 1)), total.get("GPU", 0.0))
    except UserError:
        ray.shutdown()
        raise


class Leader(Protocol):
    """Says what is trained: a search's conductor, or a confirmation."""

    broken: str | None

    def next_candidate(self) -> Candidate | None: ...

    def report(self, number: int, result: Mapping[str, Any]) -> bool: ...

    def lose(self, number: int, reason: str) -> None: ...

    def needs_weights(self, number: int) -> bool: ...


def run_trials(
    conductor: Leader,
    dataset: Dataset,
    *,
    recipe: Mapping[str, Any],
    workers: Workers,
    seed: int,
    checkpoints: Path,
) -> None:
    """Train what the conductor proposes until it proposes no more. Ray must have been started.

    Args:
        conductor: leads.
        dataset: as loaded; its test part is not sent to the workers.
        recipe: how each network is trained.
        workers: how many, how large.
        seed: of the run.
        checkpoints: folder for ``<trial number>.pt``, reachable for all workers.
    """
    bridge = _Bridge(conductor, seed, checkpoints)
    trainable = tune.with_parameters(
        NetworkTrainable,
        dataset=replace(dataset, test=dataset.test.take(torch.arange(0))),
        recipe=dict(recipe),
        device=workers.device,
        threads=workers.cpus,
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
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()


class _Bridge(Searcher):
    """Tune's view of the conductor."""

    def __init__(self, conductor: Leader, seed: int, checkpoints: Path) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.conductor = conductor
        self.seed = seed
        self.checkpoints = checkpoints
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        candidate = self.conductor.next_candidate()
        if candidate is None:
            return Searcher.FINISHED
        self.numbers[trial_id] = candidate.number
        return {
            "number": candidate.number,
            "document": candidate.architecture.to_dict(),
            "seed": training_seed(self.seed, candidate),
            "checkpoint": str(self.checkpoints / f"{candidate.number}.pt") if candidate.checkpointed else None,
        }

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        ends = self.conductor.report(self.numbers[trial_id], result)
        if ends:
            self._remove_weights()
        return ends

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id, None)
        if number is not None and error:
            self.conductor.lose(number, "the worker process died")
            self._remove_weights()

    def _remove_weights(self) -> None:
        for file in self.checkpoints.glob("*.pt"):
            if file.stem.isdigit() and not self.conductor.needs_weights(int(file.stem)):
                file.unlink(missing_ok=True)

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
        return self.bridge.conductor.broken is not None
