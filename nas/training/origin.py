"""Origin of a training: its own beginning where it is resumed, or the search that found its network."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from nas.architecture.catalogue import load
from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.files import read_yaml
from nas.options import THREADS
from nas.preprocessing import Preprocessing
from nas.training.card import check_split
from nas.training.data import FOLDER_PREFIX, Dataset, absolute, decoded_resolution
from nas.training.fingerprint import Fingerprint, compare, is_another, read_fingerprint
from nas.training.options import DEFAULT_FIT
from nas.training.recipe import Recipe

log = logging.getLogger(__name__)

FIXED = ("epochs", "seed", "train_size", "resolution", "fit", "flip", "class_weights", "augment", "qat")
"""Options that a training keeps from its beginning; one that is resumed may be given them as they were."""


@dataclass(frozen=True)
class Origin:
    """Values that a training takes over unless told otherwise: of a training that is resumed, or of the search that
    found the network.

    dataset     its name
    reading     keywords of :func:`nas.training.data.load_dataset`, as far as they are known
    resolution  of the network's input; None: the network's, at most the images'
    recipe      what it trains by, whatever a recipe's name stands for by now; None: `train`
    images      the identity of a folder's images, where it is known
    target      of the search
    init        the parent whose weights its networks began with
    file        that says all this
    """

    dataset: str = "digits"
    reading: Mapping[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    recipe: Recipe | None = None
    images: Fingerprint | None = None
    target: str | None = None
    init: str | None = None
    file: str = ""

    def reading_as(self, dataset: str, resolution: int | None, **asked: Any) -> dict[str, Any]:
        """Keywords of :func:`nas.training.data.load_dataset` for a data set; what is asked for and not None goes
        first.
        """
        reading = {"seed": 0, **self.reading}
        if dataset != self.dataset:
            reading |= {"white": None}  # of other images
        if not dataset.startswith(FOLDER_PREFIX):
            reading |= {"resolution": None, "fit": DEFAULT_FIT}
        if resolution is not None:
            reading["resolution"] = decoded_resolution(dataset, resolution)
        return reading | {name: value for name, value in asked.items() if value is not None}


def read_begun(folder: Path) -> dict[str, Any]:
    """Read what a training in a folder began with; empty where none was begun.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / "train.yaml"
    if not file.exists():
        return {}
    begun = read_yaml(file)
    if not isinstance(begun, dict) or "recipe" not in begun:
        raise UserError(f"{file}: damaged: it names no recipe")
    threads = begun.get("threads")
    if threads is not None and not (isinstance(threads, int) and threads in THREADS):
        raise UserError(f"{file}: damaged: threads {threads!r}")
    return begun


def begun_training(folder: Path, network: Architecture, asked: Mapping[str, Any]) -> Origin | None:
    """The training that was begun in a folder; None where there is none.

    Args:
        folder: of the training.
        network: that is to be trained.
        asked: the options `FIXED`; None or False: what the training has.

    Raises:
        UserError: its files are damaged, it is of another network, or an option asks for something else than it has.
    """
    file, begun = folder / "train.yaml", read_begun(folder)
    if not begun:
        return None
    try:
        recipe = Recipe.from_dict(begun["recipe"])
        split = dict(check_split(begun.get("split")) or {})
        images = read_fingerprint(begun.get("images"), "images")
        if not isinstance(begun.get("dataset"), str) or not split:
            raise UserError("damaged: it names no data set, or not how that was divided")
        reading = {
            "train_size": split["train_size"],
            "validation_fraction": split["validation_fraction"],
            "seed": split["seed"],
            "split_by": split.get("by", "order"),
        }
        decoded = begun.get("decoded")
        if decoded is not None:
            side, fit, white = decoded["side"], decoded["fit"], decoded["white"]
            Preprocessing(3, (side,), fit, white)  # checks them
            reading |= {"resolution": side, "fit": fit, "white": white}
        own = load(folder / "architecture.yaml")
    except UserError as error:
        raise error.at(str(file)) from error
    except (TypeError, KeyError) as error:
        raise UserError(f"{file}: damaged: it does not say how images were read") from error
    given = network.with_input(channels=own.input.channels, resolution=own.input.resolution)
    if given.id != own.id:
        names = f"{own.name} ({own.id}), not {given.name} ({given.id})"
        raise UserError(f"{folder}: its training is of {names}; resume it with {folder / 'architecture.yaml'}")
    has = {**asdict(recipe), **reading, "resolution": own.input.resolution}
    for name, value in asked.items():
        in_recipe = name in ("flip", "class_weights", "augment")
        same = recipe.with_options(**{name: value}) == recipe if in_recipe else value in (None, has.get(name, value))
        if name != "qat" and not same:
            words, option = name.replace("_", " "), name.replace("_", "-")
            held = f"the default {words}" if has[name] is None else f"{words} {has[name]}"
            raise UserError(f"{folder}: its training has {held}, not {value}; resume it without --{option}")
    if recipe.with_qat(asked["qat"]) != recipe:
        raise UserError(f"{folder}: its training does not end as int8 computes; resume it without --qat")
    return Origin(cast(str, begun["dataset"]), reading, own.input.resolution, recipe, images, file=str(file))


def check_recipe(begun: Recipe, asked: Recipe, images: int, where: str) -> None:
    """Check that a training on so many images began with a recipe, but for what other options change of it.

    Raises:
        UserError: it has another one.
    """
    options = ("flip", "augment", "class_weights", "qat", "qat_per_tensor")
    alike = replace(asked, **{name: getattr(begun, name) for name in options})
    if alike.for_images(images, epochs=begun.epochs) != begun:
        raise UserError(f"{where}: its training has another recipe; resume it without --recipe")


def check_same(then: Origin, data: Dataset, where: str) -> None:
    """Log what changed of a data set since `where`, a run or a training, began.

    Raises:
        UserError: it is another one: its name, its classes, or most of its images are.
    """
    now = data.fingerprint
    if (then.images is None or now is None) and absolute(then.dataset) != data.name:
        raise UserError(f"{where}: began with the data set {then.dataset}, not {data.name}")
    if then.images is None or now is None:
        return
    if changed := sorted({*then.images.classes} ^ {*now.classes}):
        raise UserError(f"{where}: class {changed[0]!r} is not among both its classes and those of {data.name}")
    if is_another(then.images, now):
        raise UserError(f"{where}: began with other images than those of {data.name}; give the folder that it had")
    if line := compare(then.images, now):
        log.warning("%s: %s", where, line)
