"""Convolutions whose kernel is another one for every image, as conditional convolutions mix them."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE_IMAGE = 16 * 16  # pixels
_MUCH_WORK = 400_000  # values of an image, times those of a kernel


def convolve_each(x: Tensor, kernels: Tensor, *, stride: int, padding: int, groups: int) -> Tensor:
    """Convolves every image with its own kernel.

    Args:
        x: (N, C_in, H, W).
        kernels: (N, C_out, C_in / groups, k, k).
        stride, padding, groups: as of a convolution.

    Returns:
        (N, C_out, H', W').

    Usually one convolution with the batch folded into its groups, which is about 2 to 10 times as fast as M
    convolutions whose outputs are mixed (M = 4, depthwise 3x3, 8x8 to 32x32, batch 1 and 64, inference and training,
    both memory formats). Depthwise in channels_last on a CPU, other forms are faster. Forward and backward on one core
    (AMD EPYC, Zen 5; batch 64, M = 4, fp32 unless said; ms of processor time, median of 5, spread about 5%, 20% for
    3x3 at 32x32), in groups / image by image / in groups in channels_last:

        96 x 32 x 32, 3x3    51 /  27 /  41    bf16 29 / 18 / 16
        96 x 32 x 32, 5x5   140 /  62 / 233
        96 x 32 x 32, 7x7   231 /  86 / 338
        96 x 32 x 32, 3x3, stride 2   52 / 16 / 19
        144 x 16 x 16, 3x3   13 /  14 /   9    bf16 10 / 11 / 5
        144 x 16 x 16, 5x5   56 /  28 / 130
        192 x 8 x 8, 3x3    3.8 / 9.1 / 3.7    bf16 3.4 / 8.3 / 1.7
        192 x 8 x 8, 5x5     13 /  19 / 131
        384 x 4 x 4, 3x3    1.8 / 7.8 / 1.6    bf16 2.0 / 6.9 / 1.4
    """
    n, out_channels, _, size, _ = kernels.shape
    depthwise = groups == x.shape[1] == out_channels
    here = x.device.type == "cpu" and n > 1 and not torch.compiler.is_compiling()
    if not (here and depthwise and x.is_contiguous(memory_format=torch.channels_last)):
        return _in_groups(x, kernels, stride, padding, groups)
    if x.shape[2] * x.shape[3] >= _LARGE_IMAGE and x[0].numel() * size**2 >= _MUCH_WORK:
        return _image_by_image(x, kernels, stride, padding, groups)
    if size == 3 and stride == 1:
        return _depthwise_in_channels_last(x, kernels, padding)
    return _in_groups(x, kernels, stride, padding, groups)


def _in_groups(x: Tensor, kernels: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    n, channels, height, width = x.shape
    out_channels = kernels.shape[1]
    out = F.conv2d(
        x.reshape(1, n * channels, height, width),
        kernels.reshape(n * out_channels, *kernels.shape[2:]),
        stride=stride,
        padding=padding,
        groups=n * groups,
    )
    return out.view(n, out_channels, *out.shape[2:])


def _image_by_image(x: Tensor, kernels: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    images = zip(torch.split(x, 1), kernels.unbind(0), strict=True)  # their backward passes are one concatenation each
    return torch.cat([F.conv2d(image, kernel, None, stride, padding, 1, groups) for image, kernel in images])


def _depthwise_in_channels_last(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """All channels of all images side by side in channels_last, for which oneDNN has a fast 3x3 kernel."""
    n, channels, height, width = x.shape
    wide = x.permute(2, 3, 0, 1).reshape(1, height, width, n * channels).permute(0, 3, 1, 2)
    out = F.conv2d(wide, kernels.flatten(0, 1), padding=padding, groups=n * channels)
    out = out.permute(0, 2, 3, 1).reshape(*out.shape[2:], n, channels).permute(2, 3, 0, 1)
    return out.contiguous(memory_format=torch.channels_last)


def add_kernels(kernels: list[Tensor]) -> Tensor:
    """Kernels (..., k, k) of odd sizes as one of the largest size: padded with zeros, and added."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    margins = [(largest - kernel.shape[-1]) // 2 for kernel in kernels]
    first, *others = (F.pad(kernel, (margin,) * 4) for kernel, margin in zip(kernels, margins, strict=True))
    total = first
    for kernel in others:
        total = total + kernel
    return total
