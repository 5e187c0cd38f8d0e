"""Stages around a depthwise convolution that may be a kernel pyramid, conditional, and followed by SE."""

from typing import Any, Literal

from torch import nn
from torchvision.ops import SqueezeExcitation

from nas.blocks.complexity import Recorder
from nas.blocks.document import Count, Kernels, SeRatio
from nas.blocks.layers import Pyramid, conv_norm_act
from nas.blocks.stage import Block, ResidualStage


class PyramidStage(ResidualStage):
    """A stage with a kernel pyramid (Hoang and Jo 2018), SE and experts (Kuo, Figure 2)."""

    kernels: Kernels = (3,)
    combine: Literal["add", "concat"] = "add"
    se_ratio: SeRatio = 0
    experts: Count = 1

    @property
    def depthwise(self) -> bool:
        """Return whether the pyramid's convolutions have a group per channel."""
        return True

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if len(self.kernels) == 1:
            document.pop("combine", None)
        if self.kernels != (3,):
            document["kernels"] = sorted(self.kernels)
        return document

    def pointwise(self, block: Block, in_channels: int, out_channels: int, activation: str | None) -> nn.Sequential:
        """Make a 1x1 convolution with norm and, unless None, activation."""
        return conv_norm_act(in_channels, out_channels, experts=self.experts, activation=activation, norm=block.norm)

    def pyramid(self, block: Block, channels: int) -> Pyramid:
        """Make the pyramid on so many channels."""
        return Pyramid(
            channels,
            self.kernels,
            self.combine,
            stride=block.stride,
            depthwise=self.depthwise,
            experts=self.experts,
            bias=block.norm == "none",
        )

    def squeeze(self, channels: int) -> list[nn.Module]:
        """Make the SE layer, where there is one."""
        return [SqueezeExcitation(channels, self.squeeze_channels(channels))] if self.se_ratio else []

    def squeeze_channels(self, channels: int) -> int:
        """Return SE's inner width: the ratio of the channels that it scales (Kuo: R = 4 is a ratio of 1/4)."""
        return max(1, round(channels * self.se_ratio))

    def record_pyramid(self, block: Block, recorder: Recorder) -> None:
        recorder.pyramid(
            self.kernels, self.combine, stride=block.stride, experts=self.experts, depthwise=self.depthwise
        )

    def record_squeeze(self, recorder: Recorder) -> None:
        if self.se_ratio:
            recorder.squeeze_excitation(self.squeeze_channels(recorder.here.channels))

    def record_pointwise(self, out_channels: int, recorder: Recorder) -> None:
        recorder.conv(out_channels, experts=self.experts)
        recorder.norm()
