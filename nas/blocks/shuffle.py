"""ShuffleNet's block."""

import math
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Kernel, Ratio
from nas.blocks.geometry import POOL_KERNEL
from nas.blocks.inheritance import DoesNotFitError, best
from nas.blocks.layers import ACTIVATIONS
from nas.blocks.stage import (
    Block,
    BlockShortcut,
    Ends,
    Layer,
    ResidualBlock,
    Stage,
    convolution,
    inner_channels,
    make_shortcut,
)


class Shuffle(Stage):
    """Zhang et al. 2017 (ShuffleNet v1), Figure 2: grouped 1x1 to t x output channels, shuffle, depthwise, grouped 1x1.

    Where the shape stays the input is added; where it changes the input is average-pooled and concatenated, and the
    body gives the channels that are missing (no shortcut where the output is not wider than the input). A 1x1
    convolution whose channels `groups` does not divide has their greatest common divisor as groups. `group_first:
    false` leaves the first 1x1 of the stage ungrouped, as the paper does in its Stage 2, whose input is thin.
    """

    block: Literal["shuffle"]
    groups: Annotated[int, Field(ge=1, le=64)] = 3
    expansion: Ratio = 0.25
    kernel: Kernel = 3
    group_first: bool = True

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if math.gcd(self.groups, in_channels, inner_channels(self.expansion, channels)) == 1:
            document.pop("group_first", None)
        return document

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        return "identity" if stride == 1 and in_channels == out_channels else "none"

    def build(self, block: Block) -> nn.Module:
        pool = nn.Identity() if block.stride == 1 else nn.AvgPool2d(POOL_KERNEL, block.stride, POOL_KERNEL // 2)
        activation = ACTIVATIONS[block.activation](inplace=True)
        return ShuffleBlock(self.body(block), make_shortcut(block), pool, activation, concat=_concatenates(block))

    def layers(self, block: Block) -> list[Layer]:
        hidden, branch, first, last = self._widths(block)
        mix = partial(nn.ChannelShuffle, math.gcd(self.groups, hidden))
        spatial = {"stride": block.stride, "groups": hidden}
        begins = block.in_channels if _concatenates(block) else 0
        return [
            convolution(block, ("first", "in", "hidden"), block.in_channels, hidden, act=True, groups=first),
            Layer(mix, Recorder.shuffle, "shuffle", "hidden", "hidden"),
            convolution(block, ("depthwise", "hidden", "hidden"), hidden, hidden, self.kernel, act=False, **spatial),
            convolution(block, ("last", "hidden", "out"), hidden, branch, act=False, begins=begins, groups=last),
        ]

    def keep(self, group: str, scores: Tensor, count: int, ends: Ends) -> Tensor:
        """Keep the same number in each group of channels, and the concatenated input's as they are kept there."""
        block, larger, reads = ends
        concatenated = group == "out" and _concatenates(larger)
        if concatenated != (group == "out" and _concatenates(block)):
            raise DoesNotFitError("channels", "the parent's block concatenates its input where this one does not")
        kept, start = (reads, larger.in_channels) if concatenated else (reads[:0], 0)
        rest = best(scores[start:], count - len(kept)) + start
        groups = math.gcd(self.groups, count, len(scores))
        for end in range(1, groups + 1):
            stop = max(start, len(scores) * end // groups)
            more = max(0, min(count * end // groups - len(kept), stop - start))
            kept, start = torch.cat([kept, best(scores[start:stop], more) + start]), stop
        return kept if len(kept) == count else torch.cat([reads, rest])

    def record(self, block: Block, recorder: Recorder) -> None:
        start = recorder.here
        super().record(block, recorder)
        if _concatenates(block):
            body, recorder.here = recorder.here, start
            if block.stride > 1:
                recorder.pool(block.stride, "same", kind="average pool")
            recorder.concat(recorder.here, body)
        recorder.activate()

    def _widths(self, block: Block) -> tuple[int, int, int, int]:
        """Return the channels inside, those that the body gives, and the groups of the first and of the last 1x1."""
        hidden = inner_channels(self.expansion, block.out_channels)
        branch = block.out_channels - block.in_channels if _concatenates(block) else block.out_channels
        grouped = self.group_first or not block.first
        first = math.gcd(self.groups, block.in_channels, hidden) if grouped else 1
        return hidden, branch, first, math.gcd(self.groups, hidden, branch)


class ShuffleBlock(ResidualBlock):
    """The body beside its input, which is added or, average-pooled, concatenated; an activation at the end."""

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None, pool: nn.Module, activation: nn.Module, *, concat: bool
    ) -> None:
        super().__init__(body, shortcut)
        self.pool = pool
        self.concat = concat
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.concat:
            out = torch.cat([self.pool(x), out], dim=1)
        return self.activation(out)


def _concatenates(block: Block) -> bool:
    return block.shortcut == "none" and block.out_channels > block.in_channels
