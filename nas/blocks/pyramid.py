"""Stages around a depthwise convolution that may be a kernel pyramid, conditional, and followed by SE."""

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import nn
from torchvision.ops import SqueezeExcitation

from nas.blocks.complexity import Recorder
from nas.blocks.document import Count, Kernels, SeRatio
from nas.blocks.geometry import check_upper, upper_padding
from nas.blocks.inheritance import Wire
from nas.blocks.layers import Pyramid, conv_norm_act, pad_behind
from nas.blocks.stage import Block, ResidualStage


class PyramidStage(ResidualStage):
    """A stage with a kernel pyramid (Hoang and Jo 2018), SE and experts (Kuo, Figure 2)."""

    kernels: Kernels = (3,)
    combine: Literal["add", "concat"] = "add"
    se_ratio: SeRatio = 0
    experts: Count = 1
    padding: Literal["same", "same_upper"] = "same"

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        check_upper(self.padding, min(self.kernels), self.stride)
        return self

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
        if self.stride == 1 or self.kernels == (1,):
            document.pop("padding", None)
        return document

    def pointwise(self, block: Block, in_channels: int, out_channels: int, activation: str | None) -> nn.Sequential:
        """Make a 1x1 convolution with norm and, unless None, activation."""
        return conv_norm_act(in_channels, out_channels, experts=self.experts, activation=activation, norm=block.norm)

    def pyramid(self, block: Block, channels: int) -> tuple[nn.Module, int]:
        """Make the pyramid on so many channels, and count those that it gives."""
        less, behind = upper_padding(block.resolution, block.stride) if self.padding == "same_upper" else (0, 0)
        pyramid = Pyramid(
            channels,
            self.kernels,
            self.combine,
            stride=block.stride,
            depthwise=self.depthwise,
            experts=self.experts,
            bias=block.norm == "none",
            less=less,
        )
        return pad_behind(pyramid, behind), pyramid.out_channels

    def squeeze(self, channels: int) -> list[nn.Module]:
        """Make the SE layer, where there is one."""
        return [SqueezeExcitation(channels, self.squeeze_channels(channels))] if self.se_ratio else []

    def squeeze_channels(self, channels: int) -> int:
        """Return SE's inner width: the ratio of the channels that it scales (Kuo: R = 4 is a ratio of 1/4)."""
        return max(1, round(channels * self.se_ratio))

    def wires_around(self, group: str, *, first: int) -> tuple[Wire, ...]:
        """List the pyramid, SE where there is one, and the last 1x1, from this place on; `group` is between them."""
        roles = ("pyramid", "squeeze", "project") if self.se_ratio else ("pyramid", "project")
        ends = (*(group for _ in roles[:-1]), "out")
        return tuple(
            Wire(role, f"body.{first + i}", group, end) for i, (role, end) in enumerate(zip(roles, ends, strict=True))
        )

    def record_pyramid(self, block: Block, recorder: Recorder) -> None:
        recorder.pyramid(
            self.kernels,
            self.combine,
            stride=block.stride,
            padding=self.padding,
            experts=self.experts,
            depthwise=self.depthwise,
        )

    def record_squeeze(self, recorder: Recorder) -> None:
        if self.se_ratio:
            recorder.squeeze_excitation(self.squeeze_channels(recorder.here.channels))

    def record_pointwise(self, out_channels: int, recorder: Recorder) -> None:
        recorder.conv(out_channels, experts=self.experts)
        recorder.norm()
