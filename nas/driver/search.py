"""A search from beginning to end: open, prepare, train, test, confirm, write."""

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning

from nas.costs.analytic import cost as count
from nas.costs.analytic import too_large
from nas.driver.checkpoints import Checkpoints
from nas.driver.cluster import Workers, card_of, ray_started
from nas.driver.confirmation import Confirmation
from nas.driver.earlier_supernet import TRUSTED, supernet_search, take_over
from nas.driver.final_evaluation import MEASURE_SECONDS, FinalTest, measure_latencies, to_evaluate
from nas.driver.limits import leaves_some
from nas.driver.locking import StudyLease, locked_folder
from nas.driver.objectives import OBJECTIVES, Limit
from nas.driver.options import MOST_TRIALS, Resources
from nas.driver.prepare import LATENCY_FILE, Prepared, Queued, prepare, sampler_for, with_macs
from nas.driver.rehearsal import Rehearsal
from nas.driver.run import Run
from nas.driver.run_file import DATA_FILE, describe_data, describe_environment, read_run_file, write_run_file
from nas.driver.scheduler import Progress, Scheduler
from nas.driver.settings import Settings
from nas.driver.stopping import DominanceStopping
from nas.driver.storage import STUDY_FILE, RunJournal, open_storage
from nas.driver.study import SearchStudy, may_stand_on_front
from nas.driver.supernet import (
    check_supernet,
    enqueue_best,
    enqueue_probe,
    file_of,
    judged_by_supernet,
    teach_sampler,
)
from nas.driver.time_budget import TimeBudget
from nas.driver.trial_scheduler import TrialScheduler
from nas.driver.warm_start import earlier_run, import_networks
from nas.errors import UserError
from nas.files import write_atomic
from nas.training.data import FOLDER_PREFIX, Dataset
from nas.training.facts import describe, summarise
from nas.training.fingerprint import read_fingerprint
from nas.training.origin import Origin, check_same
from nas.training.pictures import samples
from nas.units import counted

log = logging.getLogger(__name__)


class SearchFailedError(RuntimeError):
    """The search began and could not go on; what it did is in its folder."""


