"""A run's folder and study, begun or opened again: what is checked before anything is written, and what is first."""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning

from nas.costs.analytic import cost as count
from nas.costs.analytic import too_large
from nas.driver.cluster import Workers
from nas.driver.locking import StudyLease
from nas.driver.prepare import LATENCY_FILE, Prepared, sampler_for
from nas.driver.run_file import DATA_FILE, describe_data, describe_environment, read_run_file, write_run_file
from nas.driver.settings import Settings
from nas.driver.storage import STUDY_FILE, RunJournal, open_storage
from nas.driver.study import SearchStudy
from nas.errors import UserError
from nas.files import write_atomic
from nas.training.data import FOLDER_PREFIX, Dataset
from nas.training.facts import describe, summarise
from nas.training.fingerprint import read_fingerprint
from nas.training.origin import Origin, check_same
from nas.training.pictures import samples


def check_free(out: Path, dataset: str) -> None:
    """Check that a folder holds nothing that a run would replace or remove, and is not that of the images.

    Raises:
        UserError: it does.
    """
    folders = [folder for folder in ("checkpoints", "front") if any((out / folder).glob("*"))]
    files = [
        file for file in (STUDY_FILE, LATENCY_FILE, DATA_FILE, "trials.csv", "report.html") if (out / file).exists()
    ]
    images = dataset.removeprefix(FOLDER_PREFIX)
    if images != dataset and Path(images).expanduser().resolve() == out.resolve():
        files.append("the images")
    if held := [*folders, *files]:
        raise UserError(f"{out}: holds something else ({', '.join(held)}); give another --out")


def check_images(dataset: Dataset, out: Path) -> None:
    """Compare a folder's images with those that a run began with.

    Raises:
        UserError: they are others.
    """
    began = read_run_file(out).get("data", {}).get("images")
    images = read_fingerprint(began, f"{out / 'run.yaml'}: images")
    check_same(Origin(dataset.name, images=images), dataset, str(out))


def lease_of(out: Path, storage: str) -> StudyLease:
    """The lease of a run's study in a database.

    Raises:
        UserError: the database or the study in it is missing.
    """
    study, database = read_run_file(out)["study"], open_storage(out, storage, create=False)
    try:
        return StudyLease(database, study)
    except KeyError as error:
        raise UserError(f"{out}: its study {study} is not in the database of its run.yaml") from error


def write_beginning(out: Path, settings: Settings, prepared: Prepared, workers: Workers, storage: str | None) -> None:
    """Write what is known before the first trial: from here on the run can be resumed."""
    environment = describe_environment(workers.card.name if workers.card else "cpu", workers.count)
    write_run_file(out, settings, environment, storage, describe_data(prepared.dataset))
    if not (out / DATA_FILE).exists():
        side = prepared.space.resolutions[-1]
        seen = samples(prepared.dataset, settings.parsed_recipe, resolution=side)
        write_atomic(out / DATA_FILE, json.dumps(summarise(describe(prepared.dataset), seen)))
    if prepared.table:
        prepared.table.save(out / LATENCY_FILE)


@contextmanager
def open_study(
    settings: Settings,
    prepared: Prepared,
    workers: Workers,
    out: Path,
    storage: str | None,
    lease: StudyLease | None,
) -> Iterator[SearchStudy]:
    """Begin the run's study, or open it as it stands, for this driver alone."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = settings.parsed_objectives
    with ExitStack() as held:
        journal = RunJournal(out / STUDY_FILE, writer=True) if storage is None else None
        study = optuna.create_study(
            study_name=read_run_file(out)["study"],
            storage=open_storage(out, storage, journal=journal),
            sampler=sampler_for(settings, prepared),
            directions=["maximize" if objective.maximise else "minimize" for objective in objectives],
            load_if_exists=True,
        )
        if storage is not None and lease is None:  # nobody knew of the study until now
            lease = held.enter_context(lease_of(out, storage))
        names = [objective.title for objective in objectives]
        if study.metric_names != names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(names)  # optuna-dashboard calls them "Objective 0" otherwise
        sessions = study.user_attrs.get("sessions", [])
        study.set_user_attr("sessions", [*sessions, round(time.time(), 3)])
        batch_size = settings.parsed_recipe.batch_size
        yield SearchStudy(
            study,
            space=prepared.space,
            objectives=objectives,
            limits=settings.parsed_limits,
            costs=prepared.costs,
            objection=lambda network: too_large(count(network, prepared.num_classes), batch_size, workers.memory),
            batch=journal.batch if journal else lease.batch if lease else nullcontext,
        )
