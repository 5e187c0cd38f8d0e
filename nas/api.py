"""The commands as functions; the command line is a thin layer over these."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas.architecture.catalogue import load, load_space
from nas.architecture.document import Architecture
from nas.architecture.reported import Printed, printed_for
from nas.architecture.space import Space
from nas.costs.analytic import cost, too_large
from nas.costs.profile import profile as profile_network
from nas.driver.asked import settings_of
from nas.driver.compared import compare as compare_networks
from nas.driver.compared import networks_of
from nas.driver.devices import search_devices as run_devices
from nas.driver.display import progress_to
from nas.driver.options import CHANGEABLE, SMALL_SPACE, ReproduceOptions, Resources, SearchOptions
from nas.driver.reproduce import Reproduction
from nas.driver.reproduce import reproduce as reproduce_table
from nas.driver.run import Run
from nas.driver.run_file import searched
from nas.driver.scheduler import Progress
from nas.driver.search import search as run_search
from nas.driver.settings import check_published
from nas.errors import UserError
from nas.export.command import export as export
from nas.export.judging import judge_file, judge_shipped, with_shipped
from nas.export.predict import predict as predict
from nas.export.shipping import ENDINGS
from nas.files import fresh_folder as fresh_folder
from nas.hardware import choose_device as choose_device
from nas.hardware import memory_bytes
from nas.options import check_numbers, deadline_of, hints_of, keywords
from nas.preprocessing import checked_fit
from nas.report.page import write_data_page, write_judgement_page, write_report
from nas.targets import on_target
from nas.targets import target as target_named
from nas.training.checkpoint import load_trained
from nas.training.data import absolute, load_dataset
from nas.training.distributed import joined
from nas.training.facts import describe
from nas.training.loop import Epoch
from nas.training.options import DEFAULT_FIT, DataOptions, TrainOptions
from nas.training.origin import FIXED, Origin, begun_training, check_recipe, check_same
from nas.training.parents import first_parent
from nas.training.per_class import judge
from nas.training.pictures import MOST_ON_PAGE, samples
from nas.training.recipe import Recipe, load_recipe
from nas.training.session import Trained
from nas.training.session import train as train_network
from nas.training.teachers import fine_tuned, first_teacher


@keywords(SearchOptions, Architecture, Progress, Recipe, Space)
def search(options: SearchOptions) -> Run:
    """Search a space for the networks with the best trade of the objectives; `nas search` in Python.

    Args:
        resources: What may be used, and how many failures are put up with.
        progress: Print how far the search is; default: in an interactive session, unless `on_change` is given.
        on_change: Told the progress after every change.
        began: Since when the hours count, on the clock of :func:`time.monotonic`; default: now.

    Returns:
        The finished run; ``run.front`` is a table, ``run.front_records`` hold the architectures.

    Raises:
        UserError: something given does not fit; nothing was written.
        nas.driver.search.SearchFailedError: trial after trial failed.
    """
    if len(options.latency_tables) > 1:
        raise UserError("several latency tables make a run each, which nas.api.search_devices returns")
    (run,) = _search(options)
    return run


@keywords(SearchOptions, Architecture, Progress, Recipe, Space)
def search_devices(options: SearchOptions) -> list[Run]:
    """Search for several devices, one after the other; see :func:`nas.driver.devices.search_devices`.

    Args:
        resources: As of :func:`search`, like all options but `latency_table`: a sequence, a table per device.
        progress: As of :func:`search`.
        on_change: As of :func:`search`.
        began: As of :func:`search`.

    Returns:
        A finished run per device, in the folder `out`.
    """
    return _search(options)


def _search(options: SearchOptions) -> list[Run]:
    """Search for the device that is asked for, or for each of several."""
    deadline = deadline_of(options.hours, options.began)
    settings, data = settings_of(options)
    folder = (
        Path(options.out)
        if options.out is not None
        else fresh_folder(settings.space.get("name", "space"), options.dataset)
    )
    with progress_to(options.progress, options.on_change) as tell:
        return run_devices(
            settings,
            options.latency_tables,
            out=folder,
            dataset=data,
            resources=options.resources,
            storage=options.storage,
            telling=lambda place: _reporting(place, options.report_every, tell),
            deadline=deadline,
        )


@keywords(TrainOptions, Architecture, Epoch, Recipe)
def train(options: TrainOptions) -> Trained:
    """Train one network in full; `nas train` in Python. See :func:`nas.training.session.train`.

    What is not given of data, resolution, recipe and seed is that of the search that found the network, or of the
    training that is resumed. In processes that torchrun started, they train it together.

    Args:
        architecture: A name, a file or a document.
        on_epoch: Called after every epoch with it and the number of all.
        began: Since when the hours count, on the clock of :func:`time.monotonic`; default: now.

    Raises:
        UserError: something given does not fit; nothing was written.
        nas.training.failures.TrainingError: the training cannot go on.
    """
    deadline = deadline_of(options.hours, options.began)
    network = load(options.architecture)
    fixed = {name: getattr(options, name) for name in FIXED}
    begun = begun_training(Path(str(options.out)), network, fixed) if options.resume else None
    origin = begun or searched(options.architecture, network, options.run) or Origin(reading={"fit": DEFAULT_FIT})
    where = options.target or (origin.target if origin.target != "torch" else None)
    target = target_named(where) if where is not None else None
    if target is not None and options.target is not None:  # else a search has seen to it
        target.check([network])
        target.require()
    name = absolute(options.dataset or origin.dataset)
    asked = {key: getattr(options, key) for key in ("data_dir", "train_size", "seed")}
    reading = origin.reading_as(name, options.resolution, **asked, fit=options.fit and checked_fit(options.fit))
    side = options.resolution or origin.resolution
    recipe = load_recipe(options.recipe or origin.recipe or "train")
    with joined(choose_device(options.device)) as (ranks, device):
        with ranks.leader_first():
            try:
                data = load_dataset(name, **reading, at_most=side or network.input.resolution, strict=options.strict)
            except UserError as error:
                raise error.at(origin.file) if origin.file and options.dataset is None else error from None
        if begun and begun.recipe:
            check_same(begun, data, str(options.out))
            check_recipe(begun.recipe, recipe, len(data.train), str(options.out))
            recipe = begun.recipe
        else:
            recipe = recipe.with_options(
                flip=options.flip, augment=options.augment, class_weights=options.class_weights
            )
            per_tensor = target is not None and target.per_tensor
            recipe = recipe.with_qat(options.qat or recipe.qat > 0, per_tensor=per_tensor)
            recipe = recipe.for_images(len(data.train), epochs=options.epochs)
        # A resolution no larger than the images' unless one is asked for.
        side = side or min(network.input.resolution, data.resolution)
        network = network.with_input(channels=data.channels, resolution=side)
        reason = too_large(cost(network, len(data.classes)), recipe.batch_size // ranks.count, memory_bytes(device))
        if reason is not None:
            raise UserError(f"{network.name}: {reason}")
        folder = Path(options.out) if options.out is not None else fresh_folder(network.name, name)
        init = first_parent(options.init, origin.init, network)
        how: dict[str, Any] = {key: getattr(options, key) for key in ("compile", "threads", "on_epoch")}
        how |= {"seed": reading["seed"], "device": device, "ranks": ranks, "deadline": deadline}
        teacher = first_teacher(options.teacher, init, searched=init is not None and init == origin.init)
        if isinstance(teacher, str):
            teacher, init = fine_tuned(teacher, data, recipe, resolution=side, out=folder / "teacher", **how)
        trained = train_network(
            network, data, recipe, out=folder, resume=options.resume, init=init, teacher=teacher, **how
        )
        if target is not None and ranks.leads:
            images = data.for_network(network.input.channels, network.input.resolution)
            trained = with_shipped(trained, target, images, device=device)
        return trained


@keywords(DataOptions, Recipe)
def data(options: DataOptions) -> dict[str, Any]:
    """Describe a data set before anything is trained on it; `nas data --json` in Python.

    Args:
        dataset: A name or imagefolder:PATH.

    Returns:
        See :func:`nas.training.facts.describe`.

    Raises:
        UserError: something given does not fit, or the data set cannot be read; nothing was written.
    """
    recipe = load_recipe(options.recipe).with_options(flip=options.flip, augment=options.augment)
    found = load_dataset(
        options.dataset,
        data_dir=options.data_dir,
        train_size=options.train_size,
        seed=options.seed,
        resolution=options.resolution,
        at_most=max(load_space(SMALL_SPACE).resolutions),
        fit=checked_fit(options.fit),
        strict=options.strict,
    )
    document = describe(found)
    if options.out is not None:
        pictures = samples(found, recipe, most=MOST_ON_PAGE, seed=options.seed)
        write_data_page(Path(options.out), document, pictures)
    return document


def evaluate(
    checkpoint: str | Path,
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Judgement of the validation and the test images by a trained network; `nas evaluate --json` in Python.

    Args:
        checkpoint: written by a training or a search, or an ONNX or LiteRT model that `nas export` wrote.
        dataset: default the one that it was trained on, split as it was then.
        target: judge what is shipped there in the place of the checkpoint's network, and measure its file.
        out: a page to write, with the confusion matrix and the surest mistakes as pictures.

    Returns:
        Accuracies, with a target also its figures (``target``) and the accuracies of the network as it was trained
        (``fp32``), and of each part under its name recall and precision per class, the confusion matrix (a row per
        class) and the surest mistakes: :class:`nas.training.per_class.Judgement`.
    """
    path = Path(checkpoint)
    if path.suffix in ENDINGS and device not in (None, "cpu"):
        raise UserError(f"{path}: exported models are judged on the CPU; leave --device {device} out")
    if path.suffix in ENDINGS and target is not None:
        raise UserError(f"{path}: is what ships already; leave --target {target} out, or give the checkpoint")
    wanted = target_named(target) if target is not None else None
    if wanted is not None:
        wanted.check([Architecture.from_dict(load_trained(path).architecture, str(path))])  # before any image is read
        wanted.require()
    place = "cpu" if path.suffix in ENDINGS else choose_device(device)
    architecture, images, found = judge_file(path, dataset=dataset, data_dir=data_dir, device=place)
    there: dict[str, Any] = {}
    if wanted is not None:
        figures, shipped = judge_shipped(wanted, path, images)
        there = {"target": figures, "fp32": {f"{part}_accuracy": found[part].accuracy for part in found}}
        found |= shipped
    parts = {part: judge(images.part(part), scores, images.classes) for part, scores in found.items()}
    if out is not None:
        write_judgement_page(Path(out), architecture.name, images, parts)
    result: dict[str, Any] = {"name": architecture.name, "id": architecture.id, "dataset": images.name}
    for part, judgement in parts.items():
        result |= {f"{part}_{name}": judgement[name] for name in ("accuracy", "balanced_accuracy", "images")}
    return result | there | {str(part): judgement for part, judgement in parts.items()}


