"""Images that are too many for a worker's memory: decoded once into a file, which all processes map.

The files lie in the user's cache (:func:`nas.files.cache_folder`): ``images/<key>.npy`` holds the pixels, uint8
(N, C, H, W), and what is known of each image stands in ``<key>.npz``, written last. A key is of the images' names,
sizes and times of change, and of how they are read; so other images have other files. One process writes a key's
files, the others wait for it. What is damaged is written again.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import UserError
from nas.files import cache_folder, write_atomic
from nas.preprocessing import convert

log = logging.getLogger(__name__)

MOST_IN_MEMORY = 250_000_000
"""Bytes of decoded pixels that every worker holds in its memory; more are mapped. With the other resolutions of a
space and with torch, a worker stays below 1 GB."""
MOST_CONVERTED = 50_000_000
"""Bytes of mapped images in another resolution that go to memory: a space may have several."""

_CHECKED = 64  # images of a file that are compared with what is known of them, whenever it is opened
_TELL_SECONDS = 5.0  # between two lines of progress
_CHUNK = 256  # images converted or moved at once

Known = dict[str, NDArray[Any]]


class MappedPixels:
    """Images in a file, uint8 (N, C, H, W), read where they are asked for: `pixels[indices]` and `pixels[3:5]` are
    tensors.

    A pickle holds the path alone, so that workers map the same file.

    Args:
        file: of :mod:`numpy`'s format.
        rows: int64 (N,), indices of the images in the file; None: all.

    Raises:
        UserError: the file is not there.
    """

    device = torch.device("cpu")

    def __init__(self, file: Path, rows: Tensor | None = None) -> None:
        self.file = file
        try:
            # Copy on write: torch warns of tensors that cannot be written to. Nothing is written.
            self.array = np.load(file, mmap_mode="c")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"image cache {file}: cannot be read on this machine; set NAS_CACHE_DIR to storage that all machines "
                "reach, and begin again"
            ) from error
        self._whole = torch.from_numpy(self.array)
        self.rows = torch.arange(len(self._whole)) if rows is None else rows

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedPixels, (self.file, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self._whole.shape[1:]))

    def __getitem__(self, item: slice | Tensor) -> Tensor:
        return self._whole[self.rows[item]]

    def take(self, indices: Tensor) -> MappedPixels:
        """The images at `indices` (int64), or where they (bool, (N,)) are true; nothing is read."""
        return MappedPixels(self.file, self.rows[indices])

    def to(self, device: torch.device | str) -> Pixels:
        """These on the CPU, where they stay mapped; on another device a copy."""
        if torch.device(device).type == "cpu":
            return self
        copy = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for first in range(0, len(self), _CHUNK):
            copy[first : first + _CHUNK] = self[first : first + _CHUNK].to(device)
        return copy


Pixels = Tensor | MappedPixels
"""Images, uint8 (N, C, H, W), in memory or mapped."""


def in_format(pixels: Pixels, channels: int, resolution: int) -> Pixels:
    """Convert images to another channel count and size (:func:`nas.preprocessing.convert`); mapped ones stay so where
    they are many.

    Args:
        pixels: of one part of a data set.
        channels: 1 or 3.
        resolution: in pixels.
    """
    if not isinstance(pixels, MappedPixels):
        return convert(pixels, channels, resolution)
    whole = MappedPixels(pixels.file)
    shape = (len(whole), channels, resolution, resolution)
    if np.prod(shape, dtype=np.int64) <= MOST_CONVERTED:
        return torch.cat([convert(chunk, channels, resolution) for chunk in chunks(pixels, _CHUNK)])

    def fill(converted: NDArray[np.uint8]) -> Known:
        tell = progress_of("converting images", len(whole))
        for first in range(0, len(whole), _CHUNK):
            some = slice(first, first + _CHUNK)
            converted[some] = convert(whole[some], channels, resolution).numpy()
            for _ in converted[some]:
                tell()
        return {}

    file = pixels.file.with_name(f"{pixels.file.stem}-{channels}x{resolution}.npy")
    try:
        write_mapped(file, shape, fill)
    except OSError as error:
        raise UserError(
            f"image cache {file}: cannot be written ({error}); set NAS_CACHE_DIR to a larger disk"
        ) from error
    return MappedPixels(file, pixels.rows)


def taken(pixels: Pixels, indices: Tensor) -> Pixels:
    """Return the images at `indices` (int64), or where they (bool, (N,)) are true; of those in memory a copy."""
    return pixels.take(indices) if isinstance(pixels, MappedPixels) else pixels[indices]


def joined_pixels(parts: Sequence[Pixels]) -> Pixels:
    """Return the images of several parts of one data set, one part after the other."""
    first = parts[0]
    if not isinstance(first, MappedPixels):
        return torch.cat([part[:] for part in parts])
    rows = [part.rows for part in parts if isinstance(part, MappedPixels) and part.file == first.file]
    assert len(rows) == len(parts)
    return MappedPixels(first.file, torch.cat(rows))


def chunks(pixels: Pixels, size: int) -> Iterator[Tensor]:
    """Yield the images as tensors, at most `size` at a time."""
    for first in range(0, len(pixels), size):
        yield pixels[first : first + size]


def write_mapped(file: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], Known]) -> Known:
    """Write a file of pixels where it is missing, damaged or half-written, and return what is known of its images.

    Args:
        file: ends with ``.npy``.
        shape: of the pixels, (N, C, H, W).
        fill: writes all pixels, and returns what is known of them as arrays without objects.

    Raises:
        OSError: it cannot be written, such as for lack of space.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_suffix(".lock")):
        known = _known(file, shape)
        if known is not None:
            log.info("images read from %s, where they were decoded before", file)
            return known
        size = int(np.prod(shape, dtype=np.int64))
        log.info("%.1f GB of decoded images go to %s, for all workers and later runs", size / 1e9, file)
        partial = file.with_suffix(".tmp")
        try:
            pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            if hasattr(os, "posix_fallocate"):  # a full disk ends a process that writes to a mapped hole
                with partial.open("r+b") as handle:
                    os.posix_fallocate(handle.fileno(), 0, partial.stat().st_size)
            known = fill(pixels) | {"sample": _sample(pixels)}
            pixels.flush()
            del pixels
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        facts = io.BytesIO()
        np.savez(facts, **known)  # type: ignore[arg-type]
        write_atomic(file.with_suffix(".npz"), facts.getvalue())
        return known


