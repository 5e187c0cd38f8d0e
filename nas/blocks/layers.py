"""Layers that torch does not have: conditional convolution, the kernel pyramid, squeeze-and-excitation."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.blocks.document import Norm
from nas.blocks.geometry import POOL_KERNEL, Padding, upper_padding
from nas.blocks.kernel_variants import add_kernels, convolve_each, depthwise, pointwise_each

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
}


class VariantLayer(nn.Module):
    """A layer that can train in a faster kernel variant (:mod:`nas.blocks.kernel_variants`)."""

    has_training_variant = False
    """Set by :func:`use_training_variants`."""

    @property
    def trains_in_variant(self) -> bool:
        """True while it trains. Inference and compiled code have the usual form."""
        return self.has_training_variant and self.training and not torch.compiler.is_compiling()


class DepthwiseConv2d(VariantLayer, nn.Conv2d):
    """torch's convolution, where it has a group for each channel; networks have torch's own until they are trained."""

    @staticmethod
    def may_replace(conv: nn.Conv2d) -> bool:
        """Return whether this one has a group for each channel, and the usual padding and dilation."""
        square = {conv.stride[0]} == {*conv.stride} and {conv.padding[0]} == {*conv.padding}
        usual = square and conv.dilation == (1, 1) and conv.padding_mode == "zeros" and conv.kernel_size[0] > 1
        return usual and conv.groups == conv.in_channels == conv.out_channels > 1

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], self.padding[0]
        assert isinstance(padding, int)
        return depthwise(x, self.weight, self.bias, stride=stride, padding=padding, training=self.trains_in_variant)


class MeanPool(nn.AdaptiveAvgPool2d):
    """torch's global average pooling, (N, C, H, W) -> (N, C, 1, 1); networks have torch's own until they train."""

    def forward(self, x: Tensor) -> Tensor:
        return spatial_mean(x)[:, :, None, None]


def use_training_variants(network: nn.Module) -> None:
    """Let every layer that has kernel variants train in the one that is fast on its device, in place.

    torch's depthwise convolutions and global poolings become ours, as they stand: their parameters and hooks stay.
    """
    for module in network.modules():
        if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            module.__class__ = MeanPool
        if type(module) is nn.Conv2d and DepthwiseConv2d.may_replace(module):
            module.__class__ = DepthwiseConv2d
        if isinstance(module, VariantLayer):
            module.has_training_variant = True


def channels_last_(network: nn.Module) -> nn.Module:
    """Store the convolutions' weights in channels_last, in place, and return the network.

    `Module.to(memory_format=...)` would also try parameters of five dimensions (the experts of a conditional
    convolution), and fail.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network