def resume(
    path: str | Path,
    *,
    resources: Resources | None = None,
    hours: float | None = None,
    began: float | None = None,
    report_every: float = 0,
    progress: bool | None = None,
    on_change: Callable[[Progress], None] | None = None,
    **changes: Any,
) -> Run:
    """Go on with a search that was interrupted, or extend one.

    Args:
        path: The run's folder.
        hours: The time in which it ends, from `began` (of :func:`time.monotonic`) on; default: from now on.
        changes: ``trials``, ``confirm``, ``confirm_epochs`` and ``keep`` as of :func:`search`; default the run's own.

    Raises:
        UserError: There is no run, it is finished, or another option is given.
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise UserError(f"{name} of a run cannot be changed; allowed: {', '.join(CHANGEABLE)}")
    check_numbers(hints_of(SearchOptions), {"hours": hours, "report_every": report_every, **changes})
    deadline = deadline_of(hours, began)
    settings = Run.open(path).settings.going_on(changes, hours=hours)
    with progress_to(progress, on_change) as tell:
        tell = _reporting(Path(path), report_every, tell)
        return run_search(settings, out=Path(path), resources=resources, on_change=tell, deadline=deadline)


def _reporting(folder: Path, every: float, on_change: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Tells the progress on, and writes the run's report again every so many seconds."""
    if not every:
        return on_change
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        on_change(progress)
        if time.monotonic() - last >= every:
            try:
                report(folder)
            except Exception as error:  # a search is worth more than its picture, which the end draws again
                progress.note = f"no report: {error}"
            last = time.monotonic()

    return tell


