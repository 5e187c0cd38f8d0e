"""Convolutions that are slow in their usual form, and other forms that are equal up to rounding.

Three operations have several: a depthwise convolution; one with a kernel of its own for every image; and a 1x1
convolution whose kernel is mixed for every image. Which form is fastest depends on the device, the number format and
the size. A :class:`Case` holds what matters, and a `choose` function answers it with a form's name: :func:`fast_on_cpu`
where a CPU trains, else :func:`usual`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Operation = Literal["depthwise", "depthwise per image", "pointwise per image"]
LARGEST_SIDE = 32
IN_FLOAT32 = " in float32"
"""Ends the name of a form that leaves the low precision around it."""
_LOW = ("bfloat16", "float16")


class Case(NamedTuple):
    """Properties that decide which form of an operation is fastest."""

    operation: Operation
    dtype: str
    """Of the computation, such as ``bfloat16``."""
    side: int
    """Of the images in pixels, rounded up to a power of two, at most 32."""
    kernel: int = 1
    stride: int = 1
    experts: int = 1


Choose = Callable[[Case], str]


def usual(case: Case) -> str:
    """The form of other libraries; on few pixels, no matrix per image. On GPUs networks train in it too."""
    if case.operation == "pointwise per image":
        return "outputs" if case.side**2 <= 2 * case.experts else "images"
    return "groups" if case.operation == "depthwise per image" else "plain"


def fast_on_cpu(case: Case) -> str:
    """The form that as a rule trains fastest on a CPU; a function of the case, so that trainings repeat bit for bit.

    oneDNN has fast kernels for the gradients of 3x3 kernels alone, and of strided convolutions in float32 alone. On one
    core of an AMD EPYC (Zen 4) that others used too, six networks at 32x32 trained 1.05 times as fast in bf16 by this
    rule as in the forms that were measured to be fastest one by one (geometric mean, 0.93 to 1.30), and 0.99 times in
    fp32 (0.83 to 1.48), before its case of large images (batch 32, the best of n = 5, interleaved).
    """
    if case.operation == "pointwise per image":
        return usual(case)
    in_float32 = case.dtype not in _LOW or case.stride > 1
    if case.operation == "depthwise":
        form = "plain" if case.kernel <= 3 else "split"
    elif case.kernel <= 3:
        form = "wide"
    else:
        form = "images" if in_float32 and case.side == LARGEST_SIDE else "groups split"
    return form + IN_FLOAT32 if in_float32 and case.dtype in _LOW else form


def forms_of(case: Case) -> tuple[str, ...]:
    """The names of a case's forms, the usual one first."""
    names = list(_FORMS[case.operation])
    if case.dtype in _LOW and case.operation != "pointwise per image":
        names += [name + IN_FLOAT32 for name in names]
    return tuple(sorted(names, key=lambda name: name != usual(case)))


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int, choose: Choose | None = None
) -> Tensor:
    """A depthwise convolution.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k).
        bias: (C,) or None.
        stride, padding: as of a convolution.
        choose: names the form.

    Returns:
        (N, C, H', W').
    """
    if choose is None:
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])
    weight, padding = _within_reach(weight, padding, x)
    if weight.shape[-1] == 1:
        out = x * weight.view(1, -1, 1, 1)
    else:
        case = Case("depthwise", _computed_in(x), _side(x), weight.shape[-1], stride)
        out = _run(case, choose(case), (x, weight), stride, padding)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def convolve_each(
    x: Tensor, kernels: Tensor, *, stride: int, padding: int, groups: int, choose: Choose | None = None
) -> Tensor:
    """Convolves every image with its own kernel. Convolutions that are not depthwise have the usual form only.

    Args:
        x: (N, C_in, H, W).
        kernels: (N, C_out, C_in / groups, k, k).
        stride, padding, groups: as of a convolution.
        choose: names the form.

    Returns:
        (N, C_out, H', W').
    """
    is_depthwise = groups == x.shape[1] == kernels.shape[1]
    if choose is None and is_depthwise and _runs_wide(x):
        return _wide(x, kernels, stride, padding)
    if choose is None or not is_depthwise:
        return _in_groups(x, kernels, stride, padding, groups)
    kernels, padding = _within_reach(kernels, padding, x)
    if kernels.shape[-1] == 1:
        return x * kernels.view(*kernels.shape[:2], 1, 1)
    case = Case("depthwise per image", _computed_in(x), _side(x), kernels.shape[-1], stride)
    return _run(case, choose(case), (x, kernels), stride, padding)


def pointwise_each(x: Tensor, routing: Tensor, experts: Tensor, *, choose: Choose | None = None) -> Tensor:
    """A 1x1 convolution whose kernel is mixed for every image.

    Args:
        x: (N, C_in, H, W).
        routing: (N, M), every image's share of each expert.
        experts: (M, C_out, C_in).
        choose: names the form.

    Returns:
        (N, C_out, H, W).
    """
    n, in_channels, height, width = x.shape
    count, out_channels, _ = experts.shape
    form = "images"
    if choose is not None or n > 1:
        case = Case("pointwise per image", _computed_in(x), _side(x), experts=count)
        form = (choose or usual)(case)
    if choose is None and form == "images" and x.is_contiguous():
        kernels = (routing @ experts.flatten(1)).view(n, out_channels, in_channels)
        return (kernels @ x.flatten(2)).view(n, out_channels, height, width)
    given = x.permute(0, 2, 3, 1).reshape(n, height * width, in_channels), routing, experts
    out = _POINTWISE_EACH[form](*given) if choose is None else _run(case, form, given)
    return out.view(n, height, width, out_channels).permute(0, 3, 1, 2)


def add_kernels(kernels: list[Tensor]) -> Tensor:
    """Kernels (..., k, k) of odd sizes as one of the largest size: padded with zeros, and added."""
    largest = max(kernel.shape[-1] for kernel in kernels)
    margins = [(largest - kernel.shape[-1]) // 2 for kernel in kernels]
    first, *others = (F.pad(kernel, (margin,) * 4) for kernel, margin in zip(kernels, margins, strict=True))
    total = first
    for kernel in others:
        total = total + kernel
    return total


def _run(case: Case, form: str, given: tuple[Tensor, ...], *place: int) -> Tensor:
    """A form on tensors, in the case's number format or, where the form says so, within it in float32."""
    around: torch.dtype = getattr(torch, case.dtype)
    base = form.removesuffix(IN_FLOAT32)
    within = around if base == form else torch.float32
    with _as_given(given[0]):
        return _FORMS[case.operation][base](*(tensor.to(within) for tensor in given), *place).to(around)


def _computed_in(x: Tensor) -> str:
    device = x.device.type
    dtype = x.dtype
    if dtype != torch.float64 and _may_autocast(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return str(dtype).removeprefix("torch.")


def _as_given(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off: tensors are computed with in the format that they have."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _may_autocast(device) else nullcontext()


def _may_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def _side(x: Tensor) -> int:
    return min(LARGEST_SIDE, 1 << (max(x.shape[2:]) - 1).bit_length())


def _within_reach(kernel: Tensor, padding: int, x: Tensor) -> tuple[Tensor, int]:
    """The part of a kernel that meets the image, and its padding: what lies further out meets padding alone."""
    size, reach = kernel.shape[-1], max(x.shape[2:]) - 1
    margin = padding - reach
    if margin <= 0 or size != 2 * padding + 1:
        return kernel, padding
    return kernel[..., margin:-margin, margin:-margin], reach


def _plain(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
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
        return _plain(x, weight, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_image = of_kernel = None
        with _as_given(x):
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
    """(C, 1, k, k) from (N, C, H, W) and the output's gradient.

    That of a tap is the sum, over the output's pixels, of their gradient times the pixel that the tap met: for each
    image a convolution with the output's gradient as its kernel, dilated by the stride.
    """
    n, channels, height, width = x.shape
    images = x.reshape(1, n * channels, height, width)
    kernels = grad.reshape(n * channels, 1, *grad.shape[2:])
    taps = F.conv2d(images, kernels, None, 1, padding, stride, n * channels)[:, :, :size, :size]
    return taps.reshape(n, channels, 1, size, size).sum(0)


def _split(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
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
    """The tensor in a memory format; None: as it is."""
    out: Tensor = x if memory_format is None else _Layout.apply(x, memory_format)
    return out


def _layout(x: Tensor) -> torch.memory_format | None:
    """The memory format in which (N, C, H, W) lies, or None where its values are strewn."""
    formats = (torch.contiguous_format, torch.channels_last)
    return next((each for each in formats if x.is_contiguous(memory_format=each)), None)


def _in_groups(x: Tensor, kernels: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """One convolution with the batch folded into its groups."""
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


def _groups(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    plane = _in(x, torch.contiguous_format)
    return _in(_in_groups(plane, kernels, stride, padding, x.shape[1]), _layout(x))


def _groups_split(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    n, channels, height, width = x.shape
    plane = _in(x, torch.contiguous_format).view(1, n * channels, height, width)
    out = _split(plane, kernels.flatten(0, 1), stride, padding)
    return _in(out.view(n, channels, *out.shape[2:]), _layout(x))


def _wide(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    """All channels of all images side by side in channels_last, for which oneDNN has fast 3x3 kernels."""
    n, channels, height, width = x.shape
    before = _in(x, torch.channels_last)
    wide = before.permute(2, 3, 0, 1).reshape(1, height, width, n * channels).permute(0, 3, 1, 2)
    out = _plain(wide, kernels.flatten(0, 1), stride, padding)
    out = out.permute(0, 2, 3, 1).reshape(*out.shape[2:], n, channels).permute(2, 3, 0, 1)
    return _in(out, _layout(x))


def _runs_wide(x: Tensor) -> bool:
    """Return whether that is the faster form without gradients.

    On one core of a Xeon with AMX, batch 128, 3x3 to 7x7, 4x4 to 32x32: 1.0 to 2.4 times as fast as in groups in 17 of
    20 cases, 0.7 to 0.9 times in the others (n = 5, median).
    """
    here = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return here and not torch.is_grad_enabled() and len(x) > 1 and x.is_contiguous(memory_format=torch.channels_last)


def _image_by_image(x: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    images = zip(torch.split(x, 1), kernels.unbind(0), strict=True)  # their backward passes are one concatenation each
    return torch.cat([_plain(image, kernel, stride, padding) for image, kernel in images])


def _kernels_mixed(pixels: Tensor, routing: Tensor, experts: Tensor) -> Tensor:
    """A matrix per image. (N, P, C_in), (N, M), (M, C_out, C_in) -> (N, P, C_out), as the one below."""
    kernels = (routing @ experts.flatten(1)).view(-1, *experts.shape[1:])
    return pixels @ kernels.transpose(1, 2)


def _outputs_mixed(pixels: Tensor, routing: Tensor, experts: Tensor) -> Tensor:
    """All experts in one product, their outputs mixed: M times the multiplications, and no matrix per image.

    Where an image has few pixels its matrix is larger than itself.
    """
    n, count, _ = pixels.shape
    outputs = pixels.flatten(0, 1) @ experts.flatten(0, 1).t()
    outputs = outputs.view(n, count, *experts.shape[:2])
    return torch.einsum("npmo,nm->npo", outputs, routing)


_POINTWISE_EACH: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"images": _kernels_mixed, "outputs": _outputs_mixed}
)
_FORMS: Mapping[Operation, Mapping[str, Callable[..., Tensor]]] = MappingProxyType(
    {
        "depthwise": MappingProxyType({"plain": _plain, "split": _split}),
        "depthwise per image": MappingProxyType(
            {"groups": _groups, "groups split": _groups_split, "wide": _wide, "images": _image_by_image}
        ),
        "pointwise per image": _POINTWISE_EACH,
    }
)
