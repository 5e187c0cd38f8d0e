"""The user's own images: a folder of class folders.

    PATH/train/<class>/**  with optional PATH/val/<class>/** and PATH/test/<class>/**
    PATH/<class>/**        a stratified fifth is set apart as the test part

Class names are the folder names, sorted; images may lie at any depth below them. Parts are known by `PARTS`, whatever
their case. What is hidden is not looked at; every other file is read, or counted with the reason why not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.errors import UserError
from nas.preprocessing import Crop, decode_file, endings, formats, is_image
from nas.training.sources import Source
from nas.training.split import fixed_test_part

PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("val", "valid", "validation", "dev"),
        "test": ("test", "testing"),
    }
)
"""Names of the folders of a part, in lower case."""

_HEIF = frozenset({".heic", ".heif", ".hif"})
_MOST_NAMED = 5
_SIDE = 64


@dataclass
class Account:
    """Counts of a folder's files, read and skipped.

    `read`: number of images by ending. `skipped`: number of files by ending and reason. `notes`: what else was left
    out.
    """

    read: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def skipped_line(self) -> str:
        """The files that were not read, by ending and reason."""
        return ", ".join(f"{count:,} {ending} ({reason})" for (ending, reason), count in self.skipped.most_common())

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in self.read.most_common())
        line = f"{self.read.total():,} images read ({kinds})"
        if self.skipped:
            count = self.skipped.total()
            line += f"; {count:,} file{'' if count == 1 else 's'} skipped: {self.skipped_line()}"
        return "; ".join([line, *self.notes])


def read_folder(
    path: Path, *, name: str, resolution: int | None = None, at_most: int | None = None, crop: Crop = "pixels"
) -> Source:
    """Decode every image of a folder once, to uint8 (N, 3, R, R), as :mod:`nas.preprocessing` says.

    Args:
        path: the folder.
        name: of the data set.
        resolution: R. Without it,
        at_most: is R, or the largest image's shorter side where all are smaller, so that small images are not enlarged.
            Without either, R is 64.
        crop: how images are cut to squares.

    Raises:
        UserError: a missing folder, fewer than two classes, a class without images, a name that is not UTF-8, or
            images that cannot be read (naming them).
    """
    if not path.is_dir():
        raise UserError(f"image folder {path}: no such folder")
    try:
        return _read_folder(path, name, resolution, at_most, crop)
    except OSError as error:
        raise UserError(f"image folder {path}: cannot be read ({error})") from error


def _read_folder(path: Path, name: str, resolution: int | None, at_most: int | None, crop: Crop) -> Source:
    account = Account()
    parts = _part_folders(path, account)
    root = parts.get("train", path)
    classes = _class_names(root)
    files = {label: _image_files(root / label, account) for label in classes}
    _count_loose(root, account)
    for label, members in files.items():
        if not members:
            raise UserError(f"image folder {root / label}: no image in it{_instead(root / label)}")
    others = {part: _other_part(parts[part], classes, account) for part in ("validation", "test") if part in parts}
    side = resolution or _side([file for members in files.values() for file in members], at_most)
    images, labels = _decode(files, classes, side, crop)
    decoded = {part: _decode(found, classes, side, crop) for part, found in others.items() if found}
    test = decoded.get("test")
    if test is None:
        rest, held_out = fixed_test_part(labels)
        test = (images[held_out], labels[held_out])
        images, labels = images[rest], labels[rest]
    # A horizontal flip keeps the class of nearly all photographs; whoever has letters or signs turns it off in the
    # recipe.
    return Source(
        name, classes, images, labels, test, flip_safe=True, validation=decoded.get("validation"), account=str(account)
    )


def _part_folders(path: Path, account: Account) -> dict[str, Path]:
    """The folders of a data set that is divided already, by part; empty where `path` holds the class folders."""
    found: dict[str, Path] = {}
    strange = []
    for folder in _folders(path):
        part = next((part for part, names in PARTS.items() if folder.name.casefold() in names), None)
        if part is None:
            strange.append(folder.name)
        elif part in found:
            raise UserError(f"image folder {path}: {found[part].name}/ and {folder.name}/ are both its {part} part")
        else:
            found[part] = folder
    # A class may be called train, too, and hold folders of its own.
    within = len(_folders(found["train"])) if "train" in found else 0
    if not within or (within == 1 and strange):
        return {}
    account.notes += [f"{name}/ is not read, since it is none of {_part_names()}" for name in strange]
    return found


def _part_names() -> str:
    return ", ".join(name for names in PARTS.values() for name in names)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_names(root: Path) -> tuple[str, ...]:
    classes = tuple(folder.name for folder in _folders(root))
    for name in classes:
        if not is_utf8(name):
            raise UserError(f"image folder {root / name}: the name of this class is not UTF-8; rename the folder")
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"image folder {root}: at least two class folders are needed, found {found}")
    return classes


def is_utf8(name: str) -> bool:
    """Check that a name can be written as UTF-8: a file system's names are any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _image_files(folder: Path, account: Account) -> list[Path]:
    """The images below a class folder; every file is counted."""
    images = []
    for file in sorted(_files(folder)):
        ending, reason = _ending(file), _unread(file)
        if reason is None:
            account.read[ending] += 1
            images.append(file)
        else:
            account.skipped[ending, reason] += 1
    return images


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder that is not hidden, links followed; no folder twice."""
    seen: set[tuple[int, int]] = set()
    left = [folder]
    while left:
        current = left.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in current.iterdir():
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                left.append(entry)
            else:
                yield entry


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without ending"


def _unread(file: Path) -> str | None:
    """The reason why a file is not read; None for an image."""
    ending = file.suffix.lower()
    if not file.exists():
        return "dangling link"
    if not file.is_file():
        return "no regular file"
    if ending in endings() or is_image(file):
        return None
    return "pip install pillow-heif to read them" if ending in _HEIF else "no image that Pillow reads"


def _count_loose(root: Path, account: Account) -> None:
    for file in root.iterdir():
        if file.suffix.lower() in endings() and file.is_file() and not file.name.startswith("."):
            account.skipped[_ending(file), "outside the class folders"] += 1


def _instead(folder: Path) -> str:
    """Describe a folder without images, to be put behind an error."""
    account = Account()
    _image_files(folder, account)
    return f", but {account.skipped_line()}" if account.skipped else "; fill it or remove it"


def _other_part(root: Path, classes: tuple[str, ...], account: Account) -> dict[str, list[Path]]:
    """The validation or test images by class; empty where they have no labels, which is noted."""
    folders = _folders(root)
    unknown = [folder.name for folder in folders if folder.name not in classes]
    if unknown:
        raise UserError(
            f"image folder {root}: class {unknown[0]!r} is not among the training classes {', '.join(classes)}"
        )
    files = {folder.name: _image_files(folder, account) for folder in folders}
    if any(files.values()):
        _count_loose(root, account)
        return files
    loose = sum(1 for file in root.iterdir() if file.is_file() and not file.name.startswith("."))
    if not loose:
        raise UserError(f"image folder {root}: no image in it; remove the folder or fill it")
    account.notes.append(f"{root.name}/ is not used: it holds {loose:,} files without class folders")
    return {}


def _side(files: list[Path], at_most: int | None) -> int:
    """The largest image's shorter side, or `at_most` where one is larger."""
    if at_most is None:
        return _SIDE
    side = 1
    for file in files:
        try:
            with Image.open(file, formats=formats()) as image:
                side = max(side, min(image.size))
        except Exception:  # decoding names it
            return at_most
        if side >= at_most:
            return at_most
    return side


def _decode(files: dict[str, list[Path]], classes: tuple[str, ...], side: int, crop: Crop) -> tuple[Tensor, Tensor]:
    index = {label: position for position, label in enumerate(classes)}
    jobs = [(file, index[label]) for label, members in files.items() for file in members]
    images = np.empty((len(jobs), side, side, 3), dtype=np.uint8)

    def decode(position: int) -> tuple[Path, UserError] | None:
        file = jobs[position][0]
        try:
            images[position] = decode_file(file, side, crop)
        except UserError as error:
            return file, error
        return None

    # Pillow decodes and resizes without the interpreter lock.
    with ThreadPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    ) as pool:
        broken = [found for found in pool.map(decode, range(len(jobs)), chunksize=64) if found is not None]
    if broken:
        line = str(broken[0][1])
        if len(broken) > 1:  # all at once: reading a large folder once for each takes hours
            named = ", ".join(str(file) for file, _ in broken[1 : 1 + _MOST_NAMED])
            line += f"; so it is with {len(broken) - 1} more: {named}{' ...' if len(broken) > 1 + _MOST_NAMED else ''}"
        raise UserError(line)
    labels = torch.tensor([label for _, label in jobs], dtype=torch.int64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels
