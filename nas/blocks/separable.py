"""Xception's block."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Kernel, Ratio
from nas.blocks.inheritance import Wire
from nas.blocks.layers import ACTIVATIONS, conv2d, conv_norm_act, max_pool
from nas.blocks.stage import Block, ResidualStage, Shortcut, inner_channels


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

    def body(self, block: Block) -> nn.Sequential:
        layers: list[nn.Module] = []
        channels = block.in_channels
        for index, width in enumerate(self._widths(block)):
            # The first activation leaves the block's input as it is: the shortcut reads it too.
            layers.append(ACTIVATIONS[block.activation](inplace=index > 0))
            layers.append(conv2d(channels, channels, self.kernel, groups=channels))
            layers.append(conv_norm_act(channels, width, activation=None, norm=block.norm))
            channels = width
        if block.stride > 1:
            layers.append(max_pool(block.stride, "same"))
        return nn.Sequential(*layers)

    def wires(self, block: Block) -> tuple[Wire, ...]:
        groups = ["in", *(f"hidden{number}" for number in range(1, self.depth)), "out"]
        wires = []
        for number, (group, following) in enumerate(itertools.pairwise(groups)):
            role = "last" if following == "out" else f"{number + 1}"
            wires.append(Wire(f"depthwise {role}", f"body.{3 * number + 1}", group, group))
            wires.append(Wire(f"pointwise {role}", f"body.{3 * number + 2}", group, following))
        return tuple(wires)

    def record_body(self, block: Block, recorder: Recorder) -> None:
        for width in self._widths(block):
            recorder.activate()
            channels = recorder.here.channels
            recorder.conv(channels, self.kernel, groups=channels, bias=False)
            recorder.conv(width)
            recorder.norm()
        if block.stride > 1:
            recorder.pool(block.stride, "same")

    def _widths(self, block: Block) -> list[int]:
        inner = inner_channels(self.expansion, block.out_channels)
        return [inner] * (self.depth - 1) + [block.out_channels]
