"""Convolutions that are slow in their usual form, and kernel variants that are equal to it up to rounding.

Three operations have variants: a depthwise convolution; one with a kernel of its own for every image; and a 1x1
convolution whose kernel is mixed for every image. Which one runs follows from the device kind, the number format and
the size alone, so that trainings repeat bit for bit.

The rule for training on a CPU: oneDNN has fast kernels for the gradients of 3x3 kernels alone, and of strided
convolutions in float32 alone. On one core of an AMD EPYC (Zen 4) that others used too, six networks at 32x32 trained
1.05 times as fast in bf16 by this rule as in the variants that were measured to be fastest one by one (geometric mean,
0.93 to 1.30), and 0.99 times in fp32 (0.83 to 1.48), before its case of large images (batch 32, the best of n = 5,
interleaved). On GPUs networks train in the usual form.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOW_PRECISION = (torch.bfloat16, torch.float16)
_LARGE_SIDE = 17
"""From this side of the images in pixels on, a CPU trains large kernels in float32 faster image by image."""

Convolve = Callable[[Tensor, Tensor, int, int], Tensor]
"""A depthwise convolution: images, kernels, stride, padding."""


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int, training: bool = False
) -> Tensor:
    """Convolve every channel with its kernel.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k).
        bias: (C,) or None.
        stride, padding: as of a convolution.
        training: run the variant whose gradients are fast on this device.

    Returns:
        (N, C, H', W').
    """
    if not training:
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])
    weight, padding = _within_reach(weight, padding, x)
    if weight.shape[-1] == 1:
        out = x * weight.view(1, -1, 1, 1)
    else:
        variant = split if x.device.type == "cpu" and weight.shape[-1] > 3 else plain
        out = _compute(variant, x, weight, stride, padding)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def convolve_each(
    x: Tensor, kernels: Tensor, *, stride: int, padding: int, groups: int, training: bool = False
) -> Tensor:
    """Convolve every image with its own kernel. Convolutions that are not depthwise have the usual form only.

    Args:
        x: (N, C_in, H, W).
        kernels: (N, C_out, C_in / groups, k, k).
        stride, padding, groups: as of a convolution.
        training: run the variant whose gradients are fast on this device.

    Returns:
        (N, C_out, H', W').
    """
    is_depthwise = groups == x.shape[1] == kernels.shape[1]
    if not training and is_depthwise and _infers_side_by_side(x):
        return side_by_side(x, kernels, stride, padding)
    if not training or not is_depthwise:
        return _in_groups(x, kernels, stride, padding, groups)
    kernels, padding = _within_reach(kernels, padding, x)
    size = kernels.shape[-1]
    if size == 1:
        return x * kernels.view(*kernels.shape[:2], 1, 1)
    variant: Convolve = grouped
    if x.device.type == "cpu":
        in_float32 = stride > 1 or _computed_in(x) not in _LOW_PRECISION
        large = image_by_image if in_float32 and max(x.shape[2:]) >= _LARGE_SIDE else grouped_split
        variant = side_by_side if size <= 3 else large
    return _compute(variant, x, kernels, stride, padding)


def pointwise_each(x: Tensor, routing: Tensor, experts: Tensor) -> Tensor:
    """Convolve every image with its own 1x1 kernel, a mixture of experts.

    Where an image has few pixels its matrix is larger than itself: then all experts run in one product and their
    outputs are mixed, M times the multiplications and no matrix per image.

    Args:
        x: (N, C_in, H, W).
        routing: (N, M), every image's share of each expert.
        experts: (M, C_out, C_in).

    Returns:
        (N, C_out, H, W).
    """
    n, in_channels, height, width = x.shape
    count, out_channels, _ = experts.shape
    if n > 1 and height * width <= 2 * count:
        pixels = x.permute(0, 2, 3, 1).reshape(n * height * width, in_channels)
        outputs = (pixels @ experts.flatten(0, 1).t()).view(n, height * width, count, out_channels)
        out = torch.einsum("npmo,nm->npo", outputs, routing)
        return out.view(n, height, width, out_channels).permute(0, 3, 1, 2)
    kernels = (routing @ experts.flatten(1)).view(n, out_channels, in_channels)
    if x.is_contiguous():
        return (kernels @ x.flatten(2)).view(n, out_channels, height, width)
    out = x.permute(0, 2, 3, 1).reshape(n, height * width, in_channels) @ kernels.transpose(1, 2)
    return out.view(n, height, width, out_channels).permute(0, 3, 1, 2)


def add_kernels(kernels: list[Tensor]) -> Tensor:
    """Add kernels (..., k, k) of odd sizes, each padded with zeros to the largest size."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    margins = [(largest - kernel.shape[-1]) // 2 for kernel in kernels]
    first, *others = (F.pad(kernel, (margin,) * 4) for kernel, margin in zip(kernels, margins, strict=True))
    total = first
    for kernel in others:
        total = total + kernel
    return total


