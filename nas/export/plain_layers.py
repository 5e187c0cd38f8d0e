"""Layers of the exported Python file, each in the plainest form that torch alone can run and train.

:mod:`nas.export.python` copies the definitions that a network mentions into its file, as they stand here. They take and
give the same tensors as the layers that a network trains with, under state dicts of the same order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION: type[nn.Module] = nn.ReLU
"""The exported file has the network's own."""


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    return conv_norm(in_channels, out_channels, kernel_size, stride, groups).append(ACTIVATION(inplace=True))


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm."""
    pad = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, pad, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_act(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, activation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
    return nn.Sequential(conv, ACTIVATION(inplace=True))


def norm_act(layer: nn.Module, channels: int) -> nn.Sequential:
    """A layer, batch norm of its output channels, activation."""
    return nn.Sequential(layer, nn.BatchNorm2d(channels), ACTIVATION(inplace=True))


class SqueezeExcitation(nn.Module):
    """Weighs every channel by what all channels look like on average (Hu et al. 2018)."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * weights.sigmoid()


class Pyramid(nn.Module):
    """Convolutions of several kernel sizes on one input, added or concatenated (Hoang and Jo 2018)."""

    def __init__(self, *branches: nn.Module, concat: bool = False) -> None:
        super().__init__()
        self.concat = concat
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return torch.cat(outputs, dim=1) if self.concat else torch.stack(outputs).sum(0)


class CondConv2d(nn.Module):
    """A convolution whose kernel is mixed from experts for every image (Yang et al. 2019)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        experts: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.stride, self.padding, self.groups = stride, padding, groups
        self.weight = nn.Parameter(torch.empty(experts, out_channels * in_channels // groups * kernel_size**2))
        self.bias = nn.Parameter(torch.zeros(experts, out_channels)) if bias else None
        self.routing = nn.Linear(in_channels, experts)
        for expert in self.weight.data:
            nn.init.kaiming_normal_(expert.view(self.shape), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        routing = torch.sigmoid(self.routing(x.mean((2, 3))))  # (n, experts)
        kernels = (routing @ self.weight).view(n * self.shape[0], *self.shape[1:])
        # One convolution for all images: each is a group of its own.
        x = x.reshape(1, n * channels, height, width)
        out = F.conv2d(x, kernels, stride=self.stride, padding=self.padding, groups=n * self.groups)
        out = out.view(n, self.shape[0], *out.shape[2:])
        return out if self.bias is None else out + (routing @ self.bias)[:, :, None, None]
