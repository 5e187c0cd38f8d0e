"""Data sets as tensors: read once, held as uint8 where the network trains.

A data set has three parts. The test part is fixed: it depends on no seed and is never read by a search. What remains is
split by a seed into a training part and a validation part, class by class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nas.errors import UserError
from nas.preprocessing import Crop, Preprocessing, convert
from nas.training.folder import is_utf8, read_folder
from nas.training.pixels import channel_statistics
from nas.training.sources import DOWNLOADED, Source, read_digits, read_downloaded
from nas.training.split import stratified_order

PartName = Literal["train", "validation", "test"]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")

NAMES: tuple[str, ...] = ("digits", *DOWNLOADED)
FOLDER_PREFIX = "imagefolder:"

# A validation part of 2,000 images gives an accuracy with a standard error of at most 1.1 points. A small `train_size`
# shrinks the validation part with it (or validating would cost more than training), but not below that.
_VALIDATION_FLOOR = 2_000


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one part and their labels.

    `images`: uint8, (N, C, H, W). `labels`: int64, (N,), in [0, number of classes).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, indices: Tensor) -> Images:
        """The images at `indices` (int64, 1-D), as a copy."""
        return Images(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> Images:
        return Images(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Split:
    """The split into training and validation images; with the data set's name, enough to repeat it."""

    seed: int
    validation_fraction: float
    train_size: int | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    `mean` and `std` are per channel, in [0, 1], from the training part alone. `flip_safe` says whether an image
    mirrored left to right still belongs to its class (a mirrored digit does not). `account`: what was read of a folder
    of images, and what was not, in one line; empty for other data sets. `own_validation`: the validation part was not
    held out of the training images.
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
    account: str = ""
    own_validation: bool = False

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
            Images(convert(part.images, channels, resolution), part.labels)
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
    crop: Crop = "pixels",
) -> Dataset:
    """Reads a data set by name and splits it.

    `name`: one of `NAMES`, or `imagefolder:PATH` (see `nas.training.folder`).
    `data_dir`: where the downloaded sets lie or go; default `$NAS_DATA_DIR`, else `~/.cache/nas/data`.
    `train_size`: train on this many images (stratified; a larger size contains every smaller one of the same seed).
    `validation_fraction`: of the images that are not test images; ignored for a folder that brings its own validation
    part. `resolution`: resize to this; default the data set's own. Images of a folder have any size: `at_most` is the
    side of the networks that will read them, so that they are resized once, and smaller images are not enlarged;
    without either they are brought to 64. `crop`: how they are cut to squares.

    Raises `UserError` for anything the user can put right: unknown name, no network, damaged image, a size that is too
    large.
    """
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation fraction {validation_fraction}: it must lie between 0 and 1")
    if resolution is not None and resolution < 1:
        raise UserError(f"resolution {resolution}: it must be at least 1 pixel")
    source = _read(name, data_dir, resolution, at_most, crop)
    dataset = _split(source, train_size, validation_fraction, seed)
    if resolution is not None and resolution != dataset.resolution:
        dataset = dataset.for_network(dataset.channels, resolution)
    return dataset


def decoded_resolution(name: str, resolution: int | None) -> int | None:
    """The side to which a folder's images are brought when they are read; other data sets have one of their own."""
    return resolution if name.startswith(FOLDER_PREFIX) else None


def load_again(
    name: str,
    *,
    split: Mapping[str, Any],
    preprocessing: Preprocessing,
    data_dir: str | Path | None = None,
) -> Dataset:
    """A data set, split and read as it was for an earlier training (`split` of its checkpoint, `preprocessing` of its
    card).
    """
    return load_dataset(
        name,
        data_dir=data_dir,
        train_size=split["train_size"],
        validation_fraction=split["validation_fraction"],
        seed=split["seed"],
        resolution=decoded_resolution(name, preprocessing.sides[0]),
        crop=preprocessing.crop,
    )


def _read(name: str, data_dir: str | Path | None, resolution: int | None, at_most: int | None, crop: Crop) -> Source:
    if name.startswith(FOLDER_PREFIX):
        path = name.removeprefix(FOLDER_PREFIX)
        if not path:
            raise UserError(f"data set {name!r}: give the folder after the colon, as in imagefolder:/data/flowers")
        if not is_utf8(path):
            raise UserError(f"data set {name!r}: the folder's name is not UTF-8; rename it")
        return read_folder(Path(path).expanduser(), name=name, resolution=resolution, at_most=at_most, crop=crop)
    if name == "digits":
        return read_digits()
    if name in DOWNLOADED:
        return read_downloaded(name, data_dir)
    raise UserError(f"unknown data set {name!r}: allowed are {', '.join(NAMES)} and imagefolder:PATH")


def _split(source: Source, train_size: int | None, validation_fraction: float, seed: int) -> Dataset:
    pool = Images(source.images, source.labels)
    order = stratified_order(pool.labels, seed=seed)
    if source.validation is not None:
        validation = Images(*source.validation)
        train_order = order
    else:
        held_out = max(1, round(len(pool) * validation_fraction))
        train_order = order[held_out:]
        if train_size is not None:
            share = math.ceil(train_size * validation_fraction / (1 - validation_fraction))
            held_out = min(held_out, max(share, _VALIDATION_FLOOR))
        validation = pool.take(order[:held_out])
    if train_size is not None:
        _check_train_size(train_size, source, available=len(train_order))
        train_order = train_order[:train_size]
    train = pool.take(train_order)
    if len(train) < 2:
        raise UserError(
            f"data set {source.name!r}: {len(train)} training images left after the split; at least 2 needed"
        )
    mean, std = channel_statistics(train.images)
    return Dataset(
        name=source.name,
        classes=source.classes,
        channels=int(source.images.shape[1]),
        resolution=int(source.images.shape[2]),
        train=train,
        validation=validation,
        test=Images(*source.test),
        mean=mean,
        std=std,
        split=Split(seed=seed, validation_fraction=validation_fraction, train_size=train_size),
        flip_safe=source.flip_safe,
        account=source.account,
        own_validation=source.validation is not None,
    )


def _check_train_size(train_size: int, source: Source, available: int) -> None:
    classes = len(source.classes)
    if not classes <= train_size <= available:
        raise UserError(
            f"train size {train_size}: data set {source.name!r} allows {classes} (one per class) to {available} "
            "(what test and validation leave)"
        )
