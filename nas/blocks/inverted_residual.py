"""MobileNetV2's block."""

from typing import Any, Literal

from nas.blocks.document import Ratio
from nas.blocks.pyramid import PyramidStage
from nas.blocks.stage import Block, Layer, Shortcut, inner_channels


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

    def layers(self, block: Block) -> list[Layer]:
        if not self.expands:
            return self.around(block, "in", block.in_channels)
        hidden = inner_channels(self.expansion, block.in_channels)
        expand = self.pointwise(block, ("expand", "in", "hidden"), block.in_channels, hidden, act=True)
        return [expand, *self.around(block, "hidden", hidden)]
