"""What all block kinds share: a body beside a shortcut, and the count of both.

``count`` walks a :class:`~nas.network.complexity.Tally` through the same layers as ``forward`` does.
All blocks map (N, C_in, H, W) to (N, C_out, H', W'), where H' = ceil(H / stride) unless the kind says otherwise.
"""

from torch import Tensor, nn

from nas.network.complexity import Tally
from nas.network.layers import conv_norm_act
from nas.stages import Block


class ResidualBlock(nn.Module):
    """A body of layers beside a shortcut: none, the input itself, or a 1x1 convolution with norm."""

    body: nn.Sequential
    shortcut: nn.Module | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.body = self.make_body(block)
        self.shortcut = make_shortcut(block)

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.body(x)
        return self.body(x) + self.shortcut(x)

    def make_body(self, block: Block) -> nn.Sequential:
        raise NotImplementedError

    @classmethod
    def count(cls, block: Block, tally: Tally) -> None:
        """Add the block's costs; the tally then stands at the block's output."""
        tally.biased = block.norm == "none"
        in_channels, in_size = tally.channels, tally.size
        with tally.holding(block.shortcut != "none"):
            cls.count_body(block, tally)
        if block.shortcut == "conv":
            with tally.beside(in_channels, in_size):
                tally.conv(block.out_channels, stride=block.stride)
                tally.norm()

    @classmethod
    def count_body(cls, block: Block, tally: Tally) -> None:
        raise NotImplementedError


def make_shortcut(block: Block) -> nn.Module | None:
    if block.shortcut == "conv":
        return conv_norm_act(
            block.in_channels, block.out_channels, stride=block.stride, activation=None, norm=block.norm
        )
    return nn.Identity() if block.shortcut == "identity" else None
