"""Stratified splits: every part holds the classes in their proportions."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_order(labels: Tensor, *, seed: int) -> Tensor:
    """A shuffled order of the images of which every stretch holds the classes in their proportions.

    `labels`: int64, (N,). Returns int64, (N,), a permutation. Cutting it anywhere is a stratified split; taking its
    first k is a stratified subset, and subsets of different k contain each other.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
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


def fixed_test_part(labels: Tensor, fraction: float = 0.2) -> tuple[Tensor, Tensor]:
    """(remaining, test) indices for data without a test part of their own; stratified, the same whatever the user's
    seed is.
    """
    order = stratified_order(labels, seed=0)
    size = max(1, round(len(labels) * fraction))
    return order[size:].sort().values, order[:size].sort().values
