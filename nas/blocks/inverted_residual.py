"""MobileNetV2's block."""

from typing import Any, Literal

from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Ratio
from nas.blocks.inheritance import Wire
from nas.blocks.layers import norm_act
from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block, Shortcut, inner_channels


class InvertedResidual(PyramidStage):
    """Sandler et al. 2018, Figure 4: 1x1 expansion to t x input channels, depthwise, SE, linear 1x1 projection.

    At t = 1 the expansion is left out unless `keep_expansion` (Han and Kwon keep it).
    """

    block: Literal["inverted_residual"]
    expansion: Ratio = 6
    shortcut: Shortcut = "identity"
    keep_expansion: bool = False

    @property
    def expands(self) -> bool:
        return self.expansion != 1 or self.keep_expansion

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.expansion != 1:
            document.pop("keep_expansion", None)
        return document

    def body(self, block: Block) -> nn.Sequential:
        hidden = inner_channels(self.expansion, block.in_channels)
        pyramid, wide = self.pyramid(block, hidden)
        expand = [self.pointwise(block, block.in_channels, hidden, block.activation)] if self.expands else []
        return nn.Sequential(
            *expand,
            norm_act(pyramid, wide, block.activation, block.norm),
            *self.squeeze(wide),
            self.pointwise(block, wide, block.out_channels, None),
        )

    def wires(self, block: Block) -> tuple[Wire, ...]:
        if not self.expands:
            return self.wires_around("in", first=0)
        return (Wire("expand", "body.0", "in", "hidden"), *self.wires_around("hidden", first=1))

    def record_body(self, block: Block, recorder: Recorder) -> None:
        if self.expands:
            self.record_pointwise(inner_channels(self.expansion, block.in_channels), recorder)
            recorder.activate()
        self.record_pyramid(block, recorder)
        recorder.norm_act()
        self.record_squeeze(recorder)
        self.record_pointwise(block.out_channels, recorder)
