"""Every kernel variant of a convolution against torch's own, image by image: outputs and gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.blocks import kernel_variants
from nas.blocks.kernel_variants import Convolve, convolve_each, depthwise, pointwise_each

DEPTHWISE = [kernel_variants.plain, kernel_variants.split]
PER_IMAGE = [
    kernel_variants.grouped,
    kernel_variants.grouped_split,
    kernel_variants.side_by_side,
    kernel_variants.image_by_image,
]
MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last)


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors)


def learned(out: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output, and the gradients of a loss that weighs every value of it differently."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out, *torch.autograd.grad((out * weights).sum(), given)


def images(n: int, channels: int, side: int, memory_format: torch.memory_format) -> Tensor:
    torch.manual_seed(side)
    return torch.randn(n, channels, side, side, dtype=torch.double).contiguous(memory_format=memory_format)


@pytest.mark.parametrize("variant", DEPTHWISE)
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5, 7), (1, 2))))
@pytest.mark.parametrize("side", [4, 9])
def test_variants_of_depthwise(
    variant: Convolve, memory_format: torch.memory_format, kernel: int, stride: int, side: int
) -> None:
    given = leaves(images(3, 6, side, memory_format), torch.randn(6, 1, kernel, kernel).double())
    expected = learned(F.conv2d(*given, None, stride, kernel // 2, groups=6), given)
    torch.testing.assert_close(learned(variant(*given, stride, kernel // 2), given), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5, 7), (1, 2))))
@pytest.mark.parametrize("side", [1, 2, 3, 9])
def test_depthwise(training: bool, kernel: int, stride: int, side: int) -> None:
    """Also where the image is smaller than the kernel."""
    place = {"stride": stride, "padding": kernel // 2}
    x = images(3, 6, side, torch.channels_last)
    given = leaves(x, torch.randn(6, 1, kernel, kernel).double(), torch.randn(6).double())
    ours = learned(depthwise(*given, **place, training=training), given)
    torch.testing.assert_close(ours, learned(F.conv2d(*given, **place, groups=6), given))


@pytest.mark.parametrize("padding", [0, 1])
def test_depthwise_with_less_padding(padding: int) -> None:
    given = leaves(images(3, 6, 5, torch.channels_last), torch.randn(6, 1, 5, 5).double())
    ours = learned(depthwise(*given, None, stride=1, padding=padding, training=True), given)
    torch.testing.assert_close(ours, learned(F.conv2d(*given, padding=padding, groups=6), given))


def separately(x: Tensor, kernels: Tensor, stride: int) -> Tensor:
    place = {"stride": stride, "padding": kernels.shape[-1] // 2, "groups": x.shape[1]}
    return torch.cat([F.conv2d(image[None], kernel, **place) for image, kernel in zip(x, kernels, strict=True)])


@pytest.mark.parametrize("variant", PER_IMAGE)
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5), (1, 2))))
@pytest.mark.parametrize("side", [2, 9])
@pytest.mark.parametrize("n", [1, 3])
def test_variants_of_depthwise_per_image(
    variant: Convolve, memory_format: torch.memory_format, kernel: int, stride: int, side: int, n: int
) -> None:
    given = leaves(images(n, 6, side, memory_format), torch.randn(n, 6, 1, kernel, kernel).double())
    expected = learned(separately(*given, stride), given)
    torch.testing.assert_close(learned(variant(*given, stride, kernel // 2), given), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5), (1, 2))))
@pytest.mark.parametrize("side", [1, 2, 9, 17])
def test_depthwise_per_image(
    training: bool, memory_format: torch.memory_format, kernel: int, stride: int, side: int
) -> None:
    given = leaves(images(3, 6, side, memory_format), torch.randn(3, 6, 1, kernel, kernel).double())
    place = {"stride": stride, "padding": kernel // 2, "groups": 6}
    expected = learned(separately(*given, stride), given)
    torch.testing.assert_close(learned(convolve_each(*given, **place, training=training), given), expected)
    with torch.no_grad():
        torch.testing.assert_close(convolve_each(*given, **place, training=training), expected[0].detach())


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("side", [1, 2, 5])  # few pixels mix outputs, not kernels
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(4, 10), (10, 4)])
def test_pointwise_per_image(memory_format: torch.memory_format, side: int, n: int, before: int, after: int) -> None:
    x = images(n, before, side, memory_format)
    given = leaves(x, torch.rand(n, 4).double(), torch.randn(4, after, before).double())

    def separate(x: Tensor, routing: Tensor, experts: Tensor) -> Tensor:
        kernels = [sum(part * expert for part, expert in zip(shares, experts, strict=True)) for shares in routing]
        return torch.cat(
            [F.conv2d(image[None], kernel[:, :, None, None]) for image, kernel in zip(x, kernels, strict=True)]
        )

    torch.testing.assert_close(learned(pointwise_each(*given), given), learned(separate(*given), given))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 20])
def test_low_precision_is_that_of_autocast(per_image: bool, kernel: int, stride: int, side: int) -> None:
    """Outputs are bfloat16, and gradients what autocast's own would be up to its rounding (8 bits)."""
    x = images(2, 6, side, torch.channels_last).float()
    weight = torch.randn(*((2,) if per_image else ()), 6, 1, kernel, kernel)
    place = {"stride": stride, "padding": kernel // 2}

    def run(training: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
        given = leaves(x, weight)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            if per_image:
                out = convolve_each(*given, **place, groups=6, training=training)
            else:
                out = depthwise(*given, None, **place, training=training)
        assert out.dtype is dtype
        return learned(out, given)

    for ours, exact in zip(run(True, torch.bfloat16), run(False, torch.float32), strict=True):
        assert (ours - exact).abs().max() <= 0.03 * exact.abs().max()
