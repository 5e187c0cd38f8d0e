"""PydMobileNet's block, and the ResNet block that it is compared with."""

from typing import Literal

from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Ratio
from nas.blocks.inheritance import Wire
from nas.blocks.layers import norm_act
from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block, Shortcut, inner_channels


class Bottleneck(PyramidStage):
    """Hoang and Jo 2018, Figure 1: norm, 1x1 to t x output channels, k x k standard or depthwise, 1x1, norm.

    That the block starts with a norm of its own and ends with one follows from the paper's parameter counts: a fit of
    all 22 rows of Table 3 gives two norms on the outer channels per block.
    """

    block: Literal["bottleneck"]
    expansion: Ratio = 0.5
    conv: Literal["standard", "depthwise"] = "depthwise"
    shortcut: Shortcut = "conv_strided"

    @property
    def depthwise(self) -> bool:
        return self.conv == "depthwise"

    def body(self, block: Block) -> nn.Sequential:
        hidden = inner_channels(self.expansion, block.out_channels)
        pyramid, wide = self.pyramid(block, hidden)
        return nn.Sequential(
            *([nn.BatchNorm2d(block.in_channels)] if block.norm == "batch" else []),
            self.pointwise(block, block.in_channels, hidden, block.activation),
            norm_act(pyramid, wide, block.activation, block.norm),
            *self.squeeze(wide),
            self.pointwise(block, wide, block.out_channels, None),
        )

    def wires(self, block: Block) -> tuple[Wire, ...]:
        norm = (Wire("norm", "body.0", "in", "in"),) if block.norm == "batch" else ()
        reduce = Wire("reduce", f"body.{len(norm)}", "in", "hidden")
        return (*norm, reduce, *self.wires_around("hidden", first=len(norm) + 1))

    def record_body(self, block: Block, recorder: Recorder) -> None:
        recorder.norm()
        self.record_pointwise(inner_channels(self.expansion, block.out_channels), recorder)
        recorder.activate()
        self.record_pyramid(block, recorder)
        recorder.norm_act()
        self.record_squeeze(recorder)
        self.record_pointwise(block.out_channels, recorder)
