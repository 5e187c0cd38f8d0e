"""The user's own images: a folder of class folders, decoded once.

:mod:`nas.training.listing` says which files are read for which part. Of a folder without a test part a fifth of each
class is set apart by its names (:func:`nas.training.split.held_out`). An image that is in two parts stays in one.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image

from nas.errors import UserError
from nas.preprocessing import WHITES, Fit, decode_file, formats, is_deep
from nas.training.images import FILE, Images
from nas.training.likeness import gray_thumbnails, pixel_hash
from nas.training.listing import Facts, Listed, list_folder
from nas.training.mapped import MOST_IN_MEMORY, Known, MappedPixels, Pixels, file_of, progress_of, write_mapped
from nas.training.sources import Source
from nas.training.split import TEST_SHARE, fixed_test_part, held_out
from nas.units import counted

log = logging.getLogger(__name__)

SplitBy = Literal["name", "order"]
"""How images of a folder are divided: by their files' names; or by a shuffled order of the files there are, as for
other data sets, which is what networks of earlier versions were trained with."""

_VERSION = 2
"""Of what is kept of decoded images; those of another are decoded again."""
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
    in_memory   bytes of pixels that are held in memory; more are mapped from the cache (:mod:`nas.training.mapped`)
    """

    resolution: int | None = None
    at_most: int | None = None
    fit: Fit = "crop"
    white: float | None = None
    split_by: SplitBy = "name"
    strict: bool = False
    in_memory: int = MOST_IN_MEMORY


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