def search(
    settings: Settings,
    *,
    out: Path,
    dataset: Dataset | None = None,
    resources: Resources | None = None,
    storage: str | None = None,
    on_change: Callable[[Progress], None] = lambda progress: None,
    measure_latency: bool = False,
    deadline: float | None = None,
    several_devices: bool = False,
) -> Run:
    """Search, and leave a run in a folder; where the folder holds this very search, unfinished, go on with it.

    Args:
        settings: what to search for.
        out: the run's folder; created.
        dataset: the settings' data set, where the caller has read it already.
        resources: what may be used.
        storage: an Optuna URL for the study instead of the journal file in `out`.
        on_change: told the progress after every change.
        measure_latency: measure it at the end even where it is neither an objective nor a limit.
        deadline: on the clock of :func:`time.monotonic`: until then all is done that a search does.
        several_devices: searches for other devices will take its supernet over.

    Raises:
        UserError: something given does not fit, or `out` holds another run; nothing was written.
        SearchFailedError: the trials fail for a reason that is not the networks'.
        nas.driver.processes.RayLostError: Ray died.
    """
    resources, recipe = resources or Resources(), settings.parsed_recipe
    checkpoints = Checkpoints((out / "checkpoints").resolve(), settings.keep)
    with locked_folder(out), ExitStack() as held:
        lease = None
        if (out / "run.yaml").exists():
            storage = read_run_file(out).get("storage")
            lease = held.enter_context(_lease(out, storage)) if storage else None
            settings = _match(settings, out)
        else:
            _check_free(out, settings.dataset)
        earlier, first = earlier_run(settings), supernet_search(settings)
        prepared = prepare(settings, run=out, dataset=dataset, deadline=deadline)
        settings = prepared.settings
        measure_latency = measure_latency or (settings.needs_latency and settings.latency_table is None)
        if (out / "run.yaml").exists():
            _check_images(prepared.dataset, out)
        if settings.evaluator == "supernet":
            check_supernet(settings, prepared)

        with ray_started(resources) as workers:
            from nas.driver.tuning import run_trials  # imports Ray, which nothing but a search needs

            workers = replace(workers, card=card_of(workers))
            _write_beginning(out, settings, prepared, workers, storage)
            study = held.enter_context(_open_study(settings, prepared, workers, out, storage, lease))
            if first is not None:
                take_over(first, settings, study, out)
            if earlier is not None:
                taken, over = import_networks(earlier, study, out)
                kept_off = f", {over} of them over a limit: the sampler learns from these, the front leaves them out"
                counts = counted(taken, "network")
                log.info("%s imported from %s%s", counts, earlier.path, kept_off if over else "")
            log.info(recipe.budget(len(prepared.dataset.train)))
            log.info(
                "%s on %s, %s each", counted(workers.count, "worker"), workers.device, counted(workers.cpus, "thread")
            )
            images = prepared.dataset
            judged = []
            if settings.evaluator == "supernet":
                judged = judged_by_supernet(
                    settings, prepared, study, out, workers, first, deadline, several_devices=several_devices
                )
                teach_sampler(study, judged)
            budget = None
            if deadline is not None:
                budget = TimeBudget(
                    deadline,
                    workers=workers.count,
                    seeds=settings.confirm,
                    confirm_epochs=settings.epochs_of_confirmation,
                    tested=len(images.test) / len(images.validation),
                    measured=measure_latency,
                )

            def narrow(macs: float) -> bool:
                limit = Limit(OBJECTIVES["macs"], macs)
                if not leaves_some(prepared.space, [*study.limits, limit], prepared.costs):
                    return False
                study.study.sampler = sampler_for(settings, prepared, [limit])
                teach_sampler(study, judged)
                return True

            def trials(count: int) -> TrialScheduler:
                return TrialScheduler(
                    study,
                    stopping=DominanceStopping(settings.rungs, settings.reduction),
                    epochs=recipe.epochs,
                    trials=count,
                    images=len(images.validation),
                    max_failures=resources.max_failures,
                    on_change=on_change,
                    discard=checkpoints.discard,
                    time=budget,
                    narrow=narrow,
                )

            def schedulers() -> Iterator[Scheduler]:
                queue = prepared.queue
                if budget is not None:
                    begun = any(map(may_stand_on_front, study.study.get_trials(deepcopy=False)))
                    yield (rehearsal := Rehearsal(prepared, recipe, budget, begun=begun))
                    queue = rehearsal.plan(queue)
                _enqueue(study, prepared, queue)
                if judged:
                    if TRUSTED not in study.study.user_attrs:
                        yield trials(enqueue_probe(study, judged, settings.trials))
                    enqueue_best(study, judged, settings.trials)
                scheduler = trials(settings.trials)
                checkpoints.sweep(scheduler.needs_weights)
                yield scheduler
                Run.open(out).write_tables()
                yield FinalTest(study.study, Run.open(out))
                if settings.confirm:
                    yield Confirmation(
                        study.study,
                        to_evaluate(Run.open(out)),
                        seeds=settings.confirm,
                        epochs=settings.epochs_of_confirmation,
                        resplits=prepared.dataset.can_be_resplit,
                        max_failures=resources.max_failures,
                        on_change=on_change,
                        time=budget,
                        times=scheduler.time_left,
                    )

            try:
                last = run_trials(
                    schedulers(),
                    prepared.dataset,
                    recipe=recipe,
                    workers=workers,
                    seed=settings.seed,
                    checkpoints=checkpoints,
                    epoch_timeout=resources.epoch_timeout,
                    resplit=settings.resplit,
                    target=settings.target,
                    init=str(file_of(settings, out).absolute()) if judged else settings.init,
                )
            finally:
                Run.open(out).write_tables()
            if last.broken:
                counts = f" ({last.progress.counts}; they are in {out})" if last.progress.closed else ""
                raise SearchFailedError(f"{last.broken}{counts}")

        left = MEASURE_SECONDS if budget is None else min(MEASURE_SECONDS, budget.left() / 2)
        if measure_latency and left > 0:
            measure_latencies(Run.open(out), study.study, prepared.num_classes, max_seconds=left)
        if settings.trials == MOST_TRIALS:  # from now on it is a search of as many as there was time for
            trained = sum(record.was_trained for record in Run.open(out).records)
            _write_beginning(out, replace(settings, trials=max(1, trained)), prepared, workers, storage)
    checkpoints.finish()
    run = Run.open(out)
    run.write_tables()
    return run