def file_of(key: str) -> Path:
    """Return the file of a key."""
    return cache_folder("images").expanduser().absolute() / f"{key}.npy"


def progress_of(subject: str, count: int) -> Callable[[], None]:
    """Return a function that is called after each of `count` items, and logs a bar now and then; threads may call it.

    Args:
        subject: of the line.
        count: of all items.
    """
    began = last = time.monotonic()
    done = 0

    def tell() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last < _TELL_SECONDS and done < count:
            return
        last = now
        bar = "#" * (20 * done // count)
        left = (now - began) / done * (count - done)
        log.info("%s [%-20s] %d %%, about %d s left", subject, bar, 100 * done // count, round(left))

    return tell


def _known(file: Path, shape: tuple[int, ...]) -> Known | None:
    """Read what is known of a file's images; None where it is not there, not whole, or not what it was."""
    try:
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as facts:
            known: Known = dict(facts)
        array = np.load(file, mmap_mode="r")
        whole = array.shape == shape and array.dtype == np.uint8
        return known if whole and np.array_equal(_sample(array), known["sample"]) else None
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile):
        return None


def _sample(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hashes of some images, the first and the last among them."""
    indices = np.unique(np.linspace(0, len(pixels) - 1, _CHECKED).astype(np.int64))
    hashes = (hashlib.blake2b(pixels[index].tobytes(), digest_size=8).digest() for index in indices)
    return np.array([int.from_bytes(value) for value in hashes], dtype=np.uint64)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file's writer, and hold it."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which writes %s", path.with_suffix(".npy"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