def spatial_mean(x: Tensor) -> Tensor:
    """Compute means over H and W: (N, C, H, W) -> (N, C).

    For training by the sum, whose gradient is one value per channel, seen H x W times. torch's mean writes it out in
    NCHW, and where the images are in channels_last the layers before take several times as long over such a gradient.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_exporting():
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class CondConv2d(VariantLayer):
    """Conditional convolution: M expert kernels, mixed for every image by a learned routing of the pooled input.

    Routing weights are ``sigmoid(linear(mean over H, W))``, so (N, M); the kernel of image n is their weighted sum.
    Equal to a weighted sum of M convolutions at little more than the cost of one.

    MACs are those of that definition: one convolution, the mixing of the experts, the routing; also where it runs in
    another form.

    Weights: ``weight`` (M, C_out * C_in / groups * k * k), one expert per row; ``routing``, linear C_in to M.

    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", 2019.

    Shapes: (N, C_in, H, W) -> (N, C_out, H', W').
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        padding: int | None = None,
        bias: bool = False,
        experts: int,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.padding = kernel_size // 2 if padding is None else padding
        self.experts = experts
        self.kernel_shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        # Flat, as it is mixed; `Module.to(memory_format=...)` would stumble over a parameter of five dimensions.
        self.weight = nn.Parameter(torch.empty(experts, math.prod(self.kernel_shape)))
        self.register_parameter("bias", nn.Parameter(torch.zeros(experts, out_channels)) if bias else None)
        self.routing = nn.Linear(in_channels, experts)
        for expert in self.weight.data:
            nn.init.kaiming_normal_(expert.view(self.kernel_shape), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(spatial_mean(x))
        if torch.compiler.is_exporting():
            return self._exported(x, routing)
        if self.kernel_size > 1 or self.groups > 1:
            place = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
            out = convolve_each(x, self.kernels(routing), **place, training=self.trains_in_variant)
        else:
            experts = self.weight.view(self.experts, self.out_channels, self.in_channels)
            out = pointwise_each(x[:, :, :: self.stride, :: self.stride], routing, experts)
        if self.bias is not None:
            out = out + (routing @ self.bias)[:, :, None, None]
        return out

    def route(self, pooled: Tensor) -> Tensor:
        """Compute the routing weights (N, M) of images from their means over H and W, (N, C_in)."""
        return torch.sigmoid(self.routing(pooled))

    def kernels(self, routing: Tensor) -> Tensor:
        """Mix the kernel of every image: (N, M) -> (N, C_out, C_in / groups, k, k)."""
        return (routing @ self.weight).view(-1, *self.kernel_shape)

    def _exported(self, x: Tensor, routing: Tensor) -> Tensor:
        """Compute the same in what ONNX has, for any number of images, and in few nodes: each costs its microseconds.

        A 1x1 convolution is a product with a matrix per image: networks of these layers run 1.7 to 2.3 times as fast in
        ONNX Runtime as with M convolutions (5 networks, batch 1, one core of a Xeon with AMX, n = 36). Others are M
        convolutions whose outputs are mixed, since ONNX has no groups that depend on the batch; with one reshape for
        all routing weights, and the biases inside the convolutions, 1.05 times as fast (1.02 to 1.11; 15 networks, the
        same machine, n = 10).
        """
        if self.kernel_size == self.groups == 1:
            x = x[:, :, :: self.stride, :: self.stride]
            kernels = (routing @ self.weight).view(-1, self.out_channels, self.in_channels)
            flat = kernels @ x.flatten(2)
            if self.bias is not None:
                flat = flat + (routing @ self.bias)[:, :, None]
            return flat.view(-1, self.out_channels, *x.shape[2:])
        total: Tensor | None = None
        for index, share in enumerate(routing.view(-1, self.experts, 1, 1, 1).unbind(1)):
            kernel = self.weight[index].view(self.kernel_shape)
            bias = None if self.bias is None else self.bias[index]
            out = share * F.conv2d(x, kernel, bias, stride=self.stride, padding=self.padding, groups=self.groups)
            total = out if total is None else total + out
        assert total is not None
        return total

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, experts={self.experts}"
        )


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    *,
    pad: int | None = None,
    bias: bool = False,
    experts: int = 1,
) -> nn.Module:
    """Make a convolution, conditional for several experts; `pad` zeros on each side, by default k // 2."""
    pad = kernel_size // 2 if pad is None else pad
    if experts > 1:
        return CondConv2d(
            in_channels, out_channels, kernel_size, stride, groups, padding=pad, bias=bias, experts=experts
        )
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, pad, groups=groups, bias=bias)


