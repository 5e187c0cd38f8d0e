"""A search from beginning to end: open, prepare, train, test, confirm, write."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from nas.driver.checkpoints import Checkpoints
from nas.driver.cluster import Workers, card_of, ray_started
from nas.driver.earlier_supernet import supernet_search, take_over
from nas.driver.final_evaluation import MEASURE_SECONDS, measure_latencies, to_evaluate
from nas.driver.locking import locked_folder
from nas.driver.opened_supernet import check_supernet, file_of
from nas.driver.opening import check_free, check_images, lease_of, open_study, write_beginning
from nas.driver.options import MOST_TRIALS, Resources
from nas.driver.phases import Phases
from nas.driver.prepare import prepare, with_macs
from nas.driver.run import Run
from nas.driver.run_file import read_run_file
from nas.driver.scheduler import Progress
from nas.driver.settings import Settings
from nas.driver.study import SearchStudy
from nas.driver.supernet import judged_by_supernet, teach_sampler
from nas.driver.time_budget import TimeBudget
from nas.driver.warm_start import earlier_run, import_networks
from nas.errors import UserError
from nas.training.data import Dataset
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
    resources = resources or Resources()
    checkpoints = Checkpoints((out / "checkpoints").resolve(), settings.keep)
    with locked_folder(out), ExitStack() as held:
        lease, begun = None, (out / "run.yaml").exists()
        if begun:
            storage = read_run_file(out).get("storage")
            lease = held.enter_context(lease_of(out, storage)) if storage else None
            settings = _match(settings, out)
        else:
            check_free(out, settings.dataset)
        earlier, first = earlier_run(settings), supernet_search(settings)
        prepared = prepare(settings, run=out, dataset=dataset, deadline=deadline)
        settings, images = prepared.settings, prepared.dataset
        measure_latency = measure_latency or (settings.needs_latency and settings.latency_table is None)
        if begun:
            check_images(images, out)
        if settings.evaluator == "supernet":
            check_supernet(settings, prepared)
        with ray_started(resources) as workers:
            workers = replace(workers, card=card_of(workers))
            write_beginning(out, settings, prepared, workers, storage)
            study = held.enter_context(open_study(settings, prepared, workers, out, storage, lease))
            if first is not None:
                take_over(first, settings, study, out)
            if earlier is not None:
                _warm_start(earlier, study, out)
            log.info(settings.parsed_recipe.budget(len(images.train)))
            threads = counted(workers.cpus, "thread")
            log.info("%s on %s, %s each", counted(workers.count, "worker"), workers.device, threads)
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
            failures = resources.max_failures
            phases = Phases(settings, prepared, study, out, checkpoints, judged, budget, failures, on_change)
            _train(phases, workers, resources.epoch_timeout)

        left = MEASURE_SECONDS if budget is None else min(MEASURE_SECONDS, budget.left() / 2)
        if measure_latency and left > 0:
            measure_latencies(Run.open(out), study.study, prepared.num_classes, max_seconds=left)
        if settings.trials == MOST_TRIALS:  # from now on it is a search of as many as there was time for
            trained = sum(record.was_trained for record in Run.open(out).records)
            write_beginning(out, replace(settings, trials=max(1, trained)), prepared, workers, storage)
    checkpoints.finish()
    run = Run.open(out)
    run.write_tables()
    return run


def _warm_start(earlier: Run, study: SearchStudy, out: Path) -> None:
    """Enter the networks that an earlier run finished."""
    taken, over = import_networks(earlier, study, out)
    kept_off = f", {over} of them over a limit: the sampler learns from these, the front leaves them out"
    log.info("%s imported from %s%s", counted(taken, "network"), earlier.path, kept_off if over else "")


def _train(phases: Phases, workers: Workers, epoch_timeout: float) -> None:
    """Run the phases on the workers, and write the run's tables however they end.

    Raises:
        SearchFailedError: the trials fail for a reason that is not the networks'.
    """
    from nas.driver.tuning import run_trials  # imports Ray, which nothing but a search needs

    settings, out = phases.settings, phases.out
    try:
        last = run_trials(
            iter(phases),
            phases.prepared.dataset,
            recipe=settings.parsed_recipe,
            workers=workers,
            seed=settings.seed,
            checkpoints=phases.checkpoints,
            epoch_timeout=epoch_timeout,
            resplit=settings.resplit,
            target=settings.target,
            init=str(file_of(settings, out).absolute()) if phases.judged else settings.init,
        )
    finally:
        Run.open(out).write_tables()
    if last.broken:
        counts = f" ({last.progress.counts}; they are in {out})" if last.progress.closed else ""
        raise SearchFailedError(f"{last.broken}{counts}")


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
