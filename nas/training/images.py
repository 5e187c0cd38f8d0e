"""Images of one part, in memory or mapped, the facts of the files that they came from, and their statistics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.training.likeness import THUMBNAIL
from nas.training.mapped import Pixels, chunks, joined_pixels, taken

FILE = np.dtype(
    [
        ("name", object),
        ("bytes", np.int64),
        ("width", np.int32),
        ("height", np.int32),
        ("format", object),
        ("pixels", np.uint64),
        ("thumbnail", np.float32, THUMBNAIL),
    ]
)
"""Facts of an image file: `name` within its part ("class/.../file"), size in bytes, width and height as it stands
upright, Pillow's name of the format, a hash of the decoded pixels, and their gray thumbnail."""
_CHUNK = 64  # images counted at once: bounds the memory for intermediate results


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one part and their labels.

    `images`: uint8, (N, C, H, W), in memory or mapped from a file. `labels`: int64, (N,), in [0, number of classes).
    `files`: of type `FILE`, (N,); None for images that are not files of the user's.
    """

    images: Pixels
    labels: Tensor
    files: NDArray[Any] | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, indices: Tensor) -> Images:
        """The images at `indices` (int64, 1-D), or where they (bool, (N,)) are true; as a copy of those in memory."""
        files = None if self.files is None else self.files[indices.numpy()]
        return Images(taken(self.images, indices), self.labels[indices], files)

    def to(self, device: torch.device | str) -> Images:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def joined(parts: Sequence[Images]) -> Images:
    """The images of several parts of one data set, one part after the other."""
    files = [part.files for part in parts if part.files is not None]
    return Images(
        joined_pixels([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        np.concatenate(files) if files else None,
    )


def name_hashes(files: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits of each file's name, (N,)."""
    names = (str(name).encode(errors="surrogateescape") for name in files["name"])
    return np.array([int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) for name in names], dtype=np.uint64)


def mixed(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Spread 64-bit numbers evenly (the finalizer of G. Steele et al., "Fast splittable pseudorandom number
    generators", OOPSLA 2014).
    """
    bits = values.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return cast(NDArray[np.uint64], bits ^ (bits >> np.uint64(31)))


def channel_statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1], of uint8 images (N, C, H, W).

    Exact, from each channel's histogram: no float copy of the data set is made. A constant channel gets a deviation of
    1 / 255, so that dividing by it stays finite.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for chunk in chunks(images, _CHUNK):
        for channel, values in enumerate(chunk.unbind(1)):
            counts[channel] += torch.bincount(values.reshape(-1), minlength=256).cpu()
    for weights in counts / counts.sum(1, keepdim=True):
        mean = float((weights * levels).sum())
        variance = float((weights * (levels - mean) ** 2).sum())
        means.append(mean)
        deviations.append(max(math.sqrt(variance), 1 / 255))
    return tuple(means), tuple(deviations)
