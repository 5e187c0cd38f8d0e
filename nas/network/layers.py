"""Layers that neither torch nor torchvision has: conditional convolution and the kernel pyramid."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
}


class CondConv2d(nn.Module):
    """Conditional convolution: M expert kernels, mixed for every image by a learned routing of the pooled input.

    Routing weights are ``sigmoid(linear(mean over H, W))``, so (N, M); the kernel of image n is their weighted sum. Equal
    to a weighted sum of M convolutions at little more than the cost of one. No bias: normalisation follows.

    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", 2019.

    Shapes: (N, C_in, H, W) -> (N, C_out, H', W').
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, experts: int
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts, out_channels, in_channels // groups, kernel_size, kernel_size))
        self.routing = nn.Linear(in_channels, experts)
        for expert in self.weight:
            nn.init.kaiming_normal_(expert, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        routing = torch.sigmoid(self.routing(x.mean((2, 3))))
        kernels = routing @ self.weight.flatten(1)
        if self.kernel_size == 1 and self.groups == 1:
            return self._pointwise(x, kernels)
        return self._grouped(x, kernels)

    def _pointwise(self, x: Tensor, kernels: Tensor) -> Tensor:
        """A 1x1 convolution with a kernel per image is one batched matrix product."""
        x = x[:, :, :: self.stride, :: self.stride]
        n, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n, height * width, self.in_channels)
        out = pixels @ kernels.view(n, self.out_channels, self.in_channels).transpose(1, 2)
        return out.view(n, height, width, self.out_channels).permute(0, 3, 1, 2)

    def _grouped(self, x: Tensor, kernels: Tensor) -> Tensor:
        """A kernel per image is one convolution with the batch folded into its groups."""
        n, _, height, width = x.shape
        kernels = kernels.view(
            n * self.out_channels, self.in_channels // self.groups, self.kernel_size, self.kernel_size
        )
        out = F.conv2d(
            x.reshape(1, n * self.in_channels, height, width),
            kernels,
            stride=self.stride,
            padding=self.kernel_size // 2,
            groups=n * self.groups,
        )
        return out.view(n, self.out_channels, *out.shape[2:])

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, experts={self.experts}"
        )


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, experts: int = 1
) -> nn.Module:
    """A convolution that keeps the size (up to its stride), conditional where there are several experts; no bias."""
    if experts > 1:
        return CondConv2d(in_channels, out_channels, kernel_size, stride, groups, experts=experts)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


class Pyramid(nn.Module):
    """Convolutions of several kernel sizes on one input, side by side, their outputs added or concatenated.

    Source: Hoang and Jo, "PydMobileNet", 2018, section 3.1 (depthwise). One kernel makes an ordinary convolution.

    Shapes: (N, C, H, W) -> (N, C, H', W'), or (N, C * kernels, H', W') where concatenated.
    """

    def __init__(
        self,
        channels: int,
        kernels: tuple[int, ...],
        combine: Literal["add", "concat"],
        *,
        stride: int,
        depthwise: bool = True,
        experts: int = 1,
    ) -> None:
        super().__init__()
        self.combine = combine
        self.out_channels = channels * len(kernels) if combine == "concat" else channels
        groups = channels if depthwise else 1
        self.branches = nn.ModuleList(
            conv2d(channels, channels, kernel, stride, groups, experts=experts) for kernel in sorted(kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        if self.combine == "concat":
            return torch.cat(outputs, dim=1)
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


def norm_act(layer: nn.Module, channels: int, activation: str | None) -> nn.Sequential:
    """A layer followed by BatchNorm of its output channels and, unless None, activation."""
    layers = [layer, nn.BatchNorm2d(channels)]
    if activation:
        layers.append(ACTIVATIONS[activation](inplace=True))
    return nn.Sequential(*layers)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    experts: int = 1,
    activation: str | None,
) -> nn.Sequential:
    """Convolution, BatchNorm and, unless None, activation."""
    conv = conv2d(in_channels, out_channels, kernel_size, stride, experts=experts)
    return norm_act(conv, out_channels, activation)
