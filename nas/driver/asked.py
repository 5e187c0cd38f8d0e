"""The settings of a search that is asked for: what was not given is chosen here."""

from pathlib import Path

from nas.architecture.catalogue import load, load_space
from nas.driver.options import SearchOptions
from nas.driver.prepare import default_space, fit_space, for_target, objectives_for, parent_for
from nas.driver.settings import Settings
from nas.driver.stopping import first_rung
from nas.preprocessing import checked_fit
from nas.targets import target as target_named
from nas.training.data import Dataset, decoded_resolution, load_dataset
from nas.training.recipe import load_recipe, steps_per_epoch


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
    recipe = load_recipe(options.recipe)
    recipe = recipe.with_flip(options.flip).with_augment(options.augment).with_class_weights(options.class_weights)
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
