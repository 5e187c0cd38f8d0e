"""Xception's block."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from nas.blocks.complexity import Recorder
from nas.blocks.document import Kernel, Ratio
from nas.blocks.layers import ACTIVATIONS, conv2d, max_pool
from nas.blocks.stage import Block, Layer, ResidualStage, Shortcut, convolution, inner_channels


class Separable(ResidualStage):
    """Chollet 2017, Figure 5: `depth` times activation, separable convolution, norm; where strided, 3x3 max-pool.

    The first `depth` - 1 separable convolutions are t x output channels wide.
    """

    block: Literal["separable"]
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    expansion: Ratio = 1
    kernel: Kernel = 3
    shortcut: Shortcut = "conv_strided"

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.depth == 1:
            document.pop("expansion", None)
        return document

    def layers(self, block: Block) -> list[Layer]:
        layers, channels, group = [], block.in_channels, "in"
        for index, width in enumerate(self._widths(block), 1):
            role, following = ("last", "out") if index == self.depth else (f"{index}", f"hidden{index}")
            # The first activation leaves the block's input as it is: the shortcut reads it too.
            activation = partial(ACTIVATIONS[block.activation], inplace=index > 1)
            depthwise = partial(conv2d, channels, channels, self.kernel, groups=channels)
            layers += [
                Layer(activation, Recorder.activate),
                Layer(depthwise, self._record_depthwise, f"depthwise {role}", group, group),
                convolution(block, (f"pointwise {role}", group, following), channels, width, act=False),
            ]
            channels, group = width, following
        if block.stride > 1:
            layers.append(Layer(partial(max_pool, block.stride, "same"), lambda r: r.pool(block.stride, "same")))
        return layers

    def _record_depthwise(self, recorder: Recorder) -> None:
        channels = recorder.here.channels
        recorder.conv(channels, self.kernel, groups=channels, bias=False)

    def _widths(self, block: Block) -> list[int]:
        inner = inner_channels(self.expansion, block.out_channels)
        return [inner] * (self.depth - 1) + [block.out_channels]
