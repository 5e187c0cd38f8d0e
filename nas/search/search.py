"""A search from beginning to end: check, queue, train, confirm, write down."""

from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import ray

from nas.errors import UserError
from nas.search.conductor import Conductor, Progress
from nas.search.journal import RunJournal
from nas.search.prepare import check_limits, cost_function, load, queued
from nas.search.run import Run, describe_environment, read_run_file, write_run_file
from nas.search.samplers import make_sampler
from nas.search.settings import Settings
from nas.search.stopping import DominanceStopping, rungs
from nas.search.study import STUDY_FILE, CostFunction, SearchStudy, open_storage
from nas.search.tuning import Resources, run_trials, start_ray
from nas.space import Space
from nas.training.checkpoint import load_checkpoint
from nas.training.data import Dataset
from nas.training.evaluate import evaluate
from nas.training.recipe import Recipe


class SearchFailedError(RuntimeError):
    """The search began and could not go on; what it did is in its folder."""


def search(
    settings: Settings,
    *,
    out: Path,
    resources: Resources | None = None,
    storage: str | None = None,
    on_change: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """Search, and leave a run in a folder; where the folder holds this very search, unfinished, go on with it.

    Args:
        settings: what to search for.
        out: the run's folder; created.
        resources: what may be used.
        storage: an Optuna URL for the study instead of the journal file in `out`.
        on_change: told the progress after every change.
        say: told in one line what happens before and after the trials.

    Raises:
        UserError: something given does not fit, or `out` holds another run; nothing was written.
        SearchFailedError: the trials fail for a reason that is not the networks'.
    """
    resumed = (out / "run.yaml").exists()
    if resumed:
        settings, storage = _match(settings, out)
    dataset = load(settings)
    space = settings.open_space()
    limits = settings.parsed_limits
    costs = cost_function(len(dataset.classes), None)
    check_limits(space, limits, costs)
    queue = queued(settings, space, dataset)
    with ExitStack() as stack:
        workers = start_ray(resources or Resources())
        stack.callback(ray.shutdown)
        _create_folder(out)
        environment = read_run_file(out)["environment"] if resumed else describe_environment(workers.device)
        write_run_file(out, settings, environment, storage)
        journal = None
        if storage is None:
            journal = stack.enter_context(closing(RunJournal(out / STUDY_FILE, writer=True)))
        study = SearchStudy(
            _open_study(settings, space, costs, out, open_storage(out, storage, journal=journal)),
            space=space,
            objectives=settings.parsed_objectives,
            limits=limits,
            costs=costs,
            batch=journal.batch if journal else nullcontext,
        )
        for architecture in queue:
            study.enqueue(architecture)
        recipe = settings.parsed_recipe
        conductor = Conductor(
            study,
            stopping=DominanceStopping(rungs(recipe.epochs, settings.reduction), settings.reduction),
            epochs=recipe.epochs,
            trials=settings.trials,
            on_change=on_change,
        )
        say(f"{workers.count} workers on {workers.device}, {workers.cpus} threads each")
        try:
            run_trials(
                conductor,
                dataset,
                recipe=settings.recipe,
                workers=workers,
                seed=settings.seed,
                checkpoints=(out / "checkpoints").resolve(),
            )
        finally:
            Run.open(out).write_tables()
        if conductor.broken:
            raise SearchFailedError(f"{conductor.broken}; what was done is in {out}")
        ray.shutdown()
        say("reading the test set, once, for the front")
        study.study.set_user_attr("confirmed", confirm(Run.open(out), dataset))
    run = Run.open(out)
    run.write_tables()
    return run


def resume(path: Path, *, trials: int | None = None, **options: Any) -> Run:
    """Go on with a run.

    Args:
        path: its folder.
        trials: a new budget, at least as large as what is done.
        options: as of :func:`search`, but settings, folder and storage.

    Raises:
        UserError: there is no run, or it is finished.
    """
    run = Run.open(path)
    settings = run.settings if trials is None else replace(run.settings, trials=trials)
    return search(settings, out=path, **options)


def confirm(run: Run, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Read the test set, once, for the networks of the front and the published networks trained beside them.

    Returns:
        What was found out, by trial number as text; what was known already is kept.
    """
    confirmed: dict[str, dict[str, Any]] = dict(run.study.user_attrs.get("confirmed", {}))
    for record in run.records:
        beside = record.published and record.state == "complete" and record.twin is None
        path = run.checkpoint(record)
        if not (record.on_front or beside) or str(record.number) in confirmed or not path.exists():
            continue
        checkpoint = load_checkpoint(path)
        image = record.architecture.input
        network = record.architecture.build(len(dataset.classes))
        network.load_state_dict(checkpoint.weights)
        images = dataset.for_network(image.channels, image.resolution)
        scores = evaluate(network, images, "test", precision=Recipe.from_dict(checkpoint.recipe).precision)
        confirmed[str(record.number)] = {"test_accuracy": scores.accuracy}
    return confirmed


def _match(settings: Settings, out: Path) -> tuple[Settings, str | None]:
    """The settings to go on with in a folder that holds a run, and where its study is.

    Raises:
        UserError: the folder holds another search, or this one is finished.
    """
    run = Run.open(out)
    if replace(settings, trials=1) != replace(run.settings, trials=1):
        raise UserError(f"{out}: holds another run already; give another --out")
    done = sum(record.was_trained for record in run.records)
    if done >= settings.trials:
        raise UserError(
            f"{out}: this run is finished ({done} trials); give another --out, or --resume {out} --trials N to go on"
        )
    return settings, read_run_file(out).get("storage")


def _create_folder(out: Path) -> None:
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be created: {error.strerror or error}") from error


def _open_study(
    settings: Settings, space: Space, costs: CostFunction, out: Path, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = settings.parsed_objectives
    return optuna.create_study(
        study_name=read_run_file(out)["study"],
        storage=storage,
        sampler=make_sampler(
            settings.sampler,
            space=space,
            objectives=objectives,
            limits=settings.parsed_limits,
            costs=costs,
            seed=settings.seed,
        ),
        directions=["maximize" if objective.maximise else "minimize" for objective in objectives],
        load_if_exists=True,
    )
