"""Splits that hold the classes in their proportions.

Images of a data set that never changes are divided by a shuffled order. A folder of files grows and shrinks: there each
file's place follows from its name alone, so that a training image never becomes a test image because others came.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.training.images import Images, mixed, name_hashes

TEST_SHARE = 0.2
CALIBRATION_IMAGES = 512
"""Bounds the time that the ranges of int8 take on large data sets."""


def stratified_order(labels: Tensor, *, seed: int, places: NDArray[np.float64] | None = None) -> Tensor:
    """A shuffled order of the images of which every stretch holds the classes in their proportions.

    `labels`: int64, (N,). `places`: (N,), what the images of a class are sorted by; default: drawn. Returns int64,
    (N,), a permutation. Cutting it anywhere is a stratified split; taking its first k is a stratified subset, and
    subsets of different k contain each other.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    if places is not None:
        shuffled = torch.from_numpy(places).argsort(stable=True)
    classes, counts = torch.unique(labels, return_counts=True)
    class_turn = torch.randperm(len(classes), generator=generator)
    # The i-th image (shuffled) of a class of n stands at (i + 1/2) / n of the way; equal positions keep one order of
    # the classes.
    position = torch.empty(len(labels), dtype=torch.float64)
    turn = torch.empty(len(labels), dtype=torch.int64)
    for index, (label, count) in enumerate(zip(classes.tolist(), counts.tolist(), strict=True)):
        members = (labels[shuffled] == label).nonzero().squeeze(1)
        position[members] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        turn[members] = class_turn[index]
    by_turn = turn.argsort(stable=True)
    return shuffled[by_turn[position[by_turn].argsort(stable=True)]]


def calibration_part(labels: Tensor) -> Tensor:
    """Choose the training images on which ranges of int8 are observed, of all classes: indices, at most 512."""
    return stratified_order(labels.cpu(), seed=0)[:CALIBRATION_IMAGES].to(labels.device)


def fixed_test_part(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(remaining, test) indices for data without a test part of their own; stratified, the same whatever the user's
    seed is.
    """
    order = stratified_order(labels, seed=0)
    size = max(1, round(len(labels) * TEST_SHARE))
    return order[size:].sort().values, order[:size].sort().values


def places(files: NDArray[Any], salt: str) -> NDArray[np.float64]:
    """A number in [0, 1) for each file, (N,), which follows from its name and `salt` alone."""
    key = np.uint64(int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest()))
    return mixed(name_hashes(files) ^ key) / 2.0**64


def held_out(images: Images, share: float, *, salt: str, leave: int) -> Tensor:
    """Choose images by the hashes of their files' names: bool, (N,).

    One is held out where its place is below `share`. Equal images go where the first of them goes. Of a class with too
    few images for that to find one, the one with the lowest place is held out, so long as `leave` others remain.

    Args:
        images: files of the user's, sorted by name.
        share: in (0, 1).
        salt: for another choice from the same names.
        leave: number of different images of a class that stay at least.
    """
    assert images.files is not None
    _, first, group = np.unique(images.files["pixels"], return_index=True, return_inverse=True)
    place, labels = places(images.files[first], salt), images.labels.numpy()[first]
    chosen = np.zeros(len(first), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(place[members], kind="stable")]
        count = max(1, int((place[members] < share).sum()))
        chosen[members[: min(count, max(0, len(members) - leave))]] = True
    return torch.from_numpy(chosen[group])
