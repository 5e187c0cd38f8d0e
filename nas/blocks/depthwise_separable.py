"""MobileNetV1's block."""

from typing import Literal

from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.inheritance import Wire
from nas.blocks.layers import norm_act
from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block


class DepthwiseSeparable(PyramidStage):
    """Howard et al. 2017, Figure 3: depthwise, then 1x1, each with norm and activation.

    `intermediate: false` leaves out the norm and the activation between the two (Chollet 2017, section 4.7).
    """

    block: Literal["depthwise_separable"]
    intermediate: bool = True

    def body(self, block: Block) -> nn.Sequential:
        pyramid, wide = self.pyramid(block, block.in_channels)
        first = norm_act(pyramid, wide, block.activation, block.norm) if self.intermediate else pyramid
        return nn.Sequential(
            first,
            *self.squeeze(wide),
            self.pointwise(block, wide, block.out_channels, block.activation),
        )

    def wires(self, block: Block) -> tuple[Wire, ...]:
        return self.wires_around("in", first=0)

    def record_body(self, block: Block, recorder: Recorder) -> None:
        self.record_pyramid(block, recorder)
        if self.intermediate:
            recorder.norm_act()
        self.record_squeeze(recorder)
        self.record_pointwise(block.out_channels, recorder)
        recorder.activate()
