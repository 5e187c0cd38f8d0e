"""Data sets as tensors: read once, held as uint8 where the network trains.

A data set has three parts. The test part is fixed: it depends on no seed and is never read by a search. What remains is
split by a seed into a training part and a validation part, class by class; a folder of images by its files' names.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nas.errors import UserError
from nas.preprocessing import Fit, Preprocessing
from nas.training.fingerprint import Fingerprint, fingerprint
from nas.training.folder import Reading, SplitBy, read_folder
from nas.training.images import Images as Images
from nas.training.images import channel_statistics, joined
from nas.training.likeness import mirrored_classes, near_copies
from nas.training.listing import Facts, is_utf8
from nas.training.mapped import MOST_IN_MEMORY, in_format
from nas.training.options import DEFAULT_FIT
from nas.training.sources import DOWNLOADED, Source, read_digits, read_downloaded
from nas.training.split import held_out, places, stratified_order
from nas.units import counted

log = logging.getLogger(__name__)

PartName = Literal["train", "validation", "test"]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")

NAMES: tuple[str, ...] = ("digits", *DOWNLOADED)
FOLDER_PREFIX = "imagefolder:"

# A validation part of 2,000 images gives an accuracy with a standard error of at most 1.1 points. A small `train_size`
# shrinks the validation part with it (or validating would cost more than training), but not below that.
_VALIDATION_FLOOR = 2_000


@dataclass(frozen=True)
class Split:
    """The split into training and validation images; with the data set's name, enough to repeat it."""

    seed: int
    validation_fraction: float
    train_size: int | None
    by: SplitBy = "order"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, in memory or mapped from a file.

    `mean` and `std` are per channel, in [0, 1], from the training part alone. `flip_safe` says whether an image
    mirrored left to right still belongs to its class (a mirrored digit does not). `own_validation`: the validation part
    was not held out of the training images. `fit`: how images of a folder became squares. `facts`: of a folder of
    images, else None. `places`: int64, of the validation images and then of the training images before they were
    divided; None where some of those images are in neither part.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    resolution: int
    train: Images
    validation: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split: Split
    flip_safe: bool
    own_validation: bool = False
    fit: Fit = "crop"
    facts: Facts | None = None
    places: Tensor | None = None

    @property
    def can_be_resplit(self) -> bool:
        """Return whether validation images can be drawn again; see :func:`resplit`."""
        return self.places is not None and not self.own_validation

    @functools.cached_property
    def fingerprint(self) -> Fingerprint | None:
        """The identity of a folder's images; None for other data sets."""
        return fingerprint(self.classes, {name: self.part(name) for name in PARTS})

    @property
    def device(self) -> torch.device:
        return self.train.images.device

    def part(self, name: PartName) -> Images:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def for_network(self, channels: int, resolution: int, device: torch.device | str = "cpu") -> Dataset:
        """This data set as a network reads it, on `device`; uint8 throughout.

        Channels: 1 becomes 3 by repetition, 3 becomes 1 by luminance (ITU-R BT.601, as Pillow's "L"). Resolution:
        bilinear with antialiasing, once, here. `mean` and `std` are taken again from the converted training part.

        Raises `UserError` for a channel count other than 1 and 3 that is not the data set's own.
        """
        if channels == self.channels and resolution == self.resolution:
            parts = [part.to(device) for part in (self.train, self.validation, self.test)]
            return replace(self, train=parts[0], validation=parts[1], test=parts[2])
        if channels != self.channels and {channels, self.channels} != {1, 3}:
            raise UserError(
                f"data set {self.name!r} has {self.channels} channels and the network reads {channels}: "
                "only 1 and 3 can be turned into each other"
            )
        train, validation, test = (
            replace(part, images=in_format(part.images, channels, resolution))
            for part in (self.train, self.validation, self.test)
        )
        mean, std = channel_statistics(train.images)
        return replace(
            self,
            channels=channels,
            resolution=resolution,
            train=train.to(device),
            validation=validation.to(device),
            test=test.to(device),
            mean=mean,
            std=std,
        )


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    validation_fraction: float = 0.15,
    seed: int = 0,
    resolution: int | None = None,
    at_most: int | None = None,
    fit: Fit = "crop",
    white: float | None = None,
    split_by: SplitBy = "name",
    strict: bool = False,
    in_memory: int = MOST_IN_MEMORY,
) -> Dataset:
    """Reads a data set by name and splits it.

    `name`: one of `NAMES`, or `imagefolder:PATH` (see `nas.training.folder`).
    `data_dir`: where the downloaded sets lie or go; default `$NAS_DATA_DIR`, else `~/.cache/nas/data`.
    `train_size`: train on this many images (stratified; a larger size contains every smaller one of the same seed).
    `validation_fraction`: of the images that are not test images; ignored for a folder that brings its own validation
    part. `resolution`: resize to this; default the data set's own. Images of a folder have any size: `at_most` is the
    side of the networks that will read them, so that they are resized once, and smaller images are not enlarged;
    without either they are brought to 64. `fit`, `white`, `split_by`, `strict`, `in_memory`: how a folder is
    read, see `nas.training.folder.Reading`.

    What was read of a folder, what was not, and what is odd about it is logged.

    Raises `UserError` for anything the user can put right: unknown name, no network, damaged image, a size that is too
    large.
    """
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation fraction {validation_fraction}: it must lie between 0 and 1")
    if resolution is not None and resolution < 1:
        raise UserError(f"resolution {resolution}: it must be at least 1 pixel")
    if name.startswith(FOLDER_PREFIX):
        name = absolute(name)
        reading = Reading(resolution, at_most, fit, white, split_by, strict, in_memory)
        source = read_folder(Path(name.removeprefix(FOLDER_PREFIX)), name=name, reading=reading)
    else:
        if strict or fit != DEFAULT_FIT:
            option = "--strict" if strict else f"--fit {fit}"
            raise UserError(f"{name}: all its images are read, and are squares; {option} is for {FOLDER_PREFIX}PATH")
        source, split_by = _read_named(name, data_dir), "order"
    dataset = replace(
        _split(source, Split(seed, validation_fraction, train_size, split_by)),
        fit=fit,
    )
    if dataset.facts is not None:
        for line in (dataset.facts.account(), *dataset.facts.notes):
            log.info(line)
    if resolution is not None and resolution != dataset.resolution:
        dataset = dataset.for_network(dataset.channels, resolution)
    return dataset


