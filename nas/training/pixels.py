"""Per-channel statistics of uint8 image batches."""

from __future__ import annotations

import math

import torch

from nas.training.mapped import Pixels, chunks

_CHUNK = 64  # images counted at once: bounds the memory for intermediate results


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
