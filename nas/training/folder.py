"""The user's own images: a folder of class folders.

    PATH/train/<class>/*  with optional PATH/val/<class>/* and PATH/test/<class>/*
    PATH/<class>/*        a stratified fifth is set apart as the test part

Class names are the folder names, sorted. Files with other endings than `ENDINGS`, and hidden files, are not looked at.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from nas.errors import UserError
from nas.training.sources import Source
from nas.training.split import fixed_test_part

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
_VALIDATION_NAMES = ("val", "valid", "validation")


def read_folder(path: Path, *, name: str, resolution: int) -> Source:
    """Decodes every image of a folder once, to uint8 (N, 3, resolution, resolution).

    The longer side is cut at both ends, then the square is resized (bilinear, antialiased). Turned as the camera's EXIF
    entry says; grayscale, palette and 16-bit images become 8-bit RGB, transparency is laid on white.

    Raises `UserError` for a missing folder, fewer than two classes, a class without images, and an image that cannot be
    read (naming the file).
    """
    if not path.is_dir():
        raise UserError(f"image folder {path}: no such folder")
    try:
        return _read_folder(path, name, resolution)
    except OSError as error:
        raise UserError(f"image folder {path}: cannot be read ({error})") from error


def _read_folder(path: Path, name: str, resolution: int) -> Source:
    has_parts = (path / "train").is_dir() and any(entry.is_dir() for entry in (path / "train").iterdir())
    train_root = path / "train" if has_parts else path
    classes = _class_folders(train_root)
    files = {label: _image_files(train_root / label) for label in classes}
    for label, members in files.items():
        if not members:
            raise UserError(f"image folder {train_root / label}: no image in it ({', '.join(sorted(ENDINGS))})")
    images, labels = _decode(files, classes, resolution)
    validation = _other_part(path, _VALIDATION_NAMES, classes, resolution) if has_parts else None
    test = _other_part(path, ("test",), classes, resolution) if has_parts else None
    if test is None:
        rest, held_out = fixed_test_part(labels)
        test = (images[held_out], labels[held_out])
        images, labels = images[rest], labels[rest]
    # A horizontal flip keeps the class of nearly all photographs; whoever has letters or signs turns it off in the
    # recipe.
    return Source(name, classes, images, labels, test, flip_safe=True, validation=validation)


def _class_folders(root: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"image folder {root}: at least two class folders are needed, found {found}")
    return classes


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in ENDINGS and not file.name.startswith(".") and file.is_file()
    )


def _other_part(
    path: Path, names: Sequence[str], classes: tuple[str, ...], resolution: int
) -> tuple[Tensor, Tensor] | None:
    root = next((path / name for name in names if (path / name).is_dir()), None)
    if root is None:
        return None
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    unknown = [folder for folder in folders if folder not in classes]
    if unknown:
        raise UserError(
            f"image folder {root}: class {unknown[0]!r} is not among the training classes {', '.join(classes)}"
        )
    files = {label: _image_files(root / label) for label in folders}
    if not any(files.values()):
        raise UserError(f"image folder {root}: no image in it; remove the folder or fill it")
    return _decode(files, classes, resolution)


def _decode(files: dict[str, list[Path]], classes: tuple[str, ...], resolution: int) -> tuple[Tensor, Tensor]:
    index = {label: position for position, label in enumerate(classes)}
    jobs = [(file, index[label]) for label, members in files.items() for file in members]
    images = np.empty((len(jobs), resolution, resolution, 3), dtype=np.uint8)

    def decode(position: int) -> None:
        images[position] = decode_file(jobs[position][0], resolution)

    # Pillow decodes and resizes without the interpreter lock.
    with ThreadPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    ) as pool:
        for _ in pool.map(decode, range(len(jobs)), chunksize=64):
            pass
    labels = torch.tensor([label for _, label in jobs], dtype=torch.int64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def decode_file(file: Path, resolution: int) -> NDArray[np.uint8]:
    try:
        with Image.open(file, formats=_formats()) as image:
            image.draft(
                "RGB", (2 * resolution, 2 * resolution)
            )  # JPEG only: decode at a fraction of a large photograph
            upright = ImageOps.exif_transpose(image)
            square = ImageOps.fit(_to_rgb(upright), (resolution, resolution), Image.Resampling.BILINEAR)
            return np.asarray(square, dtype=np.uint8)
    except Exception as error:  # what a damaged image breaks in Pillow's readers can be anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"image {file}: cannot be read ({reason}); repair or remove it") from error


@functools.cache
def _formats() -> list[str]:
    """Those that Pillow decodes itself: for EPS it starts another program on a file that may be a stranger's."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, in an integer mode that Pillow's own conversion would clip
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")
