"""Stages around a depthwise convolution that may be a kernel pyramid, conditional, and followed by SE."""

from functools import partial
from typing import Any, Literal, Self

from pydantic import model_validator
from torch import nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Count, Kernels, SeRatio
from nas.blocks.geometry import check_upper, upper_padding
from nas.blocks.layers import Pyramid, SqueezeExcitation, norm_act, pad_behind
from nas.blocks.stage import Block, Layer, ResidualStage, convolution


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

    def pointwise(
        self, block: Block, wire: tuple[str, str, str], in_channels: int, out_channels: int, *, act: bool
    ) -> Layer:
        """State a 1x1 convolution with norm and, if `act`, activation."""
        return convolution(block, wire, in_channels, out_channels, act=act, experts=self.experts)

    def around(
        self, block: Block, group: str, channels: int, *, act: bool = True, act_last: bool = False
    ) -> list[Layer]:
        """State the pyramid on a group of so many channels, SE where there is one, and the last 1x1.

        Args:
            act: the pyramid has norm and activation.
            act_last: so has the 1x1; else it has norm alone.
        """
        wide = channels * len(self.kernels) if self.combine == "concat" else channels
        shape: dict[str, Any] = {"stride": block.stride, "experts": self.experts, "depthwise": self.depthwise}

        def make() -> nn.Module:
            less, behind = upper_padding(block.resolution, block.stride) if self.padding == "same_upper" else (0, 0)
            pyramid = Pyramid(channels, self.kernels, self.combine, bias=block.norm == "none", less=less, **shape)
            padded = pad_behind(pyramid, behind)
            return norm_act(padded, wide, block.activation, block.norm) if act else padded

        def record(recorder: Recorder) -> None:
            recorder.pyramid(self.kernels, self.combine, padding=self.padding, **shape)
            if act:
                recorder.norm_act()

        layers = [Layer(make, record, "pyramid", group, group)]
        if self.se_ratio:
            inner = max(1, round(wide * self.se_ratio))  # Kuo: R = 4 is a ratio of 1/4
            squeeze = partial(SqueezeExcitation, wide, inner)
            layers.append(Layer(squeeze, lambda r: r.squeeze_excitation(inner), "squeeze", group, group))
        return [*layers, self.pointwise(block, ("project", group, "out"), wide, block.out_channels, act=act_last)]
