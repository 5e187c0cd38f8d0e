"""The blocks around a depthwise convolution that may be a kernel pyramid, conditional, and followed by SE."""

from torch import nn
from torchvision.ops import SqueezeExcitation

from nas.network.blocks.base import ResidualBlock
from nas.network.complexity import Tally
from nas.network.layers import Pyramid, conv_norm_act, norm_act
from nas.stages import Block, Bottleneck, DepthwiseSeparable, InvertedResidual, inner_channels

PyramidStage = InvertedResidual | Bottleneck | DepthwiseSeparable


class InvertedResidualBlock(ResidualBlock):
    """Sandler et al., "MobileNetV2", 2018, Figure 4, with a kernel pyramid (Hoang), SE and experts (Kuo, Figure 2)."""

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, InvertedResidual)
        hidden = inner_channels(spec.expansion, block.in_channels)
        layers: list[nn.Module] = []
        if expands(spec):
            layers.append(_pointwise(spec, block, block.in_channels, hidden, block.activation))
        pyramid = _pyramid(spec, block, hidden)
        layers.append(norm_act(pyramid, pyramid.out_channels, block.activation, block.norm))
        layers += _squeeze(spec, pyramid.out_channels)
        layers.append(_pointwise(spec, block, pyramid.out_channels, block.out_channels, None))
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, InvertedResidual)
        if expands(spec):
            tally.conv(inner_channels(spec.expansion, block.in_channels), experts=spec.experts)
            tally.norm()
        _count_pyramid(spec, block, tally)
        tally.norm()
        _count_squeeze(spec, tally)
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


class BottleneckBlock(ResidualBlock):
    """Hoang and Jo, "PydMobileNet", 2018, Figure 1: norm, 1x1, k x k (standard or depthwise pyramid), 1x1, norm.

    The width inside is t x output channels. That the block starts with a norm of its own and ends with one follows from
    the paper's parameter counts: a fit of all 22 rows of Table 3 gives two norms on the outer channels per block.
    """

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, Bottleneck)
        hidden = inner_channels(spec.expansion, block.out_channels)
        pyramid = _pyramid(spec, block, hidden)
        layers: list[nn.Module] = [
            _pointwise(spec, block, block.in_channels, hidden, block.activation),
            norm_act(pyramid, pyramid.out_channels, block.activation, block.norm),
            *_squeeze(spec, pyramid.out_channels),
            _pointwise(spec, block, pyramid.out_channels, block.out_channels, None),
        ]
        if block.norm == "batch":
            layers.insert(0, nn.BatchNorm2d(block.in_channels))
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Bottleneck)
        tally.norm()
        tally.conv(inner_channels(spec.expansion, block.out_channels), experts=spec.experts)
        tally.norm()
        _count_pyramid(spec, block, tally)
        tally.norm()
        _count_squeeze(spec, tally)
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


class DepthwiseSeparableBlock(ResidualBlock):
    """Howard et al., "MobileNets", 2017, Figure 3: depthwise, norm, activation, 1x1, norm, activation."""

    def make_body(self, block: Block) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, DepthwiseSeparable)
        pyramid = _pyramid(spec, block, block.in_channels)
        first = norm_act(pyramid, pyramid.out_channels, block.activation, block.norm) if spec.intermediate else pyramid
        return nn.Sequential(
            first,
            *_squeeze(spec, pyramid.out_channels),
            _pointwise(spec, block, pyramid.out_channels, block.out_channels, block.activation),
        )

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, DepthwiseSeparable)
        _count_pyramid(spec, block, tally)
        if spec.intermediate:
            tally.norm()
        _count_squeeze(spec, tally)
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


def expands(spec: InvertedResidual) -> bool:
    return spec.expansion != 1 or spec.keep_expansion


def squeeze_channels(channels: int, ratio: float) -> int:
    """SE's inner width: the ratio of the channels that it scales (Kuo: R = 4 is a ratio of 1/4)."""
    return max(1, round(channels * ratio))


def _pointwise(
    spec: PyramidStage, block: Block, in_channels: int, out_channels: int, activation: str | None
) -> nn.Sequential:
    return conv_norm_act(in_channels, out_channels, experts=spec.experts, activation=activation, norm=block.norm)


def _pyramid(spec: PyramidStage, block: Block, channels: int) -> Pyramid:
    return Pyramid(
        channels,
        spec.kernels,
        spec.combine,
        stride=block.stride,
        depthwise=_depthwise(spec),
        experts=spec.experts,
        bias=block.norm == "none",
    )


def _squeeze(spec: PyramidStage, channels: int) -> list[nn.Module]:
    return [SqueezeExcitation(channels, squeeze_channels(channels, spec.se_ratio))] if spec.se_ratio else []


def _count_pyramid(spec: PyramidStage, block: Block, tally: Tally) -> None:
    tally.pyramid(spec.kernels, spec.combine, stride=block.stride, experts=spec.experts, depthwise=_depthwise(spec))


def _count_squeeze(spec: PyramidStage, tally: Tally) -> None:
    if spec.se_ratio:
        tally.squeeze_excitation(squeeze_channels(tally.channels, spec.se_ratio))


def _depthwise(spec: PyramidStage) -> bool:
    return not isinstance(spec, Bottleneck) or spec.conv == "depthwise"