def finished_run(folder: Path, settings: Settings) -> Run | None:
    """Return the run in a folder that is this very search with nothing left to do; None where there is none."""
    run = Run.open(folder) if (folder / "run.yaml").exists() else None
    return run if run and settings.is_same_search(run.settings) and is_finished(run, settings) else None


def is_finished(run: Run, settings: Settings) -> bool:
    """Return whether a run has all that the settings ask for: trials, what is read at the end, and repeats."""
    epochs = settings.epochs_of_confirmation
    return (
        (run.is_exhausted or sum(record.was_trained for record in run.records) >= settings.trials)
        and not any(record.state == "running" for record in run.records)
        and run.is_tested
        and all(record.repeats(epochs) >= settings.confirm for record in to_evaluate(run))
    )


def _match(settings: Settings, out: Path) -> Settings:
    """Check that a folder's run is this search, or what became of it, and has something left to do; return it.

    Raises:
        UserError: the folder holds another search, or this one is finished.
    """
    run = Run.open(out)
    stand_in = with_macs(settings)
    if stand_in is not None and stand_in.is_same_search(run.settings):
        settings = stand_in
    elif not settings.is_same_search(run.settings):
        raise UserError(f"{out}: holds another run already; give another --out")
    if is_finished(run, settings):
        done = counted(sum(record.was_trained for record in run.records), "trial")
        if run.is_exhausted:
            raise UserError(f"{out}: this run is finished ({done}, and its space holds no more); give another --out")
        raise UserError(
            f"{out}: this run is finished ({done}); give another --out, or --resume {out} --trials N to go on"
        )
    return settings


def _check_free(out: Path, dataset: str) -> None:
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


def _check_images(dataset: Dataset, out: Path) -> None:
    """Compare a folder's images with those that a run began with.

    Raises:
        UserError: they are others.
    """
    began = read_run_file(out).get("data", {}).get("images")
    images = read_fingerprint(began, f"{out / 'run.yaml'}: images")
    check_same(Origin(dataset.name, images=images), dataset, str(out))


def _lease(out: Path, storage: str) -> StudyLease:
    """The lease of a run's study in a database.

    Raises:
        UserError: the database or the study in it is missing.
    """
    study, database = read_run_file(out)["study"], open_storage(out, storage, create=False)
    try:
        return StudyLease(database, study)
    except KeyError as error:
        raise UserError(f"{out}: its study {study} is not in the database of its run.yaml") from error


def _write_beginning(out: Path, settings: Settings, prepared: Prepared, workers: Workers, storage: str | None) -> None:
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
def _open_study(
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
            lease = held.enter_context(_lease(out, storage))
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


def _enqueue(study: SearchStudy, prepared: Prepared, queue: Sequence[Queued]) -> None:
    """Queue what was asked for. A published network that is known stays as it is: in a search that goes on in another
    time, another resolution would fit.
    """
    published = {
        trial.user_attrs["name"]
        for trial in study.study.get_trials(deepcopy=False)
        if trial.user_attrs.get("origin") == "published"
    }
    beside = []
    for architecture, origin in queue:
        if origin == "published" and architecture.name in published:
            continue
        is_new = study.enqueue(architecture, origin)
        if is_new and (why := study.why_beside(architecture, prepared.costs(architecture), origin)):
            beside.append(f"{architecture.name} ({why})")
    if beside:
        log.info("trained beside the search, never on its front: %s", ", ".join(beside))