class Pyramid(VariantLayer):
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
        bias: bool = False,
        less: int = 0,
    ) -> None:
        """Make one branch per kernel; each is padded by k // 2, `less` this."""
        super().__init__()
        self.combine = combine
        self.out_channels = channels * len(kernels) if combine == "concat" else channels
        self.stride = stride
        self.padding = max(kernels) // 2 - less
        self.groups = channels if depthwise else 1
        self.branches = nn.ModuleList(
            conv2d(channels, channels, kernel, stride, self.groups, pad=kernel // 2 - less, bias=bias, experts=experts)
            for kernel in sorted(kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.combine == "concat":
            return torch.cat([branch(x) for branch in self.branches], dim=1)
        if self.training and x.device.type == "cpu" and len(self.branches) > 1:
            return self._as_one(x)
        first, *others = self.branches
        total = first(x)
        for branch in others:  # one by one, so that no more than two outputs are alive
            total = total + branch(x)
        return total

    def _as_one(self, x: Tensor) -> Tensor:
        """Compute the sum as one convolution of the largest size, its kernel the sum of the others'.

        Forward and backward on one core (AMD EPYC, Zen 5), batch 64, 96 to 384 channels, 4x4 to 32x32, strides 1 and 2,
        fp32 and bf16: 1.3 to 1.5 times as fast for 3 and 5, 1.1 to 1.5 for 3 and 7, 1.3 to 2.1 for 5 and 7, 1.6 to 2.1
        for all three; 1.3 to 1.8 for convolutions of one group (processor time, n = 3, spread below 10%). On a GPU not
        yet measured.
        """
        place: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        conditional = [branch for branch in self.branches if isinstance(branch, CondConv2d)]
        if conditional:
            pooled = spatial_mean(x)
            routings = [branch.route(pooled) for branch in conditional]
            pairs = list(zip(conditional, routings, strict=True))
            kernels = add_kernels([branch.kernels(routing) for branch, routing in pairs])
            out = convolve_each(x, kernels, **place, groups=self.groups, training=self.trains_in_variant)
            shifts = [routing @ branch.bias for branch, routing in pairs if branch.bias is not None]
            return out + torch.stack(shifts).sum(0)[:, :, None, None] if shifts else out
        convs = [branch for branch in self.branches if isinstance(branch, nn.Conv2d)]
        kernel = add_kernels([conv.weight for conv in convs])
        biases = [conv.bias for conv in convs if conv.bias is not None]
        bias = torch.stack(biases).sum(0) if biases else None
        if self.groups == 1:
            return F.conv2d(x, kernel, bias, **place)
        return depthwise(x, kernel, bias, **place, training=self.trains_in_variant)


class SqueezeExcitation(nn.Module):
    """Weigh every channel by what all channels are on average (Hu et al. 2018): (N, C, H, W) -> the same shape.

    torchvision's, with its names of weights. Its own module imports torch's compiler, for more than a second of every
    command.
    """

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return weights * x


def norm_act(layer: nn.Module, channels: int, activation: str | None, norm: Norm = "batch") -> nn.Sequential:
    """Follow a layer by BatchNorm of its output channels (unless norm is `none`) and, unless None, activation."""
    layers = [layer]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(channels))
    if activation:
        layers.append(ACTIVATIONS[activation](inplace=True))
    return nn.Sequential(*layers)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "same",
    size: int = 1,
    experts: int = 1,
    activation: str | None,
    norm: Norm = "batch",
) -> nn.Sequential:
    """Make a convolution, BatchNorm (or, where norm is `none`, a bias) and, unless None, activation.

    `size` is the input's side, which `same_upper` padding depends on.
    """
    less, behind = upper_padding(size, stride) if padding == "same_upper" and kernel_size > 1 else (0, 0)
    conv = conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        groups,
        pad=0 if padding == "valid" else kernel_size // 2 - less,
        bias=norm == "none",
        experts=experts,
    )
    return norm_act(pad_behind(conv, behind), out_channels, activation, norm)


def pad_behind(layer: nn.Module, zeros: int) -> nn.Module:
    """Give a layer so many rows and columns of zeros behind its input."""
    return nn.Sequential(nn.ZeroPad2d((0, zeros, 0, zeros)), layer) if zeros else layer


def max_pool(stride: int, padding: Padding) -> nn.MaxPool2d:
    """Make a 3x3 maximum: padded, or unpadded with its size rounded up."""
    pad = 0 if padding == "valid" else POOL_KERNEL // 2
    return nn.MaxPool2d(POOL_KERNEL, stride, pad, ceil_mode=padding == "valid")
