"""The block kinds, by name. Each is a module made from a resolved :class:`~nas.stages.Block`, its costs beside it."""

from nas.network.blocks.base import ResidualBlock
from nas.network.blocks.classic import ConvBlock, FireBlock, SeparableBlock, ShuffleBlock
from nas.network.blocks.mobile import BottleneckBlock, DepthwiseSeparableBlock, InvertedResidualBlock

__all__ = ["BLOCKS", "ResidualBlock"]

BLOCKS: dict[str, type[ResidualBlock]] = {
    "inverted_residual": InvertedResidualBlock,
    "bottleneck": BottleneckBlock,
    "depthwise_separable": DepthwiseSeparableBlock,
    "conv": ConvBlock,
    "separable": SeparableBlock,
    "shuffle": ShuffleBlock,
    "fire": FireBlock,
}