def typical_side(path: Path) -> int:
    """Return the median of the shorter sides of a folder's training images in pixels, of at most 200 of them.

    Raises:
        UserError: as :func:`read_folder`.
    """
    if not path.is_dir():
        raise UserError(f"image folder {path}: no such folder")
    _, listed = list_folder(path, Facts())
    items = listed["train"][:: max(1, len(listed["train"]) // 200)]
    return int(np.median([min(width, height) for width, height, _, _ in _in_threads(_header, items)]))


def _read_folder(path: Path, name: str, reading: Reading) -> Source:
    facts = Facts()
    classes, listed = list_folder(path, facts)
    if reading.strict and facts.left_out():
        raise UserError(f"image folder {path}: {facts.left_out()}; --strict allows none")
    items = [item for part in listed.values() for item in part]
    side = reading.resolution or _side(_in_threads(_header, listed["train"]), reading)
    everything, known = _decoded(items, side, reading)
    facts.white = None if np.isnan(known["white"]) else float(known["white"])
    if facts.white is not None and known["deep"].any():
        count, first = int(known["deep"].sum()), items[int(known["deep"].argmax())].file.name
        facts.notes.append(
            f"{counted(count, 'image')} of more than 8 bits, such as {first}: {facts.white:g} is white there"
        )
    ends = np.cumsum([len(part) for part in listed.values()]).tolist()
    parts = {
        part: everything.take(torch.arange(end - len(listed[part]), end)) if len(listed) > 1 else everything
        for part, end in zip(listed, ends, strict=True)
    }
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


def _decoded(items: Sequence[Listed], side: int, reading: Reading) -> tuple[Images, Known]:
    """Decode the images of all parts, into memory or, where they are many, once into a file of the cache."""
    shape = (len(items), 3, side, side)
    fill = functools.partial(_decode, items, side, reading)
    pixels: Pixels | None = None
    if np.prod(shape, dtype=np.int64) > reading.in_memory:
        file = file_of(_key(items, side, reading))
        try:
            known = write_mapped(file, shape, functools.partial(fill, tell=progress_of("decoding images", len(items))))
            pixels = MappedPixels(file)
        except OSError as error:
            log.warning("image cache %s: cannot be written (%s): all images stay in memory", file, error)
    if pixels is None:
        array = np.empty(shape, dtype=np.uint8)
        known = fill(array)
        pixels = torch.from_numpy(array)
    files = np.empty(len(items), dtype=FILE)
    files["name"] = [item.name for item in items]
    files["bytes"] = [item.file.stat().st_size for item in items]
    files["width"], files["height"] = known["sizes"].T
    files["format"] = known["formats"].tolist()
    files["pixels"] = known["hashes"]
    files["thumbnail"] = known["thumbnails"]
    return Images(pixels, torch.tensor([item.label for item in items], dtype=torch.int64), files), known


def _key(items: Sequence[Listed], side: int, reading: Reading) -> str:
    """Return the name of what is decoded: of the files as they are now, and of how they are read."""
    digest = hashlib.blake2b(
        f"{_VERSION} {PIL.__version__} {side} {reading.fit} {reading.white}".encode(), digest_size=12
    )
    for item in items:
        status = item.file.stat()
        digest.update(f"\0{item.name}\0{status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _decode(
    items: Sequence[Listed],
    side: int,
    reading: Reading,
    pixels: NDArray[np.uint8],
    *,
    tell: Callable[[], None] = lambda: None,
) -> Known:
    """Decode images into uint8 (N, 3, side, side); return what is known of them: sizes, formats, hashes and thumbnails,
    which are deep, and white.

    Raises:
        UserError: some cannot be read.
    """
    headers = _in_threads(_header, items)
    deep = np.array([is_deep(header[3]) for header in headers], dtype=bool)
    white = reading.white
    if white is None:
        white = _white([item.file for item, is_one in zip(items, deep, strict=True) if is_one])
    sizes = np.array([header[:2] for header in headers], dtype=np.int32).reshape(-1, 2)
    hashes = np.zeros(len(items), dtype=np.uint64)

    def decode(position: int) -> tuple[Path, UserError] | None:
        file = items[position].file
        try:
            image = decode_file(file, side, reading.fit, white)
        except UserError as error:
            return file, error
        pixels[position] = image.transpose(2, 0, 1)
        hashes[position] = pixel_hash(image, sizes[position])
        tell()
        return None

    broken = [found for found in _in_threads(decode, range(len(items))) if found is not None]
    if broken:
        line = str(broken[0][1])
        if len(broken) > 1:  # all at once: reading a large folder once for each takes hours
            named = ", ".join(str(file) for file, _ in broken[1 : 1 + _MOST_NAMED])
            line += f"; so it is with {len(broken) - 1} more: {named}{' ...' if len(broken) > 1 + _MOST_NAMED else ''}"
        raise UserError(line)
    formats = np.array([header[2] for header in headers], dtype=np.str_)
    return {
        "sizes": sizes,
        "formats": formats,
        "hashes": hashes,
        "thumbnails": gray_thumbnails(torch.from_numpy(pixels)).numpy(),
        "deep": deep,
        "white": np.array(white, dtype=float),
    }


def _without_copies(parts: dict[str, Images], path: Path, classes: tuple[str, ...], facts: Facts) -> dict[str, Images]:
    """Leave an image out of a part where it is in another: it stays in the test part, else in the validation part."""
    everything = np.concatenate([_files(images)["pixels"] for images in parts.values()])
    labels = torch.cat([images.labels for images in parts.values()]).numpy()
    pairs = np.unique(np.stack([everything, labels.astype(np.uint64)]), axis=1)
    different, in_classes = np.unique(pairs[0], return_counts=True)
    facts.copies = len(everything) - len(different)
    if facts.copies:
        count = counted(facts.copies, "copy of another image", "copies of other images")
        facts.notes.append(f"{count}; copies are kept in one part")
    if (in_classes > 1).any():
        facts.notes.append(f"{counted(int((in_classes > 1).sum()), 'image')} in several classes")
    taken = np.empty(0, dtype=np.uint64)
    kept: dict[str, Images] = {}
    for part in ("test", "validation", "train"):
        if part not in parts:
            continue
        hashes = _files(parts[part])["pixels"]
        copies = np.isin(hashes, taken)
        kept[part] = parts[part].take(torch.from_numpy(~copies)) if copies.any() else parts[part]
        if copies.any():
            facts.notes.append(f"{counted(int(copies.sum()), f'{part} image')} left out, as in another part too")
        taken = np.concatenate([taken, hashes])
    missing = sorted({*range(len(classes))} - {*kept["train"].labels.tolist()})
    if missing:
        raise UserError(f"image folder {path}: all training images of {classes[missing[0]]!r} are in another part too")
    return kept


def _files(images: Images) -> Any:
    assert images.files is not None
    return images.files
