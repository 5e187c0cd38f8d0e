"""PydMobileNet's block, and the ResNet block that it is compared with."""

from functools import partial
from typing import Literal

from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Ratio
from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block, Layer, Shortcut, inner_channels


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

    def layers(self, block: Block) -> list[Layer]:
        hidden = inner_channels(self.expansion, block.out_channels)
        norm = Layer(partial(nn.BatchNorm2d, block.in_channels), Recorder.norm, "norm", "in", "in")
        reduce = self.pointwise(block, ("reduce", "in", "hidden"), block.in_channels, hidden, act=True)
        return [*([norm] if block.norm == "batch" else []), reduce, *self.around(block, "hidden", hidden)]
