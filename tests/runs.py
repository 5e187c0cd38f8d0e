"""A run's folder with invented trials, for tests of what reads one."""

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import nas
from nas.driver.prepare import cost_function
from nas.driver.run_file import describe_environment, read_run_file, write_run_file
from nas.driver.settings import Settings
from nas.driver.storage import STUDY_FILE
from nas.driver.study import SearchStudy
from nas.training.checkpoint import Checkpoint


def begin(out: Path, settings: Settings) -> SearchStudy:
    """An empty run as a search begins it; its sampler draws at random."""
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_run_file(out, settings, describe_environment("cpu"), None)
    study = optuna.create_study(
        study_name=read_run_file(out)["study"],
        storage=JournalStorage(JournalFileBackend(str(out / STUDY_FILE))),
        sampler=optuna.samplers.RandomSampler(seed=0),
        directions=["maximize", "minimize"],
    )
    return SearchStudy(
        study,
        space=settings.open_space(),
        objectives=settings.parsed_objectives,
        limits=settings.parsed_limits,
        costs=cost_function(10),
    )


def epoch(number: int, accuracy: float) -> dict[str, float]:
    """What the study keeps of an epoch."""
    seconds = {"seconds": 1.0, "seconds_train": 0.9, "seconds_eval": 0.1}
    return {"epoch": number, "accuracy": accuracy, "train_accuracy": 0.5, "loss": 1.0, **seconds}


def checkpoint_of(
    architecture: nas.Architecture, settings: Settings, *, epochs: int, accuracy: float = 0.5
) -> Checkpoint:
    """Fresh weights as those of a finished training on digits."""
    return Checkpoint(
        architecture=architecture.to_dict(),
        classes=tuple("0123456789"),
        mean=(0.3,),
        std=(0.3,),
        dataset="digits",
        split={"seed": 0, "validation_fraction": 0.15, "train_size": None},
        recipe=settings.recipe,
        epoch=epochs,
        accuracy=accuracy,
        weights=nas.build(architecture, 10).state_dict(),
    )


def complete(search: SearchStudy, count: int) -> None:
    """Train so many proposals to their end, in one epoch."""
    for _ in range(count):
        number = search.propose().number
        search.record_epoch(number, epoch(1, 0.5))
        search.complete(number)