def decoded_resolution(name: str, resolution: int | None) -> int | None:
    """The side to which a folder's images are brought when they are read; other data sets have one of their own."""
    return resolution if name.startswith(FOLDER_PREFIX) else None


def absolute(name: str) -> str:
    """A data set's name that means the same wherever one stands.

    Raises:
        UserError: it names no folder, or one whose name is not UTF-8.
    """
    if not name.startswith(FOLDER_PREFIX):
        return name
    path = name.removeprefix(FOLDER_PREFIX)
    if not path:
        raise UserError(f"data set {name!r}: give the folder after the colon, as in imagefolder:/data/flowers")
    if not is_utf8(path):
        raise UserError(f"data set {name!r}: the folder's name is not UTF-8; rename it")
    return FOLDER_PREFIX + os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # links stay


def load_again(
    name: str,
    *,
    split: Mapping[str, Any],
    preprocessing: Preprocessing,
    classes: tuple[str, ...] = (),
    data_dir: str | Path | None = None,
) -> Dataset:
    """A data set, split and read as it was for an earlier training.

    Args:
        name: of the data set.
        split: of the training's checkpoint.
        preprocessing: of its card.
        classes: of its card: where the data set has the same in another order, its labels follow theirs.
        data_dir: see :func:`load_dataset`.
    """
    data = load_dataset(
        name,
        data_dir=data_dir,
        train_size=split["train_size"],
        validation_fraction=split["validation_fraction"],
        seed=split["seed"],
        resolution=decoded_resolution(name, preprocessing.sides[0]),
        fit=preprocessing.fit,
        white=preprocessing.white,
        split_by=split.get("by", "order"),
    )
    known = tuple(unicodedata.normalize("NFC", label) for label in classes)
    if data.classes == known or sorted(data.classes) != sorted(known):
        return data
    place = torch.tensor([known.index(label) for label in data.classes])
    train, validation, test = (replace(data.part(part), labels=place[data.part(part).labels]) for part in PARTS)
    return replace(data, classes=known, train=train, validation=validation, test=test)


def _read_named(name: str, data_dir: str | Path | None) -> Source:
    if name == "digits":
        return read_digits()
    if name in DOWNLOADED:
        return read_downloaded(name, data_dir)
    hint = f"; for the folder of that name give {FOLDER_PREFIX}{name}" if Path(name).is_dir() else ""
    raise UserError(f"unknown data set {name!r}: allowed are {', '.join(NAMES)} and {FOLDER_PREFIX}PATH{hint}")


