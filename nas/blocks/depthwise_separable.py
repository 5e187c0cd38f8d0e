"""MobileNetV1's block."""

from typing import Literal

from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block, Layer


class DepthwiseSeparable(PyramidStage):
    """Howard et al. 2017, Figure 3: depthwise, then 1x1, each with norm and activation.

    `intermediate: false` leaves out the norm and the activation between the two (Chollet 2017, section 4.7).
    """

    block: Literal["depthwise_separable"]
    intermediate: bool = True

    def layers(self, block: Block) -> list[Layer]:
        return self.around(block, "in", block.in_channels, act=self.intermediate, act_last=True)
