"""Costs of a network, in closed form from its document: exact, without building a module, in microseconds."""

import functools
from typing import NamedTuple

from nas.architecture.document import Architecture, Block
from nas.blocks.complexity import FLOAT_BYTES, Layer, LayerLog, Tally


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
    """The largest sum of activation tensors alive at once, fp32, as :mod:`nas.blocks.complexity` defines it."""


class PlacedLayer(NamedTuple):
    """One layer of a network, and the part of the document that it belongs to."""

    part: str
    """``stem``, ``stages[i]`` or ``head``."""
    block: int
    """Which block of the stage, from 0; 0 for stem and head."""
    layer: Layer


def cost(architecture: Architecture, num_classes: int = 10) -> Cost:
    """Count a network.

    Args:
        architecture: the document.
        num_classes: outputs of the last layer.
    """
    tally = Tally(architecture.input.channels, architecture.input.resolution, biased=architecture.norm == "none")
    count_stem(architecture, tally)
    for block in architecture.blocks():
        _add(tally, count_block(block))
    count_head(architecture, num_classes, tally)
    return Cost(
        params=tally.params,
        macs=tally.macs,
        conv_macs=tally.conv_macs,
        conv_params=tally.conv_params,
        size_bytes=FLOAT_BYTES * tally.params + tally.buffer_bytes,
        peak_activation_bytes=tally.peak_bytes,
    )


def layers(architecture: Architecture, num_classes: int = 10) -> list[PlacedLayer]:
    """List the layers in the order in which they run; their params and MACs add up to the network's."""
    tally = LayerLog(architecture.input.channels, architecture.input.resolution, biased=architecture.norm == "none")
    placed: list[PlacedLayer] = []

    def place(part: str, block: int = 0) -> None:
        placed.extend(PlacedLayer(part, block, layer) for layer in tally.layers[len(placed) :])

    count_stem(architecture, tally)
    place("stem")
    stage, index = -1, 0
    for block in architecture.blocks():
        stage, index = (stage + 1, 0) if block.first else (stage, index + 1)
        block.spec.count(block, tally)
        place(f"stages[{stage}]", index)
    count_head(architecture, num_classes, tally)
    place("head")
    return placed


@functools.lru_cache(maxsize=100_000)
def count_block(block: Block) -> Tally:
    """Count one block, once: a search meets the same ones over and over. The tally is not to be changed."""
    tally = Tally(block.in_channels, block.resolution)
    block.spec.count(block, tally)
    return tally


def count_stem(architecture: Architecture, tally: Tally) -> None:
    stem = architecture.stem
    tally.conv(architecture.stem_channels, stem.kernel, stride=stem.stride, padding=stem.padding)
    tally.norm()
    if stem.pool == "max":
        tally.pool(stem.pool_stride, stem.padding)


def count_head(architecture: Architecture, num_classes: int, tally: Tally) -> None:
    if architecture.head_channels:
        tally.conv(architecture.head_channels)
        tally.norm()
    if architecture.head.classifier == "conv":
        tally.conv(num_classes, bias=True)
        tally.pool_all()
    else:
        tally.pool_all()
        tally.linear(num_classes)


def _add(total: Tally, block: Tally) -> None:
    total.channels, total.size = block.channels, block.size
    total.params += block.params
    total.buffer_bytes += block.buffer_bytes
    total.macs += block.macs
    total.conv_macs += block.conv_macs
    total.conv_params += block.conv_params
    total.peak_bytes = max(total.peak_bytes, block.peak_bytes)
