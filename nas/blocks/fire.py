"""SqueezeNet's block."""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Ratio
from nas.blocks.geometry import least_pooled, pooled
from nas.blocks.inheritance import Wire, best
from nas.blocks.layers import max_pool
from nas.blocks.stage import Block, Ends, Layer, ResidualBlock, Stage, convolution, inner_channels


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

    def layers(self, block: Block) -> list[Layer]:
        squeeze = convolution(block, ("squeeze", "in", "hidden"), block.in_channels, self._widths(block)[0], act=True)
        pool = Layer(partial(max_pool, block.stride, "valid"), lambda r: r.pool(block.stride, "valid"))
        return [pool, squeeze] if block.stride > 1 else [squeeze]

    def sides(self, block: Block) -> tuple[Layer, Layer]:
        """State the two expansions of the squeeze."""
        squeeze, half = self._widths(block)
        rest = block.out_channels - half
        return (
            convolution(block, ("expand1", "hidden", "out"), squeeze, half, act=True),
            convolution(block, ("expand3", "hidden", "out"), squeeze, rest, 3, act=True, begins=half),
        )

    def build(self, block: Block) -> nn.Module:
        return FireBlock(self.body(block), *(side.make() for side in self.sides(block)))

    def wires(self, block: Block) -> tuple[Wire, ...]:
        return (*super().wires(block), *(side.wire(side.role) for side in self.sides(block)))

    def keep(self, group: str, scores: Tensor, count: int, ends: Ends) -> Tensor:
        """Keep as many of each side's channels as the smaller block has."""
        if group != "out":
            return best(scores, count)
        half, theirs = self._widths(ends.block)[1], self._widths(ends.larger)[1]
        return torch.cat([best(scores[:theirs], half), best(scores[theirs:], count - half) + theirs])

    def record_body(self, block: Block, recorder: Recorder) -> None:
        super().record_body(block, recorder)
        squeezed, outputs = recorder.here, []
        for side in self.sides(block):
            recorder.here = squeezed
            side.record(recorder)
            outputs.append(recorder.here)
        recorder.concat(*outputs)

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
