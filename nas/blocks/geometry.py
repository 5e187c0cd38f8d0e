"""Sides of images: what a convolution or a pooling makes of one, and the smallest one that gives so much."""

from typing import Literal

Padding = Literal["same", "same_upper", "valid"]
"""`same`: k // 2 zeros on each side. `same_upper`, ONNX's word for TensorFlow's SAME: as few as give the same size, the
odd one behind. `valid`: none."""

POOL_KERNEL = 3
"""Side of every pooling window inside a network; the papers know no other."""


def strided(size: int, stride: int) -> int:
    """Return the output side of an odd kernel with padding k // 2."""
    return -(-size // stride)


def convolved(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Return the output side of a convolution; below 1 where the kernel is larger than an unpadded input."""
    return (size - kernel) // stride + 1 if padding == "valid" else strided(size, stride)


def upper_padding(size: int, stride: int) -> tuple[int, int]:
    """Return how `same_upper` pads an input of this side, for any odd kernel k of at least the stride.

    Returns:
        What it takes away from k // 2 zeros on each side, and what it adds behind.
    """
    last = size % stride or stride  # pixels of the last step
    return last // 2, (last + 1) % 2


def check_upper(padding: Padding, kernel: int, stride: int) -> None:
    """Raise ValueError where the kernel is too small for `same_upper` padding at this stride."""
    if padding == "same_upper" and kernel < stride:
        raise ValueError(f"padding same_upper needs a kernel of at least the stride, {stride}; this one is {kernel}")


def least_convolved(out_size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Invert :func:`convolved`: the smallest input side that gives at least this output side."""
    return (out_size - 1) * stride + (kernel if padding == "valid" else 1)


def pooled(size: int, stride: int, padding: Padding) -> int:
    """Return the output side of a 3x3 pooling: padded by 1, or unpadded and rounded up (torch's ``ceil_mode``)."""
    if padding != "valid":
        return strided(size, stride)
    steps = -(-(size - POOL_KERNEL) // stride)
    return steps + 1 if steps * stride < size else steps  # a window that starts outside is dropped


def least_pooled(out_size: int, stride: int, padding: Padding) -> int:
    """Invert :func:`pooled`: the smallest input side that gives at least this output side."""
    return (out_size - 1) * stride + (max(1, POOL_KERNEL + 1 - stride) if padding == "valid" else 1)
