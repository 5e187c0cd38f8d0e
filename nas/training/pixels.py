"""uint8 image batches: per-channel statistics, channel count and size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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


def convert(images: Tensor, channels: int, resolution: int) -> Tensor:
    """uint8 images (N, C, H, W) with another channel count (1 or 3) and size (square); bilinear with antialiasing,
    uint8 out.

    Runs on the CPU, where torch resizes uint8 images directly and fast, so the result does not depend on the training
    device.
    """
    if images.shape[0] == 0:
        return images.new_empty((0, channels, resolution, resolution))
    return torch.cat([_convert(chunk.cpu(), channels, resolution) for chunk in torch.split(images, _CHUNK)])


def _convert(images: Tensor, channels: int, resolution: int) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        # Pillow's integer form of BT.601: L = (19595 R + 38470 G + 7471 B + 2^15) >> 16
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(1, 3, 1, 1)
        images = (((images.int() * weights).sum(1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)
    if images.shape[-2:] != (resolution, resolution):
        images = F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True, align_corners=False)
    if images.shape[1] == 1 and channels == 3:
        images = images.repeat(1, 3, 1, 1)
    return images.contiguous()