def _compute(variant: Convolve, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    """Run a variant in the number format that autocast asks for; strided ones on a CPU in float32 in between."""
    around = _computed_in(x)
    within = torch.float32 if around in _LOW_PRECISION and stride > 1 and x.device.type == "cpu" else around
    with _without_autocast(x):
        return variant(x.to(within), kernel.to(within), stride, padding).to(around)


def _computed_in(x: Tensor) -> torch.dtype:
    device = x.device.type
    if x.dtype != torch.float64 and _may_autocast(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Compute with tensors in the format that they have."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _may_autocast(device) else nullcontext()


def _may_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def _within_reach(kernel: Tensor, padding: int, x: Tensor) -> tuple[Tensor, int]:
    """Crop a kernel to the part that meets the image, and its padding: what lies further out meets padding alone."""
    size, reach = kernel.shape[-1], max(x.shape[2:]) - 1
    margin = padding - reach
    if margin <= 0 or size != 2 * padding + 1:
        return kernel, padding
    return kernel[..., margin:-margin, margin:-margin], reach


def plain(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])


class _Split(torch.autograd.Function):
    """A depthwise convolution whose kernel's gradient is computed as a convolution.

    oneDNN has fast kernels for the gradient of 3x3 kernels alone: 5x5 ones took 12 times as long as forward (96 x 32 x
    32, batch 64, float32, channels_last, one core of a Xeon with AMX) where 3x3 ones took 0.9 times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.place = stride, padding
        return plain(x, weight, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_image = of_kernel = None
        with _without_autocast(x):
            if ctx.needs_input_grad[0]:
                of_image = _gradient_of_image(x, weight, grad, *ctx.place)
            if ctx.needs_input_grad[1]:
                of_kernel = _gradient_of_kernel(x, grad, weight.shape[-1], *ctx.place)
        return of_image, of_kernel, None, None


def _gradient_of_image(x: Tensor, weight: Tensor, grad: Tensor, stride: int, padding: int) -> Tensor:
    place = [stride, stride], [padding, padding], [1, 1], False, [0, 0], x.shape[1]
    # torch.nn.grad.conv2d_input does the same in NCHW only.
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *place, [True, False, False])[0]


def _gradient_of_kernel(x: Tensor, grad: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Compute (C, 1, k, k) from (N, C, H, W) and the output's gradient.

    That of a tap is the sum, over the output's pixels, of their gradient times the pixel that the tap met: for each
    image a convolution with the output's gradient as its kernel, dilated by the stride.
    """
    n, channels, height, width = x.shape
    images = x.reshape(1, n * channels, height, width)
    kernels = grad.reshape(n * channels, 1, *grad.shape[2:])
    taps = F.conv2d(images, kernels, None, 1, padding, stride, n * channels)[:, :, :size, :size]
    return taps.reshape(n, channels, 1, size, size).sum(0)


def split(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Compute the gradients of image and kernel as convolutions of their own."""
    out: Tensor = _Split.apply(x, weight, stride, padding)
    return out


class _Layout(torch.autograd.Function):
    """A tensor in another memory format; its gradient comes back in the format that it had, if that was one of the two.

    Without that, gradients in NCHW go on through the layers before, whose kernels are several times slower where one
    tensor is in NCHW and another in channels_last.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory_format: torch.memory_format) -> Tensor:
        ctx.before = _layout(x)
        out = x.contiguous(memory_format=memory_format)
        return out.view_as(out) if out is x else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad if ctx.before is None else grad.contiguous(memory_format=ctx.before)), None


def _in(x: Tensor, memory_format: torch.memory_format | None) -> Tensor:
    """Bring the tensor into a memory format; None: leave it as it is."""
    out: Tensor = x if memory_format is None else _Layout.apply(x, memory_format)
    return out


def _layout(x: Tensor) -> torch.memory_format | None:
    """Return the memory format in which (N, C, H, W) lies, or None where its values are strewn."""
    formats = (torch.contiguous_format, torch.channels_last)
    return next((each for each in formats if x.is_contiguous(memory_format=each)), None)


def _in_groups(x: Tensor, kernels: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """Fold the batch into the groups of one convolution."""
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


def grouped(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    plane = _in(x, torch.contiguous_format)
    return _in(_in_groups(plane, kernels, stride, padding, x.shape[1]), _layout(x))


def grouped_split(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    n, channels, height, width = x.shape
    plane = _in(x, torch.contiguous_format).view(1, n * channels, height, width)
    out = split(plane, kernels.flatten(0, 1), stride, padding)
    return _in(out.view(n, channels, *out.shape[2:]), _layout(x))


def side_by_side(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    """Lay all channels of all images side by side in channels_last, for which oneDNN has fast 3x3 kernels."""
    n, channels, height, width = x.shape
    before = _in(x, torch.channels_last)
    wide = before.permute(2, 3, 0, 1).reshape(1, height, width, n * channels).permute(0, 3, 1, 2)
    out = plain(wide, kernels.flatten(0, 1), stride, padding)
    out = out.permute(0, 2, 3, 1).reshape(*out.shape[2:], n, channels).permute(2, 3, 0, 1)
    return _in(out, _layout(x))


def _infers_side_by_side(x: Tensor) -> bool:
    """Return whether that is the faster variant without gradients.

    On one core of a Xeon with AMX, batch 128, 3x3 to 7x7, 4x4 to 32x32: 1.0 to 2.4 times as fast as in groups in 17 of
    20 cases, 0.7 to 0.9 times in the others (n = 5, median).
    """
    here = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return here and not torch.is_grad_enabled() and len(x) > 1 and x.is_contiguous(memory_format=torch.channels_last)


def image_by_image(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    images = zip(torch.split(x, 1), kernels.unbind(0), strict=True)  # their backward passes are one concatenation each
    return torch.cat([plain(image, kernel, stride, padding) for image, kernel in images])
