"""A search from beginning to end: check, queue, train, confirm, write down."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray

from nas import catalog
from nas.architecture import Architecture
from nas.cost.analytic import cost
from nas.errors import UserError
from nas.search.conductor import Conductor, Progress
from nas.search.objectives import Limit
from nas.search.run import Run, describe_environment, write_run_file
from nas.search.samplers import make_sampler
from nas.search.settings import Settings
from nas.search.stopping import DominanceStopping, rungs
from nas.search.study import STUDY_NAME, CostFunction, SearchStudy, open_storage
from nas.search.tuning import Resources, run_trials, start_ray
from nas.space import Space
from nas.training.checkpoint import load_checkpoint
from nas.training.data import Dataset, load_dataset
from nas.training.evaluate import evaluate


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
    """Search, and leave a run in a folder.

    Args:
        settings: what to search for.
        out: the run's folder; created, and refused where it holds a run already.
        resources: what may be used.
        storage: an Optuna URL for the study instead of the journal file in `out`.
        on_change: told the progress after every change.
        say: told in one line what happens before and after the trials.

    Raises:
        UserError: something given does not fit; nothing was written.
        SearchFailedError: the trials fail for a reason that is not the networks'.
    """
    dataset = load(settings)
    space = settings.open_space()
    limits = settings.parsed_limits
    costs = cost_function(len(dataset.classes), None)
    check_limits(space, limits, costs)
    queue = queued(settings, space, dataset)
    workers = start_ray(resources or Resources())
    try:
        create_folder(out)
        write_run_file(out, settings, describe_environment(workers.device), storage)
        study = SearchStudy(
            create_study(settings, space, costs, out, storage),
            space=space,
            objectives=settings.parsed_objectives,
            limits=limits,
            costs=costs,
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
        run_trials(
            conductor,
            dataset,
            recipe=settings.recipe,
            workers=workers,
            seed=settings.seed,
            checkpoints=(out / "checkpoints").resolve(),
        )
    finally:
        ray.shutdown()
    run = Run.open(out)
    run.write_tables()
    if conductor.broken:
        raise SearchFailedError(f"{conductor.broken}; what was done is in {out}")
    say("reading the test set once for the front")
    confirm(run, dataset)
    run = Run.open(out)
    run.write_tables()
    return run


def load(settings: Settings) -> Dataset:
    """The data set of a search."""
    return load_dataset(
        settings.dataset,
        data_dir=settings.data_dir,
        train_size=settings.train_size,
        validation_fraction=settings.validation_fraction,
        seed=settings.seed,
    )


def fit_space(space: Space, dataset: Dataset, resolution: int | None = None) -> Space:
    """A space for a data set: its channels, and a resolution no larger than its images unless one is asked for."""
    if resolution is None and len(space.resolutions) == 1:
        resolution = min(space.resolutions[0], dataset.resolution)
    return space.with_input(channels=dataset.channels, resolution=resolution)


def cost_function(num_classes: int, latency: Callable[[Architecture], float] | None) -> CostFunction:
    """The known figures of a network, each network counted once.

    Args:
        num_classes: of the data set.
        latency: predicts milliseconds; None leaves the latency out.
    """

    @functools.lru_cache(maxsize=100_000)
    def costs(architecture: Architecture) -> dict[str, float]:
        counts = cost(architecture, num_classes)
        figures: dict[str, float] = {
            "params": counts.params,
            "macs": counts.macs,
            "size": counts.size_bytes,
            "peak_memory": counts.peak_activation_bytes,
        }
        if latency is not None:
            figures["latency"] = latency(architecture)
        return figures

    return costs


def check_limits(space: Space, limits: Sequence[Limit], costs: CostFunction) -> None:
    """Find out before anything is trained whether limits leave anything.

    Raises:
        UserError: no network that keeps them all was found; the line tells the nearest.
    """
    if not limits:
        return

    def excess(parameters: dict[str, Any]) -> float:
        figures = costs(space.architecture(parameters))
        return max(limit.excess(figures) for limit in limits)

    # Downhill, one parameter at a time: costs rise with every parameter, so this ends at the cheapest network.
    best = {name: parameter.values[0] for name, parameter in space.parameters_by_name.items()}
    lowest = excess(best)
    for _ in range(3):
        for name, parameter in space.parameters_by_name.items():
            for value in parameter.values:
                trial = {**best, name: value}
                if (found := excess(trial)) < lowest:
                    best, lowest = trial, found
        if lowest <= 0:
            return
    if lowest > 0:
        figures = costs(space.architecture(best))
        worst = max(limits, key=lambda limit: limit.excess(figures))
        shown = worst.objective.show(figures[worst.objective.name])
        raise UserError(f"limit {worst}: no network of space {space.name} keeps it; the nearest has {shown}")


def queued(settings: Settings, space: Space, dataset: Dataset) -> list[Architecture]:
    """The networks that are trained before any proposal: the user's own, then published ones, in this data set's input."""
    own = [
        Architecture.from_dict(document, "--enqueue").with_input(channels=dataset.channels, resolution=resolution)
        for document in settings.enqueue
        for resolution in [space.resolutions[-1]]
    ]
    found: list[Architecture] = []
    for architecture in catalog.published() if settings.published != "none" else []:
        fitted = fit_published(architecture, space, dataset)
        if fitted is not None and (settings.published == "all" or space.contains(fitted)):
            found.append(fitted)
    unique = {architecture.id: architecture for architecture in reversed([*own, *found])}
    return list(reversed(unique.values()))


def fit_published(architecture: Architecture, space: Space, dataset: Dataset) -> Architecture | None:
    """A published network at the space's largest resolution, or None where its strides do not fit."""
    try:
        return architecture.with_input(channels=dataset.channels, resolution=max(space.resolutions))
    except UserError:
        return None


def create_folder(out: Path) -> None:
    """Create a run's folder.

    Raises:
        UserError: it holds a run already, or cannot be written.
    """
    if (out / "run.yaml").exists():
        raise UserError(f"{out}: holds a run already; give another --out, or --resume {out} to go on with it")
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be created: {error.strerror or error}") from error


def create_study(
    settings: Settings, space: Space, costs: CostFunction, out: Path, storage: str | None
) -> optuna.Study:
    """The Optuna study of a run, created or opened again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = settings.parsed_objectives
    sampler = make_sampler(
        settings.sampler,
        space=space,
        objectives=objectives,
        limits=settings.parsed_limits,
        costs=costs,
        seed=settings.seed,
    )
    return optuna.create_study(
        study_name=STUDY_NAME,
        storage=open_storage(out, storage),
        sampler=sampler,
        directions=["maximize" if objective.maximise else "minimize" for objective in objectives],
        load_if_exists=True,
    )


def confirm(run: Run, dataset: Dataset) -> None:
    """Read the test set, once, for the networks of the front and the published networks trained beside them.

    Their weights stay in the run's folder; those of all other trials are removed.
    """
    confirmed: dict[str, dict[str, Any]] = {}
    for record in run.records:
        path = run.checkpoint(record)
        if not (record.on_front or (record.published and record.state == "complete" and record.twin is None)):
            path.unlink(missing_ok=True)
            continue
        checkpoint = load_checkpoint(path)
        image = record.architecture.input
        network = record.architecture.build(len(dataset.classes))
        network.load_state_dict(checkpoint.weights)
        scores = evaluate(network, dataset.for_network(image.channels, image.resolution), "test")
        confirmed[str(record.number)] = {"test_accuracy": scores.accuracy}
    run.study.set_user_attr("confirmed", confirmed)
