"""What a network costs, in closed form from its document: exact, without building a module, in microseconds."""

import functools
from typing import NamedTuple

from nas.architecture import Architecture, Block
from nas.network.blocks import BLOCKS
from nas.network.complexity import FLOAT_BYTES, Tally


class Cost(NamedTuple):
    """A network's costs for one image at the document's resolution."""

    params: int
    macs: int
    """Multiply-accumulates of convolutions and linear layers (1 MAC = 2 FLOPs)."""
    conv_macs: int
    """MACs of convolutions alone."""
    conv_params: int
    """Weights of convolutions alone."""
    size_bytes: int
    """The state dict: parameters and buffers in fp32 (BatchNorm's step counter in int64)."""
    peak_activation_bytes: int
    """The largest sum of activation tensors alive at once in eager inference of one image, fp32."""


def cost(architecture: Architecture, num_classes: int = 10) -> Cost:
    """Count a network.

    Args:
        architecture: the document.
        num_classes: outputs of the last layer.
    """
    image = architecture.input
    tally = Tally(image.channels, image.resolution)
    stem = architecture.stem
    tally.conv(architecture.stem_channels, stem.kernel, stride=stem.stride)
    tally.norm()
    for block in architecture.blocks():
        _add(tally, count_block(block))
    if architecture.head_channels:
        tally.conv(architecture.head_channels)
        tally.norm()
    tally.pool_all()
    tally.linear(num_classes)
    return Cost(
        params=tally.params,
        macs=tally.macs,
        conv_macs=tally.conv_macs,
        conv_params=tally.conv_params,
        size_bytes=FLOAT_BYTES * tally.params + tally.buffer_bytes,
        peak_activation_bytes=tally.peak_bytes,
    )


@functools.lru_cache(maxsize=100_000)
def count_block(block: Block) -> Tally:
    """One block's own tally. A search meets the same blocks over and over, so they are counted once; do not change it."""
    tally = Tally(block.in_channels, block.resolution)
    BLOCKS[block.spec.block].count(block, tally)
    return tally


def _add(total: Tally, block: Tally) -> None:
    total.channels, total.size = block.channels, block.size
    total.params += block.params
    total.buffer_bytes += block.buffer_bytes
    total.macs += block.macs
    total.conv_macs += block.conv_macs
    total.conv_params += block.conv_params
    total.peak_bytes = max(total.peak_bytes, block.peak_bytes)
