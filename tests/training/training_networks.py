"""A network small enough to train in a test."""

from __future__ import annotations

import torch
from torch import nn


def small_network(channels: int = 1, classes: int = 10, dropout: float = 0.0, seed: int = 0) -> nn.Module:
    """Convolution, depthwise convolution, normalisation, dropout: one of each kind of state that a resume must keep."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 1, stride=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(32 * 16, classes),
        )