def report(run: str | Path | Run, *, published: str | None = None, out: str | Path | None = None) -> Path:
    """Write a run's report; returns its path.

    Args:
        run: or its folder.
        published: which networks are drawn as the papers print them: ``none``, ``all``, or those trained here
            (``contained``, ``references``); default as the search was asked.
        out: the page; default ``report.html`` in the run's folder.
    """
    opened = Run.open(run)
    printed = _printed(opened, published or opened.settings.published)
    return write_report(opened, Path(out) if out is not None else None, printed=printed)


def _printed(run: Run, which: str) -> list[Printed]:
    check_published(which)
    if which == "none":
        return []
    names = {record.architecture.name for record in run.records if record.published}
    return [row for row in printed_for(run.settings.dataset) if which == "all" or row.name in names]


def profile(
    architecture: str | Path | Architecture,
    *,
    num_classes: int = 10,
    resolution: int | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """Profile a network's costs; `nas profile --json` in Python. With a target: the file and the memory there, too."""
    wanted = target_named(target) if target is not None else None
    network = load(architecture)
    if resolution is not None:
        network = network.with_input(resolution=resolution)
    document = profile_network(network, num_classes)
    return document if wanted is None else document | {"target": on_target(wanted, network, num_classes)}


def compare(
    references: str | Path | Architecture | Sequence[str | Path | Architecture],
    *,
    dataset: str = "cifar10",
    num_classes: int | None = None,
) -> pd.DataFrame:
    """Networks side by side: costs, printed figures, and Han's derived columns; `nas compare` in Python.

    Args:
        references: published names, YAML files, folders of trainings, or of searches: then their fronts' networks.
        dataset: whose printed figures are shown; its classes are counted for, unless `num_classes` says otherwise or
            a network was trained on another number.
    """
    if isinstance(references, str | Path | Architecture):
        references = [references]
    networks = [network for reference in references for network in networks_of(reference)]
    return compare_networks(networks, dataset=dataset, num_classes=num_classes)


@keywords(ReproduceOptions, Progress, Recipe)
def reproduce(options: ReproduceOptions) -> Reproduction:
    """A paper's table, trained or timed here; `nas reproduce` in Python. See :func:`nas.driver.reproduce.reproduce`.

    Args:
        table: One of those that `nas reproduce --help` names.
        resources: What may be used.
        on_change: Told the progress after every change.
    """
    done = reproduce_table(options)
    for run in done.runs:
        report(run, published="contained")
    return done


def open_run(path: str | Path | Run) -> Run:
    """A run on disk; see :class:`nas.driver.run.Run`."""
    return Run.open(path)
