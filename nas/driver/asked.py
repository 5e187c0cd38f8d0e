"""The settings of a search that is asked for: what was not given is chosen here."""

import logging
from collections.abc import Sequence
from pathlib import Path

from nas.architecture.catalogue import load, load_space
from nas.architecture.space import Space
from nas.driver.options import PHOTO_SPACE, SMALL_SPACE, SearchOptions
from nas.driver.settings import Settings
from nas.driver.stopping import first_rung
from nas.errors import UserError
from nas.preprocessing import checked_fit
from nas.targets import Target, restricted
from nas.targets import target as target_named
from nas.training.data import FOLDER_PREFIX, Dataset, decoded_resolution, load_dataset
from nas.training.folder import typical_side
from nas.training.members import largest
from nas.training.parents import fitting_parent
from nas.training.recipe import PHOTO_SIDE, load_recipe, steps_per_epoch

log = logging.getLogger(__name__)


def settings_of(options: SearchOptions) -> tuple[Settings, Dataset]:
    """Return a search's settings, with the table of its first device, and its data set.

    Raises:
        UserError: something given does not fit.
    """
    target = target_named(options.target)
    space = for_target(load_space(options.space or default_space(options.dataset)), target)
    own = [load(item) for item in options.enqueue]
    target.check(own, "--enqueue")
    target.require()
    data = load_dataset(
        options.dataset,
        data_dir=options.data_dir,
        train_size=options.train_size,
        seed=options.seed,
        resolution=decoded_resolution(options.dataset, options.resolution),
        at_most=max(space.resolutions),
        fit=checked_fit(options.fit),
        strict=options.strict,
    )
    fitted = fit_space(space, data, options.resolution)
    recipe = load_recipe(options.recipe).with_options(
        flip=options.flip, augment=options.augment, class_weights=options.class_weights
    )
    recipe = recipe.with_qat(recipe.qat > 0, per_tensor=target.per_tensor)
    recipe = recipe.for_images(len(data.train), epochs=options.epochs)
    known = {name: value for name, value in vars(options).items() if name in Settings.__dataclass_fields__}
    paths = {name: str(value) for name, value in known.items() if isinstance(value, Path)}
    chosen = {
        "space": dict(fitted.document),
        "init": parent_for(options.init, fitted),
        "latency_table": next(iter(options.latency_tables), None),
        "dataset": data.name,
        "fit": data.fit,
        "split_by": data.split.by,
        "image_resolution": decoded_resolution(options.dataset, data.resolution),
        "objectives": objectives_for(target, options.objectives, bool(options.latency_tables)),
        "limits": tuple(options.limits),
        "recipe": recipe.to_dict(),
        **options.budget,
        "first_rung": first_rung(steps_per_epoch(len(data.train), recipe.batch_size)[0]),
        "enqueue": tuple(network.to_dict() for network in own),
        "evaluator": "supernet" if options.supernet is not None else options.evaluator,
    }
    return Settings(**known | paths | chosen), data


def objectives_for(target: Target, objectives: Sequence[str], has_table: bool) -> tuple[str, ...]:
    """Return the objectives of a search; memory takes latency's place in the default ones where no latency is known."""
    if has_table or target.engine is not None or tuple(objectives) != tuple(SearchOptions.objectives):
        return tuple(objectives)
    log.info("target %s: its latency cannot be measured here, so memory is an objective in its place", target.name)
    return ("accuracy", "size", "memory")


def for_target(space: Space, target: Target) -> Space:
    """A space without what the target does not run; one line says what it lost.

    Raises:
        UserError: nothing is left.
    """
    smaller, lost = restricted(space, target)
    if lost:
        log.info(lost)
    return smaller


def default_space(dataset: str) -> str:
    """Name the space of a search that is given none: that of photographs for a folder of them."""
    if not dataset.startswith(FOLDER_PREFIX):
        return SMALL_SPACE
    try:
        side = typical_side(Path(dataset.removeprefix(FOLDER_PREFIX)).expanduser())
    except (UserError, OSError):  # whoever reads the images says so
        return SMALL_SPACE
    name = PHOTO_SPACE if side >= PHOTO_SIDE else SMALL_SPACE
    log.info("images of about %d pixels: --space %s", side, name)
    return name


def parent_for(asked: Path | str | None, space: Space) -> str | None:
    """Choose the parent that a space's networks begin with, as :func:`nas.training.parents.fitting_parent` does.

    Raises:
        UserError: the one that was asked for cannot be read, or the space's largest network does not fit it.
    """
    if str(asked) == "none" or (asked is None and max(space.resolutions) < PHOTO_SIDE):
        return None
    return fitting_parent(None if asked is None else str(asked), largest(space))


def fit_space(space: Space, dataset: Dataset, resolution: int | None = None) -> Space:
    """A space for a data set: its channels, and a resolution no larger than its images unless one is asked for."""
    if resolution is None and len(space.resolutions) == 1:
        resolution = min(space.resolutions[0], dataset.resolution)
    return space.with_input(channels=dataset.channels, resolution=resolution)
