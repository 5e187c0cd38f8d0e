"""Costs of a network, in closed form from its document: exact, without building a module, in microseconds."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nas.architecture.catalogue import check_classes, load
from nas.architecture.document import Architecture, Block, Head, Stem
from nas.blocks.complexity import FLOAT_BYTES, PLAIN_CONVOLUTIONS, CountedPart, Operator, Recorder, Tensor


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


def cost(architecture: str | Path | Architecture, num_classes: int = 10) -> Cost:
    """Count a network.

    Args:
        architecture: a name, a file or a document.
        num_classes: outputs of the last layer, at least 1.

    Raises:
        UserError: no such name or file, or no class.
    """
    architecture = load(architecture)
    check_classes(num_classes)
    params = macs = conv_macs = conv_params = buffer_bytes = peak = 0
    for part in parts(architecture, num_classes):
        params += part.params
        macs += part.macs
        conv_macs += part.conv_macs
        conv_params += part.conv_params
        buffer_bytes += part.buffer_bytes
        peak = max(peak, part.peak_bytes)
    return Cost(params, macs, conv_macs, conv_params, FLOAT_BYTES * params + buffer_bytes, peak)


def too_large(cost: Cost, batch: int, memory: int | None) -> str | None:
    """Return why a network cannot be trained in so much memory, before anything is allocated; else None.

    A training needs weights, gradients, momentum, and the largest layer of one batch. That is a lower bound, so that
    nothing is refused that would fit: what lies between the largest layers is not counted, and activations may be held
    in half precision.
    """
    needed = 3 * FLOAT_BYTES * cost.params + batch * cost.peak_activation_bytes // 2
    if memory is None or needed <= memory:
        return None
    return f"over the memory: training needs {needed / 1e9:.1f} GB or more, there are {memory / 1e9:.1f} GB"


def parts(architecture: Architecture, num_classes: int = 10) -> list[CountedPart]:
    """List the network's parts in order: stem, every block, head; each is counted once and cached."""
    image, biased = architecture.input, architecture.norm == "none"
    activation, blocks = architecture.activation, list(architecture.blocks())
    last = blocks[-1]
    ends = (last.out_channels, last.out_resolution, architecture.head_channels, num_classes)
    return [
        stem_part(architecture.stem, architecture.stem_channels, image.channels, image.resolution, activation, biased),
        *map(block_part, blocks),
        head_part(architecture.head, *ends, activation, biased),
    ]


@functools.lru_cache(maxsize=100_000)
def block_part(block: Block) -> CountedPart:
    """Count one block, once: a search meets the same ones over and over."""

    def record() -> list[Operator]:
        biased = block.norm == "none"
        recorder = Recorder(block.in_channels, block.resolution, activation=block.activation, biased=biased)
        block.spec.record(block, recorder)
        return recorder.operators

    return CountedPart.of(record)


@functools.lru_cache(maxsize=10_000)
def stem_part(
    stem: Stem, stem_channels: int, channels: int, resolution: int, activation: str, biased: bool
) -> CountedPart:
    """Count a stem, once; `stem_channels` are those of its output."""

    def record() -> list[Operator]:
        recorder = Recorder(channels, resolution, activation=activation, biased=biased)
        recorder.conv(stem_channels, stem.kernel, stride=stem.stride, padding=stem.padding)
        recorder.norm_act()
        if stem.pool == "max":
            recorder.pool(stem.pool_stride, stem.padding)
        return recorder.operators

    return CountedPart.of(record)


@functools.lru_cache(maxsize=10_000)
def head_part(
    head: Head, channels: int, resolution: int, head_channels: int, num_classes: int, activation: str, biased: bool
) -> CountedPart:
    """Count a head, once: last convolution, pooling and classifier."""

    def record() -> list[Operator]:
        recorder = Recorder(channels, resolution, activation=activation, biased=biased)
        if head_channels:
            recorder.conv(head_channels)
            recorder.norm_act()
        if head.classifier == "conv":
            recorder.conv(num_classes, bias=True)
            recorder.activate()
            recorder.pool_all()
        else:
            recorder.pool_all()
            recorder.linear(num_classes)
        return recorder.operators

    return CountedPart.of(record)


def folded(part: CountedPart) -> tuple[Operator, ...]:
    """Fold the norms and the sums of plain convolutions of one part.

    A convolution that takes a norm has biases. Of a pyramid of plain convolutions that are added, the largest one
    stays. `params` and `macs` of what stays are what the operator had before.
    """
    written: dict[int, Operator] = {}
    renamed: dict[int, Tensor] = {}
    operators = part.record()
    for operator, following in zip(operators, (*operators[1:], None), strict=True):
        reads = tuple(renamed.get(tensor.number, tensor) for tensor in operator.reads)
        writers = [written[tensor.number] for tensor in reads if tensor.number in written]
        if operator.kind == "sum" and all(writer.kind in PLAIN_CONVOLUTIONS for writer in writers):
            for writer in writers:
                del written[writer.writes.number]
            largest = max(writers, key=lambda writer: writer.kernel)
            written[operator.writes.number] = largest._replace(writes=operator.writes)
            continue
        convolutions = list(_convolutions(writers, written)) if operator.kind == "norm" else []
        for convolution in convolutions:
            written[convolution.writes.number] = convolution._replace(biases=convolution.writes.channels)
        into_next = following is not None and following.kind == "conv" and following.kernel == 1
        if operator.kind == "norm" and (convolutions or into_next):
            renamed[operator.writes.number] = reads[0]
            continue
        written[operator.writes.number] = operator._replace(reads=reads)
    return tuple(written.values())


def _convolutions(writers: Iterable[Operator], written: dict[int, Operator]) -> Iterable[Operator]:
    """Yield the convolutions whose outputs, joined or not, these operators are."""
    for writer in writers:
        if writer.is_convolution:
            yield writer
        elif writer.kind in ("sum", "concat"):
            yield from _convolutions((written[tensor.number] for tensor in writer.reads), written)
