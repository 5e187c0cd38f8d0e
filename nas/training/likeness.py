"""Images that are, or look like, others: copies, almost copies, and classes that mirroring makes into each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.training.mapped import Pixels, taken

THUMBNAIL = (8, 9)
"""Cells of the thumbnails that copies are found by: rows, columns."""
_CHUNK = 1 << 20  # values of pixels averaged at once: they stay in the processor's cache
_BITS, _LEVELS, _FLAT = 3, 4.0, 8.0
_WINDOW = 6
_SAMPLE, _SIDE = 1500, 16
_SEEN, _TURNED = 0.6, 0.5


def pixel_hash(image: NDArray[np.uint8], size: NDArray[np.int32]) -> int:
    """64 bits of one image's pixels, (H, W, C), and of the size of the file's image, (2,), since few pixels of
    different photographs may be equal.
    """
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8, key=size.tobytes()).digest())


def gray_thumbnails(images: Pixels, shape: tuple[int, int] = THUMBNAIL) -> Tensor:
    """Mean levels of the cells of a grid: uint8 (N, C, H, W) -> float32 (N, rows, columns)."""
    thumbnails = torch.empty(len(images), *shape)
    size = max(1, _CHUNK // images.shape[1:].numel())
    for first in range(0, len(images), size):
        part = images[first : first + size]
        thumbnails[first : first + size] = F.adaptive_avg_pool2d(part.float().mean(1), shape)
    return thumbnails


def near_copies(parts: Sequence[NDArray[np.float32]]) -> list[tuple[int, int]]:
    """Find images of the later parts that look almost like one of the first: resized, recompressed, the next frame.

    Two are such where at most 3 of 64 bits of their difference hashes (is a cell brighter than its left neighbour?)
    and 4 levels on average of their 8 x 9 thumbnails differ, and these are not nearly of one level.
    Hashes of at most 3 different bits are equal in one of four quarters: sorted by each of these in turn, such pairs
    stand next to each other, and only neighbours are compared. So 50,000 images take seconds, and where very many look
    alike some pairs are missed.

    Args:
        parts: thumbnails, (N, 8, 9) each.

    Returns:
        An index into all images, of a later part's, and the index of one like it in the first part; each image once.
    """
    small = np.concatenate(parts)
    bits = np.packbits((small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64), axis=1)
    quarters = bits.view(np.uint16)
    drawn = small.std((1, 2)) > _FLAT
    found: dict[int, int] = {}
    for quarter in range(4):
        keys = [quarters[:, (quarter + turn) % 4] for turn in (3, 2, 1, 0)]
        order = np.lexsort(keys)
        for step in range(1, _WINDOW + 1):
            one, other = order[:-step], order[step:]
            # one image of the first part, one of another
            crossing = ((one < len(parts[0])) != (other < len(parts[0]))) & drawn[one] & drawn[other]
            low, high = np.minimum(one, other)[crossing], np.maximum(one, other)[crossing]
            apart = np.bitwise_count(bits[low] ^ bits[high]).sum(1)
            close = apart <= _BITS
            low, high = low[close], high[close]
            alike = np.abs(small[low] - small[high]).mean((1, 2)) <= _LEVELS
            found |= dict(zip(high[alike].tolist(), low[alike].tolist(), strict=True))
    return sorted(found.items())


def mirrored_classes(images: Pixels, labels: Tensor) -> tuple[int, int] | None:
    """Find a class whose images, mirrored left to right, look like another class: arrows, letters, signs.

    Each image of a sample is compared with all others by its 16 x 16 gray thumbnail. Where at least 60% of a class
    have their nearest neighbour in it, and mirrored at least half of them have theirs in one other class which had
    less than a fifth of them before, the two are such a pair.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """
    if len(labels) > _SAMPLE:
        chosen = torch.linspace(0, len(labels) - 1, _SAMPLE).long()
        images, labels = taken(images, chosen), labels[chosen]
    thumbnails = gray_thumbnails(images, (_SIDE, _SIDE))
    plain = _standardised(thumbnails)
    turned = _standardised(thumbnails.flip(2))
    classes = int(labels.max()) + 1
    before, after = (_neighbours(each, plain, labels, classes) for each in (plain, turned))
    seen = before.diagonal().clone()
    pairs = after * ((seen >= _SEEN).unsqueeze(1) & (before < _TURNED - 0.3))
    pairs.fill_diagonal_(0)
    best = int(pairs.argmax())
    one, other = divmod(best, classes)
    return (one, other) if float(pairs[one, other]) >= _TURNED else None


def _standardised(thumbnails: Tensor) -> Tensor:
    flat = thumbnails.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1)


def _neighbours(queries: Tensor, plain: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Shares of the classes' images, (classes, classes), whose nearest neighbour but themselves is of each class."""
    likeness = queries @ plain.T
    likeness.fill_diagonal_(-2)
    shares = torch.zeros(classes, classes)
    shares.index_put_((labels, labels[likeness.argmax(1)]), torch.ones(len(labels)), accumulate=True)
    return shares / shares.sum(1, keepdim=True).clamp(min=1)
