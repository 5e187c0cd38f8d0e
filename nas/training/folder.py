"""The user's own images: a folder of class folders, decoded once.

:mod:`nas.training.listing` says which files are read for which part. Of a folder without a test part a fifth of each
class is set apart by its names (:func:`nas.training.split.held_out`). An image that is in two parts stays in one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from nas.errors import UserError
from nas.preprocessing import WHITES, Fit, decode_file, formats, is_deep
from nas.training.images import FILE, Images
from nas.training.likeness import pixel_hashes
from nas.training.listing import Facts, Listed, list_folder
from nas.training.sources import Source
from nas.training.split import TEST_SHARE, fixed_test_part, held_out

SplitBy = Literal["name", "order"]
"""How images of a folder are divided: by their files' names; or by a shuffled order of the files there are, as for
other data sets, which is what networks of earlier versions were trained with."""

_MOST_NAMED = 5
_SIDE = 64

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Reading:
    """Settings of reading a folder's images.

    resolution  side of the squares; without it,
    at_most     is it, or the largest image's side where all are smaller, so that small images are not enlarged;
                without either, it is 64
    fit         how images become squares
    white       of images of more than 8 bits, :attr:`nas.preprocessing.Preprocessing.white`; None: found
    split_by    how they are divided
    strict      refuse a folder with anything that is not read
    """

    resolution: int | None = None
    at_most: int | None = None
    fit: Fit = "crop"
    white: float | None = None
    split_by: SplitBy = "name"
    strict: bool = False


def read_folder(path: Path, *, name: str, reading: Reading) -> Source:
    """Decode every image of a folder once, to uint8 (N, 3, R, R), as :mod:`nas.preprocessing` says.

    Args:
        path: the folder.
        name: of the data set.
        reading: how.

    Raises:
        UserError: a missing folder, fewer than two classes, a class without images, a name that is not UTF-8, images
            that cannot be read (naming them), or anything that is not read where that is not allowed.
    """
    if not path.is_dir():
        raise UserError(f"image folder {path}: no such folder")
    try:
        return _read_folder(path, name, reading)
    except OSError as error:
        raise UserError(f"image folder {path}: cannot be read ({error})") from error


def _read_folder(path: Path, name: str, reading: Reading) -> Source:
    facts = Facts()
    classes, listed = list_folder(path, facts)
    if reading.strict and facts.left_out():
        raise UserError(f"image folder {path}: {facts.left_out()}; --strict allows none")
    headers = {part: _in_threads(_header, items) for part, items in listed.items()}
    side = reading.resolution or _side(headers["train"], reading)
    deep = [
        item.file
        for part, items in listed.items()
        for item, header in zip(items, headers[part], strict=True)
        if is_deep(header[3])
    ]
    facts.white = reading.white if reading.white is not None else _white(deep)
    if facts.white is not None and deep:
        facts.notes.append(
            f"{len(deep):,} images of more than 8 bits, such as {deep[0].name}: {facts.white:g} is their white"
        )
    parts = {part: _decode(items, headers[part], side, reading.fit, facts.white) for part, items in listed.items()}
    if reading.split_by == "name":
        parts = _without_copies(parts, path, classes, facts)
    if "test" not in parts and reading.split_by == "order":
        rest, chosen = fixed_test_part(parts["train"].labels)
        parts |= {"train": parts["train"].take(rest), "test": parts["train"].take(chosen)}
    elif "test" not in parts:
        test = held_out(parts["train"], TEST_SHARE, salt="test", leave=2)
        parts |= {"train": parts["train"].take(~test), "test": parts["train"].take(test)}
    # A horizontal flip keeps the class of nearly all photographs; whether it does of these is looked at later.
    return Source(name, classes, parts["train"], parts["test"], True, parts.get("validation"), facts)


def _in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Map in threads: Pillow decodes and resizes without the interpreter lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(function, items))


def _header(item: Listed) -> tuple[int, int, str, str]:
    """An image's width and height as it stands upright, format and mode; of a broken one zeros: decoding names it."""
    try:
        with Image.open(item.file, formats=formats()) as image:
            # Of other formats the orientation may stand behind the pixels, which are not decoded here.
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(0x0112, 1) >= 5
            width, height = image.size[::-1] if turned else image.size
            return width, height, image.format or "", image.mode
    except Exception:
        return 0, 0, "", ""


def _side(headers: Iterable[tuple[int, int, str, str]], reading: Reading) -> int:
    """The largest image's side that is kept, or `at_most` where one is larger."""
    if reading.at_most is None:
        return _SIDE
    kept = min if reading.fit in ("crop", "box") else max
    sides = [kept(width, height) for width, height, _, _ in headers]
    # Of a broken image nothing is known.
    return reading.at_most if 0 in sides else min(max(sides), reading.at_most)


def _white(files: Sequence[Path]) -> float | None:
    """The smallest of the usual ranges that holds the values of all images of more than 8 bits; None where that is the
    format's own, or there are none.

    Raises:
        UserError: fractions among whole numbers, or a value that no range holds.
    """
    highest, fractions = 0.0, None
    for file in files:
        try:
            with Image.open(file, formats=formats()) as image:
                values = np.asarray(image)
        except Exception:  # decoding names it
            continue
        kind = image.mode == "F"
        if fractions not in (None, kind):
            raise UserError(f"image {file}: fractions and whole numbers in one data set; convert one of the kinds")
        low, high, fractions = float(values.min()), float(values.max()), kind
        if not 0 <= low <= high <= WHITES[-1]:
            raise UserError(f"image {file}: values from {low:g} to {high:g}; 0 to {WHITES[-1]:g} are read, convert it")
        highest = max(highest, high)
    if fractions is None:
        return None
    white = next(white for white in WHITES[0 if fractions else 1 :] if highest <= white)
    return None if white == WHITES[-1] and not fractions else white


def _decode(
    items: Sequence[Listed], headers: Sequence[tuple[int, int, str, str]], side: int, fit: Fit, white: float | None
) -> Images:
    pixels = np.empty((len(items), side, side, 3), dtype=np.uint8)

    def decode(position: int) -> tuple[Path, UserError] | None:
        file = items[position].file
        try:
            pixels[position] = decode_file(file, side, fit, white)
        except UserError as error:
            return file, error
        return None

    broken = [found for found in _in_threads(decode, range(len(items))) if found is not None]
    if broken:
        line = str(broken[0][1])
        if len(broken) > 1:  # all at once: reading a large folder once for each takes hours
            named = ", ".join(str(file) for file, _ in broken[1 : 1 + _MOST_NAMED])
            line += f"; so it is with {len(broken) - 1} more: {named}{' ...' if len(broken) > 1 + _MOST_NAMED else ''}"
        raise UserError(line)
    sizes = np.array([header[:2] for header in headers], dtype=np.int32).reshape(-1, 2)
    files = np.empty(len(items), dtype=FILE)
    files["name"] = [item.name for item in items]
    files["bytes"] = [item.file.stat().st_size for item in items]
    files["width"], files["height"] = sizes.T
    files["format"] = [header[2] for header in headers]
    files["pixels"] = pixel_hashes(pixels, sizes)
    labels = torch.tensor([item.label for item in items], dtype=torch.int64)
    return Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels, files)


def _without_copies(parts: dict[str, Images], path: Path, classes: tuple[str, ...], facts: Facts) -> dict[str, Images]:
    """Leave an image out of a part where it is in another: it stays in the test part, else in the validation part."""
    everything = np.concatenate([_files(images)["pixels"] for images in parts.values()])
    labels = torch.cat([images.labels for images in parts.values()]).numpy()
    pairs = np.unique(np.stack([everything, labels.astype(np.uint64)]), axis=1)
    different, in_classes = np.unique(pairs[0], return_counts=True)
    facts.copies = len(everything) - len(different)
    if facts.copies:
        facts.notes.append(f"{facts.copies:,} images are copies of others; copies are kept in one part")
    if (in_classes > 1).any():
        facts.notes.append(f"{int((in_classes > 1).sum()):,} images are in several classes")
    taken = np.empty(0, dtype=np.uint64)
    kept: dict[str, Images] = {}
    for part in ("test", "validation", "train"):
        if part not in parts:
            continue
        hashes = _files(parts[part])["pixels"]
        copies = np.isin(hashes, taken)
        kept[part] = parts[part].take(torch.from_numpy(~copies)) if copies.any() else parts[part]
        if copies.any():
            facts.notes.append(f"{int(copies.sum()):,} {part} images are left out: they are in another part too")
        taken = np.concatenate([taken, hashes])
    missing = sorted({*range(len(classes))} - {*kept["train"].labels.tolist()})
    if missing:
        raise UserError(f"image folder {path}: all training images of {classes[missing[0]]!r} are in another part too")
    return kept


def _files(images: Images) -> Any:
    assert images.files is not None
    return images.files
