"""The blocks of the networks that the papers compare with: plain convolution, Xception, ShuffleNet, SqueezeNet."""

import math

import torch
from torch import Tensor, nn

from nas.geometry import POOL_KERNEL
from nas.network.blocks.base import ResidualBlock
from nas.network.complexity import Tally
from nas.network.layers import ACTIVATIONS, conv2d, conv_norm_act, max_pool, norm_act
from nas.stages import Block, Conv, Fire, Separable, Shuffle, inner_channels


class ConvBlock(ResidualBlock):
    """One standard convolution, norm, activation."""

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, Conv)
        return conv_norm_act(
            block.in_channels,
            block.out_channels,
            spec.kernel,
            stride=block.stride,
            padding=spec.padding,
            experts=spec.experts,
            activation=block.activation,
            norm=block.norm,
        )

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Conv)
        tally.conv(block.out_channels, spec.kernel, stride=block.stride, padding=spec.padding, experts=spec.experts)
        tally.norm()


class SeparableBlock(ResidualBlock):
    """Chollet, "Xception", 2017, Figure 5: (activation, depthwise, 1x1, norm) x depth, then the max-pool if strided."""

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, Separable)
        layers: list[nn.Module] = []
        channels = block.in_channels
        for index, width in enumerate(_separable_widths(spec, block)):
            # The first activation leaves the block's input as it is: the shortcut reads it too.
            layers.append(ACTIVATIONS[block.activation](inplace=index > 0))
            layers.append(conv2d(channels, channels, spec.kernel, groups=channels))
            layers.append(conv_norm_act(channels, width, activation=None, norm=block.norm))
            channels = width
        if block.stride > 1:
            layers.append(max_pool(block.stride, "same"))
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Separable)
        for width in _separable_widths(spec, block):
            tally.conv(tally.channels, spec.kernel, groups=tally.channels, bias=False)
            tally.conv(width)
            tally.norm()
        if block.stride > 1:
            tally.pool(block.stride, "same")


class ShuffleBlock(ResidualBlock):
    """Zhang et al., "ShuffleNet", 2017, Figure 2 (b) and (c): no activation after the depthwise one, one at the end."""

    def __init__(self, block: Block) -> None:
        super().__init__(block)
        self.pool = nn.Identity() if block.stride == 1 else nn.AvgPool2d(POOL_KERNEL, block.stride, POOL_KERNEL // 2)
        self.concat = _concatenates(block)
        self.activation = ACTIVATIONS[block.activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.concat:
            out = torch.cat([self.pool(x), out], dim=1)
        return self.activation(out)

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, Shuffle)
        hidden, branch, first, last = _shuffle_widths(spec, block)
        depthwise = conv2d(hidden, hidden, spec.kernel, block.stride, hidden, bias=block.norm == "none")
        return nn.Sequential(
            conv_norm_act(block.in_channels, hidden, groups=first, activation=block.activation, norm=block.norm),
            nn.ChannelShuffle(math.gcd(spec.groups, hidden)),
            norm_act(depthwise, hidden, None, block.norm),
            conv_norm_act(hidden, branch, groups=last, activation=None, norm=block.norm),
        )

    @classmethod
    def count(cls, block: Block, tally: Tally) -> None:
        if not _concatenates(block):
            super().count(block, tally)
            return
        tally.biased = block.norm == "none"
        in_channels, in_size = tally.channels, tally.size
        with tally.holding(True):
            cls.count_body(block, tally)
        with tally.beside(in_channels, in_size):
            if block.stride > 1:
                tally.pool(block.stride, "same", kind="average pool")
        tally.channels = block.out_channels

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Shuffle)
        hidden, branch, first, last = _shuffle_widths(spec, block)
        tally.conv(hidden, groups=first)
        tally.norm()
        tally.shuffle()
        tally.conv(hidden, spec.kernel, stride=block.stride, groups=hidden)
        tally.norm()
        tally.conv(branch, groups=last)
        tally.norm()


class FireBlock(ResidualBlock):
    """Iandola et al., "SqueezeNet", 2016, Figure 1: squeeze, then 1x1 and 3x3 expansions concatenated."""

    def __init__(self, block: Block) -> None:
        super().__init__(block)
        squeeze, half = _fire_widths(block)
        activation, norm = block.activation, block.norm
        self.expand1 = conv_norm_act(squeeze, half, activation=activation, norm=norm)
        self.expand3 = conv_norm_act(squeeze, block.out_channels - half, 3, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return torch.cat([self.expand1(x), self.expand3(x)], dim=1)

    def make_body(self, block: Block) -> nn.Sequential:
        squeeze = conv_norm_act(block.in_channels, _fire_widths(block)[0], activation=block.activation, norm=block.norm)
        return nn.Sequential(max_pool(block.stride, "valid"), squeeze) if block.stride > 1 else nn.Sequential(squeeze)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        squeeze, half = _fire_widths(block)
        if block.stride > 1:
            tally.pool(block.stride, "valid")
        tally.conv(squeeze)
        tally.norm()
        size = tally.size
        with tally.holding(True):
            tally.conv(half)
            tally.norm()
        with tally.beside(squeeze, size):
            tally.conv(block.out_channels - half, 3)
            tally.norm()
        tally.channels = block.out_channels


def _separable_widths(spec: Separable, block: Block) -> list[int]:
    inner = inner_channels(spec.expansion, block.out_channels)
    return [inner] * (spec.depth - 1) + [block.out_channels]


def _concatenates(block: Block) -> bool:
    return block.shortcut == "none" and block.out_channels > block.in_channels


def _shuffle_widths(spec: Shuffle, block: Block) -> tuple[int, int, int, int]:
    """Channels inside, channels that the body gives, groups of the first and of the last 1x1."""
    hidden = inner_channels(spec.expansion, block.out_channels)
    branch = block.out_channels - block.in_channels if _concatenates(block) else block.out_channels
    grouped = spec.group_first or not block.first
    first = math.gcd(spec.groups, block.in_channels, hidden) if grouped else 1
    return hidden, branch, first, math.gcd(spec.groups, hidden, branch)


def _fire_widths(block: Block) -> tuple[int, int]:
    """Channels of the squeeze and of the 1x1 expansion."""
    spec = block.spec
    assert isinstance(spec, Fire)
    return inner_channels(spec.expansion, block.out_channels), block.out_channels // 2
