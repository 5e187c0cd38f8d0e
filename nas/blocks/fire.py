"""SqueezeNet's block."""

import functools
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Ratio
from nas.blocks.geometry import least_pooled, pooled
from nas.blocks.inheritance import Wire, best
from nas.blocks.layers import conv_norm_act, max_pool
from nas.blocks.stage import Block, Ends, ResidualBlock, Stage, inner_channels


class Fire(Stage):
    """Iandola et al. 2016, Figure 1: 1x1 squeeze to t x output channels, then 1x1 and 3x3 side by side.

    Each side gives half of the channels. Where strided, a 3x3 max-pool without padding comes first, and rounds its
    size up.
    """

    block: Literal["fire"]
    channels: Annotated[int, Field(ge=2, le=65_536)]
    expansion: Ratio = 0.125

    def out_size(self, size: int, stride: int) -> int:
        return pooled(size, stride, "valid") if stride > 1 else size

    def least_size(self, out_size: int, stride: int) -> int:
        return least_pooled(out_size, stride, "valid") if stride > 1 else out_size

    def build(self, block: Block) -> nn.Module:
        squeeze, half = self._widths(block)
        expand = functools.partial(conv_norm_act, squeeze, activation=block.activation, norm=block.norm)
        return FireBlock(self.body(block), expand(half), expand(block.out_channels - half, 3))

    def body(self, block: Block) -> nn.Sequential:
        squeeze = conv_norm_act(block.in_channels, self._widths(block)[0], activation=block.activation, norm=block.norm)
        return nn.Sequential(max_pool(block.stride, "valid"), squeeze) if block.stride > 1 else nn.Sequential(squeeze)

    def wires(self, block: Block) -> tuple[Wire, ...]:
        return (
            Wire("squeeze", "body.1" if block.stride > 1 else "body.0", "in", "hidden"),
            Wire("expand1", "expand1", "hidden", "out"),
            Wire("expand3", "expand3", "hidden", "out", begins=self._widths(block)[1]),
        )

    def keep(self, group: str, scores: Tensor, count: int, ends: Ends) -> Tensor:
        """Keep as many of each side's channels as the smaller block has."""
        if group != "out":
            return best(scores, count)
        half, theirs = self._widths(ends.block)[1], self._widths(ends.larger)[1]
        return torch.cat([best(scores[:theirs], half), best(scores[theirs:], count - half) + theirs])

    def record_body(self, block: Block, recorder: Recorder) -> None:
        squeeze, half = self._widths(block)
        if block.stride > 1:
            recorder.pool(block.stride, "valid")
        recorder.conv(squeeze)
        recorder.norm_act()
        squeezed, sides = recorder.here, []
        for channels, kernel in ((half, 1), (block.out_channels - half, 3)):
            recorder.here = squeezed
            recorder.conv(channels, kernel)
            recorder.norm_act()
            sides.append(recorder.here)
        recorder.concat(*sides)

    def _widths(self, block: Block) -> tuple[int, int]:
        """Return the channels of the squeeze and of the 1x1 expansion."""
        return inner_channels(self.expansion, block.out_channels), block.out_channels // 2


class FireBlock(ResidualBlock):
    """The squeeze, and two expansions of it, concatenated."""

    def __init__(self, body: nn.Module, expand1: nn.Module, expand3: nn.Module) -> None:
        super().__init__(body)
        self.expand1 = expand1
        self.expand3 = expand3

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return torch.cat([self.expand1(x), self.expand3(x)], dim=1)