def resplit(dataset: Dataset, seed: int) -> Dataset:
    """Divide training and validation images again, as if the data set had been loaded with this seed.

    Raises:
        UserError: the validation part is the folder's own, or images of a larger data set.
    """
    if dataset.own_validation:
        raise UserError(f"--resplit: data set {dataset.name!r} has a validation part of its own, which stays as it is")
    if dataset.places is None:
        raise UserError("--resplit: not with --train-size, whose validation part has 2,000 images or more")
    pool = joined((dataset.validation, dataset.train)).take(dataset.places.argsort())
    split = replace(dataset.split, seed=seed)
    validation_order, train_order = _divided(pool, split)
    train = pool.take(train_order)
    mean, std = channel_statistics(train.images)
    return replace(
        dataset,
        train=train,
        validation=pool.take(validation_order),
        mean=mean,
        std=std,
        split=split,
        places=torch.cat((validation_order, train_order)),
    )


def _order(pool: Images, split: Split) -> Tensor:
    sorted_by = places(pool.files, f"train {split.seed}") if pool.files is not None and split.by == "name" else None
    return stratified_order(pool.labels, seed=split.seed, places=sorted_by)


def _divided(pool: Images, split: Split) -> tuple[Tensor, Tensor]:
    """(validation, training) indices of all images of a pool."""
    order = _order(pool, split)
    if pool.files is not None and split.by == "name":
        chosen = held_out(pool, split.validation_fraction, salt=f"validation {split.seed}", leave=1)[order]
        return order[chosen], order[~chosen]
    count = max(1, round(len(pool) * split.validation_fraction))
    return order[:count], order[count:]


def _split(source: Source, split: Split) -> Dataset:
    pool, train_size = source.pool, split.train_size
    by_name = pool.files is not None and split.by == "name"
    everything = None
    if source.validation is not None:
        validation = source.validation
        train_order = _order(pool, split)
    else:
        validation_order, train_order = _divided(pool, split)
        if train_size is None:
            everything = torch.cat((validation_order, train_order))
        else:
            share = math.ceil(train_size * split.validation_fraction / (1 - split.validation_fraction))
            validation_order = validation_order[: max(share, _VALIDATION_FLOOR)]
        validation = pool.take(validation_order)
    if train_size is not None:
        classes, available = len(source.classes), len(train_order)
        if not classes <= train_size <= available:
            raise UserError(
                f"train size {train_size}: data set {source.name!r} allows {classes} (one per class) to {available} "
                "(what test and validation leave)"
            )
        train_order = train_order[:train_size]
    train = pool.take(train_order)
    if len(train) < 2:
        raise UserError(
            f"data set {source.name!r}: {counted(len(train), 'training image')} left after the split; at least 2 needed"
        )
    mean, std = channel_statistics(train.images)
    dataset = Dataset(
        name=source.name,
        classes=source.classes,
        channels=int(pool.images.shape[1]),
        resolution=int(pool.images.shape[2]),
        train=train,
        validation=validation,
        test=source.test,
        mean=mean,
        std=std,
        split=split,
        flip_safe=source.flip_safe,
        own_validation=source.validation is not None,
        facts=source.facts,
        places=everything,
    )
    return _looked_at(dataset, source.facts) if by_name and source.facts is not None else dataset


def _looked_at(dataset: Dataset, facts: Facts) -> Dataset:
    """Note what is odd about a folder's images now that they are divided.

    Raises:
        UserError: there is no validation image, no test image, or a class without a training image.
    """
    parts = {name: dataset.part(name) for name in PARTS}
    for name, part in parts.items():
        counts = torch.bincount(part.labels, minlength=len(dataset.classes))
        if not len(part):
            raise UserError(
                f"data set {dataset.name!r}: too few different images for a {name} part; give 3 of each class"
            )
        missing = [label for label, count in zip(dataset.classes, counts.tolist(), strict=True) if not count]
        if missing and name == "train":
            raise UserError(
                f"data set {dataset.name!r}: no training image of class {missing[0]!r}; give more of it, or a larger "
                "train size"
            )
        if missing:
            facts.notes.append(f"no {name} image of {', '.join(missing)}")
    files = np.concatenate([part.files for part in parts.values() if part.files is not None])
    pixels = files["pixels"]
    near = near_copies([part.files["thumbnail"] for part in parts.values() if part.files is not None])
    facts.near = [(files["name"][one], files["name"][other]) for one, other in near if pixels[one] != pixels[other]]
    if facts.near:
        facts.notes.append(
            f"{len(facts.near):,} validation and test images look almost like training images (such as "
            f"{' and '.join(facts.near[0])}): their accuracy says little of new images"
        )
    mirrored = mirrored_classes(dataset.train.images, dataset.train.labels)
    if mirrored is None:
        return dataset
    facts.mirrored = (dataset.classes[mirrored[0]], dataset.classes[mirrored[1]])
    facts.notes.append(
        "mirrored images of {} look like {}: none is mirrored without --flip horizontal".format(*facts.mirrored)
    )
    return replace(dataset, flip_safe=False)
