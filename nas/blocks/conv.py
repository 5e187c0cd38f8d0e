"""A plain convolution as a block."""

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import nn

from nas.blocks.document import Count, Kernel
from nas.blocks.geometry import Padding, check_upper, convolved, least_convolved
from nas.blocks.inheritance import Wire
from nas.blocks.stage import Block, BlockShortcut, Layer, ResidualStage, Shortcut, convolution


class Conv(ResidualStage):
    """One standard convolution with norm and activation."""

    block: Literal["conv"]
    kernel: Kernel = 3
    padding: Padding = "same"
    experts: Count = 1

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        check_upper(self.padding, self.kernel, self.stride)
        return self

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.kernel == 1 or (self.padding == "same_upper" and self.stride == 1):
            document.pop("padding", None)
        return document

    def out_size(self, size: int, stride: int) -> int:
        return convolved(size, self.kernel, stride, self.padding)

    def least_size(self, out_size: int, stride: int) -> int:
        return least_convolved(out_size, self.kernel, stride, self.padding)

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        if self.padding == "valid" and self.kernel > 1:
            return "none"  # the body's output is smaller than its input
        return super().block_shortcut(in_channels, out_channels, stride)

    def _effective_shortcut(self, in_channels: int, channels: int) -> Shortcut:
        if self.padding == "valid" and self.kernel > 1:
            return "none"
        return super()._effective_shortcut(in_channels, channels)

    def layers(self, block: Block) -> list[Layer]:
        shape: dict[str, Any] = {"stride": block.stride, "padding": self.padding, "experts": self.experts}
        ends = block.in_channels, block.out_channels
        return [convolution(block, ("conv", "in", "out"), *ends, self.kernel, act=True, **shape)]

    def body(self, block: Block) -> nn.Sequential:
        """Make the convolution; it is no sequence of one layer, by the names that its weights have."""
        (layer,) = super().body(block)
        assert isinstance(layer, nn.Sequential)
        return layer

    def wires(self, block: Block) -> tuple[Wire, ...]:
        return tuple(layer.wire("body") for layer in self.layers(block))
