"""Sides of images: what a convolution or a pooling makes of one, and the smallest one that gives so much."""

from typing import Literal

Padding = Literal["same", "valid"]

POOL_KERNEL = 3
"""Side of every pooling window inside a network; the papers know no other."""


def strided(size: int, stride: int) -> int:
    """Return the output side of an odd kernel with padding k // 2."""
    return -(-size // stride)


def convolved(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Return the output side of a convolution; below 1 where the kernel is larger than an unpadded input."""
    return strided(size, stride) if padding == "same" else (size - kernel) // stride + 1


def least_convolved(out_size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Invert :func:`convolved`: the smallest input side that gives at least this output side."""
    return (out_size - 1) * stride + (kernel if padding == "valid" else 1)


def pooled(size: int, stride: int, padding: Padding) -> int:
    """Return the output side of a 3x3 pooling: padded by 1, or unpadded and rounded up (torch's ``ceil_mode``)."""
    if padding == "same":
        return strided(size, stride)
    steps = -(-(size - POOL_KERNEL) // stride)
    return steps + 1 if steps * stride < size else steps  # a window that starts outside is dropped


def least_pooled(out_size: int, stride: int, padding: Padding) -> int:
    """Invert :func:`pooled`: the smallest input side that gives at least this output side."""
    return (out_size - 1) * stride + (1 if padding == "same" else max(1, POOL_KERNEL + 1 - stride))
