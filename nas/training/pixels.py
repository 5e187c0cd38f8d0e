"""Per-channel statistics of uint8 image batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 4096  # images converted at once: bounds the memory for intermediate results


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1], of uint8 images (N, C, H, W).

    Exact, from each channel's histogram: no float copy of the data set is made. A constant channel gets a deviation of
    1 / 255, so that dividing by it stays finite.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for chunk in torch.split(images[:, channel], _CHUNK):
            counts += torch.bincount(chunk.reshape(-1), minlength=256).cpu()
        weights = counts / counts.sum()
        mean = float((weights * levels).sum())
        variance = float((weights * (levels - mean) ** 2).sum())
        means.append(mean)
        deviations.append(max(math.sqrt(variance), 1 / 255))
    return tuple(means), tuple(deviations)
