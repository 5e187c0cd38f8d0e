"""A network as a chain of segments (stem, blocks, tail), and each segment as its layers.

Every block kind already describes its layers to a :class:`~nas.blocks.complexity.Tally`, for its MACs; a tally that
writes them down as they are *folded* (:mod:`nas.network.fold`) knows the layers of any kind, those of tomorrow
included, without building a module. Latency depends on nothing else, so segments with the same layers are one segment.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from nas.architecture.document import Architecture, Block
from nas.blocks.complexity import FLOAT_BYTES, Tally
from nas.costs.analytic import count_head, count_stem


class Layer(NamedTuple):
    """One layer of a folded network, at the size where it stands."""

    kind: str
    """``conv``, ``pointwise``, ``depthwise``, ``grouped``, each also as ``cond_...``; ``se``, ``linear``; ``move``."""
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    resolution: int
    """Side of the input in pixels."""
    macs: int
    moved: int
    """Bytes of activations read and written."""
    weights: int
    """Bytes of parameters read."""


class Segment(NamedTuple):
    """A part of a network that is timed and predicted as one."""

    activation: str
    layers: tuple[Layer, ...]

    @property
    def key(self) -> str:
        """A readable name, one for one: activation and layers, as in ``relu: pointwise 16>96 k1 s1 @32``."""
        layers = (
            f"{layer.kind} {layer.in_channels}>{layer.out_channels} k{layer.kernel} s{layer.stride} @{layer.resolution}"
            for layer in self.layers
        )
        return f"{self.activation}: {', '.join(layers)}"


def segments(architecture: Architecture, num_classes: int) -> list[Segment]:
    """The network's segments in order: stem, every block, and the tail (head, pooling, classifier)."""
    blocks = list(architecture.blocks())
    image, biased, last = architecture.input, architecture.norm == "none", blocks[-1]
    stem = _Recorder(image.channels, image.resolution, biased=biased)
    count_stem(architecture, stem)
    tail = _Recorder(last.out_channels, last.out_resolution, biased=biased)
    count_head(architecture, num_classes, tail)
    ends = (Segment(architecture.activation, tuple(recorder.layers)) for recorder in (stem, tail))
    return [next(ends), *map(block_segment, blocks), next(ends)]


@functools.lru_cache(maxsize=100_000)
def block_segment(block: Block) -> Segment:
    """One block's layers; a search meets the same blocks over and over."""
    recorder = _Recorder(block.in_channels, block.resolution)
    block.spec.count(block, recorder)
    if block.shortcut != "none":
        recorder.move(2 * recorder.channels, recorder.channels)
    return Segment(block.activation, tuple(recorder.layers))


class _Recorder(Tally):
    """A tally that writes its layers down."""

    def __init__(self, channels: int, size: int, *, biased: bool = False) -> None:
        super().__init__(channels, size, biased)
        self.layers: list[Layer] = []
        self._depth = 0  # inside a layer that is written down as a whole

    def conv(self, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, **others: Any) -> None:
        kind = "conv" if kernel > 1 else "pointwise"
        if groups > 1:
            kind = "depthwise" if groups == self.channels else "grouped"
        with self._layer(f"cond_{kind}" if others.get("experts", 1) > 1 else kind, kernel, stride):
            super().conv(out_channels, kernel, stride=stride, groups=groups, **others)

    def pyramid(
        self, kernels: tuple[int, ...], combine: str, *, stride: int, experts: int = 1, depthwise: bool = True
    ) -> None:
        if combine == "add" and experts == 1:
            kernels = (max(kernels),)  # as nas.network.fold ships it
        super().pyramid(kernels, combine, stride=stride, experts=experts, depthwise=depthwise)
        if len(kernels) > 1:
            branches = self.channels if combine == "concat" else len(kernels) * self.channels
            self.move(branches, self.channels)

    def squeeze_excitation(self, squeeze_channels: int) -> None:
        with self._layer("se"):
            super().squeeze_excitation(squeeze_channels)

    def linear(self, out_features: int) -> None:
        with self._layer("linear"):
            super().linear(out_features)

    def emit(self, channels: int, size: int) -> None:
        with self._layer("move", stride=max(1, self.size // size)):
            super().emit(channels, size)

    def move(self, in_channels: int, out_channels: int) -> None:
        """Data of the current size that are only joined or added."""
        moved = FLOAT_BYTES * self.size**2 * (in_channels + out_channels)
        self.layers.append(Layer("move", in_channels, out_channels, 1, 1, self.size, 0, moved, 0))

    @contextmanager
    def _layer(self, kind: str, kernel: int = 1, stride: int = 1) -> Iterator[None]:
        """Write down as one layer whatever is counted inside."""
        channels, size, read, macs, params = self.channels, self.size, self.tensor_bytes, self.macs, self.params
        self._depth += 1
        yield
        self._depth -= 1
        if not self._depth:
            moved, weights = read + self.tensor_bytes, FLOAT_BYTES * (self.params - params)
            sizes = channels, self.channels, kernel, stride, size
            self.layers.append(Layer(kind, *sizes, self.macs - macs, moved, weights))
