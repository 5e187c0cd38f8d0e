"""The block kinds. Each is a module made from a resolved :class:`~nas.architecture.Block`, with what it costs beside it.

``count`` walks a :class:`~nas.network.complexity.Tally` through the same layers as ``forward`` does.
All blocks map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)).
"""

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from nas.architecture import Block, Bottleneck, Conv, DepthwiseSeparable, InvertedResidual
from nas.network.complexity import Tally
from nas.network.layers import Pyramid, conv_norm_act, norm_act


class ResidualBlock(nn.Module):
    """A body of layers beside a shortcut: none, the input itself, or a 1x1 convolution with norm."""

    body: nn.Sequential
    shortcut: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.body(x)
        return self.body(x) + self.shortcut(x)

    def __init__(self, block: Block, activation: str) -> None:
        super().__init__()
        self.body = self.make_body(block, activation)
        self.shortcut = make_shortcut(block)

    def make_body(self, block: Block, activation: str) -> nn.Sequential:
        raise NotImplementedError

    @classmethod
    def count(cls, block: Block, tally: Tally) -> None:
        held = tally.tensor_bytes if block.shortcut != "none" else 0
        in_channels, in_size = tally.channels, tally.size
        tally.held_bytes += held
        cls.count_body(block, tally)
        tally.held_bytes -= held
        if block.shortcut == "conv":
            out_bytes = tally.tensor_bytes
            tally.channels, tally.size = in_channels, in_size
            tally.held_bytes += out_bytes
            tally.conv(block.out_channels, stride=block.stride)
            tally.norm()
            tally.held_bytes -= out_bytes

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        raise NotImplementedError


def make_shortcut(block: Block) -> nn.Module | None:
    if block.shortcut == "conv":
        return conv_norm_act(block.in_channels, block.out_channels, stride=block.stride, activation=None)
    return nn.Identity() if block.shortcut == "identity" else None


class InvertedResidualBlock(ResidualBlock):
    """Sandler et al., "MobileNetV2", 2018, Figure 4, with a kernel pyramid (Hoang), SE and experts (Kuo, Figure 2)."""

    def make_body(self, block: Block, activation: str) -> nn.Sequential:
        spec, hidden = block.spec, hidden_channels(block)
        assert isinstance(spec, InvertedResidual)
        layers: list[nn.Module] = []
        if expands(spec):
            layers.append(conv_norm_act(block.in_channels, hidden, experts=spec.experts, activation=activation))
        pyramid = Pyramid(hidden, spec.kernels, spec.combine, stride=block.stride, experts=spec.experts)
        layers.append(norm_act(pyramid, pyramid.out_channels, activation))
        if spec.se_ratio:
            layers.append(
                SqueezeExcitation(pyramid.out_channels, squeeze_channels(pyramid.out_channels, spec.se_ratio))
            )
        layers.append(conv_norm_act(pyramid.out_channels, block.out_channels, experts=spec.experts, activation=None))
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, InvertedResidual)
        if expands(spec):
            tally.conv(hidden_channels(block), experts=spec.experts)
            tally.norm()
        count_depthwise(spec, block.stride, tally)
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


class BottleneckBlock(ResidualBlock):
    """Hoang and Jo, "PydMobileNet", 2018, Figure 1: norm, 1x1, k x k (standard or depthwise pyramid), 1x1, norm.

    The width inside is t x output channels. That the block starts with a norm of its own and ends with one follows from
    the paper's parameter counts: a fit of all 22 rows of Table 3 gives two norms on the outer channels per block.
    """

    def make_body(self, block: Block, activation: str) -> nn.Sequential:
        spec, hidden = block.spec, hidden_channels(block)
        assert isinstance(spec, Bottleneck)
        pyramid = Pyramid(
            hidden,
            spec.kernels,
            spec.combine,
            stride=block.stride,
            depthwise=spec.conv == "depthwise",
            experts=spec.experts,
        )
        layers: list[nn.Module] = [
            nn.BatchNorm2d(block.in_channels),
            conv_norm_act(block.in_channels, hidden, experts=spec.experts, activation=activation),
            norm_act(pyramid, pyramid.out_channels, activation),
        ]
        if spec.se_ratio:
            layers.append(
                SqueezeExcitation(pyramid.out_channels, squeeze_channels(pyramid.out_channels, spec.se_ratio))
            )
        layers.append(conv_norm_act(pyramid.out_channels, block.out_channels, experts=spec.experts, activation=None))
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Bottleneck)
        tally.norm()
        tally.conv(hidden_channels(block), experts=spec.experts)
        tally.norm()
        count_depthwise(spec, block.stride, tally, depthwise=spec.conv == "depthwise")
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


class DepthwiseSeparableBlock(ResidualBlock):
    """Howard et al., "MobileNets", 2017, Figure 3: depthwise, norm, activation, 1x1, norm, activation."""

    def make_body(self, block: Block, activation: str) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, DepthwiseSeparable)
        pyramid = Pyramid(block.in_channels, spec.kernels, spec.combine, stride=block.stride, experts=spec.experts)
        layers: list[nn.Module] = [norm_act(pyramid, pyramid.out_channels, activation)]
        if spec.se_ratio:
            layers.append(
                SqueezeExcitation(pyramid.out_channels, squeeze_channels(pyramid.out_channels, spec.se_ratio))
            )
        layers.append(
            conv_norm_act(pyramid.out_channels, block.out_channels, experts=spec.experts, activation=activation)
        )
        return nn.Sequential(*layers)

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, DepthwiseSeparable)
        count_depthwise(spec, block.stride, tally)
        tally.conv(block.out_channels, experts=spec.experts)
        tally.norm()


class ConvBlock(ResidualBlock):
    """One standard convolution, norm, activation."""

    def make_body(self, block: Block, activation: str) -> nn.Sequential:
        spec = block.spec
        assert isinstance(spec, Conv)
        return conv_norm_act(
            block.in_channels,
            block.out_channels,
            spec.kernel,
            stride=block.stride,
            experts=spec.experts,
            activation=activation,
        )

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        spec = block.spec
        assert isinstance(spec, Conv)
        tally.conv(block.out_channels, spec.kernel, stride=block.stride, experts=spec.experts)
        tally.norm()


BLOCKS: dict[str, type[ResidualBlock]] = {
    "inverted_residual": InvertedResidualBlock,
    "bottleneck": BottleneckBlock,
    "depthwise_separable": DepthwiseSeparableBlock,
    "conv": ConvBlock,
}


def hidden_channels(block: Block) -> int:
    """Width inside the block: t x input channels, and t x output channels in the bottleneck (Hoang)."""
    spec = block.spec
    assert isinstance(spec, InvertedResidual | Bottleneck)
    base = block.in_channels if isinstance(spec, InvertedResidual) else block.out_channels
    return max(1, round(base * spec.expansion))


def expands(spec: InvertedResidual) -> bool:
    return spec.expansion != 1 or spec.keep_expansion


def squeeze_channels(channels: int, ratio: float) -> int:
    """SE's inner width: the ratio of the channels that it scales (Kuo: R = 4 is a ratio of 1/4)."""
    return max(1, round(channels * ratio))


def count_depthwise(
    spec: InvertedResidual | Bottleneck | DepthwiseSeparable, stride: int, tally: Tally, *, depthwise: bool = True
) -> None:
    tally.pyramid(spec.kernels, spec.combine, stride=stride, experts=spec.experts, depthwise=depthwise)
    tally.norm()
    if spec.se_ratio:
        tally.squeeze_excitation(squeeze_channels(tally.channels, spec.se_ratio))
