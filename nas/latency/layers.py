"""A network as a chain of segments (stem, blocks, tail), and each segment as its layers.

Every block kind already describes its layers to a :class:`~nas.blocks.complexity.Tally`, for its MACs; a tally that
writes them down as they are *folded* (:mod:`nas.network.fold`) knows the layers of any kind, those of tomorrow
included, without building a module. Latency depends on nothing else, so segments with the same layers are one segment.
"""

import functools
from typing import NamedTuple

from nas.architecture.document import Architecture, Block
from nas.blocks.complexity import FLOAT_BYTES, Tally
from nas.blocks.geometry import Padding
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

    def conv(
        self,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: Padding = "same",
        bias: bool | None = None,
        experts: int = 1,
    ) -> None:
        kind = "conv" if kernel > 1 else "pointwise"
        if groups > 1:
            kind = "depthwise" if groups == self.channels else "grouped"
        before = self._enter()
        super().conv(out_channels, kernel, stride=stride, groups=groups, padding=padding, bias=bias, experts=experts)
        self._leave(before, f"cond_{kind}" if experts > 1 else kind, kernel, stride)

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
        before = self._enter()
        super().squeeze_excitation(squeeze_channels)
        self._leave(before, "se", 1, 1)

    def linear(self, out_features: int) -> None:
        before = self._enter()
        super().linear(out_features)
        self._leave(before, "linear", 1, 1)

    def emit(self, channels: int, size: int) -> None:
        before = self._enter()
        super().emit(channels, size)
        self._leave(before, "move", 1, max(1, before.size // size))

    def move(self, in_channels: int, out_channels: int) -> None:
        """Data of the current size that are only joined or added."""
        moved = FLOAT_BYTES * self.size**2 * (in_channels + out_channels)
        self.layers.append(Layer("move", in_channels, out_channels, 1, 1, self.size, 0, moved, 0))

    def _enter(self) -> "_Before":
        self._depth += 1
        return _Before(self.channels, self.size, self.tensor_bytes, self.macs, self.params)

    def _leave(self, before: "_Before", kind: str, kernel: int, stride: int) -> None:
        self._depth -= 1
        if not self._depth:
            self.layers.append(
                Layer(
                    kind,
                    before.channels,
                    self.channels,
                    kernel,
                    stride,
                    before.size,
                    self.macs - before.macs,
                    before.moved + self.tensor_bytes,
                    FLOAT_BYTES * (self.params - before.params),
                )
            )


class _Before(NamedTuple):
    channels: int
    size: int
    moved: int
    macs: int
    params: int
