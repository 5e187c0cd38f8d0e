"""A network as a chain of segments (stem, blocks, tail), and each segment as its layers.

Every block kind already describes its layers to a :class:`~nas.blocks.complexity.Tally`, for its MACs; a tally that
writes them down as they are *folded* (:mod:`nas.network.fold`) knows the layers of any kind, those of tomorrow
included, without building a module. Latency depends on nothing else, so segments with the same layers are one segment.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
    """A tally that writes its layers down as they are folded."""

    def __init__(self, channels: int, size: int, *, biased: bool = False) -> None:
        super().__init__(channels, size, biased)
        self.layers: list[Layer] = []
        self._is_inside = False  # a layer that is written down as a whole

    @contextmanager
    def layer(
        self, kind: str, kernel: int = 1, stride: int = 1, features: tuple[int, int] | None = None
    ) -> Iterator[None]:
        if self._is_inside or kind == "norm":
            yield
            return
        channels, size, read, macs, params = self.channels, self.size, self.tensor_bytes, self.macs, self.params
        self._is_inside = True
        yield
        self._is_inside = False
        name = _kind(kind, kernel)
        if name == "move":
            kernel, stride = 1, max(1, size // self.size)
        moved, weights = read + self.tensor_bytes, FLOAT_BYTES * (self.params - params)
        self.layers.append(Layer(name, channels, self.channels, kernel, stride, size, self.macs - macs, moved, weights))

    def pyramid(
        self, kernels: tuple[int, ...], combine: str, *, stride: int, experts: int = 1, depthwise: bool = True
    ) -> None:
        if combine == "add" and experts == 1:
            kernels = (max(kernels),)  # as nas.network.fold ships it
        super().pyramid(kernels, combine, stride=stride, experts=experts, depthwise=depthwise)
        if len(kernels) > 1:
            branches = self.channels if combine == "concat" else len(kernels) * self.channels
            self.move(branches, self.channels)

    def move(self, in_channels: int, out_channels: int) -> None:
        """Write down data of the current size that are only joined or added."""
        moved = FLOAT_BYTES * self.size**2 * (in_channels + out_channels)
        self.layers.append(Layer("move", in_channels, out_channels, 1, 1, self.size, 0, moved, 0))


def _kind(kind: str, kernel: int) -> str:
    """Return a layer's name in latency tables: what is no product, such as pooling, moves data."""
    base = kind.removeprefix("conditional ")
    if base not in ("conv", "depthwise", "grouped"):
        return {"squeeze-excitation": "se", "linear": "linear"}.get(kind, "move")
    name = "pointwise" if base == "conv" and kernel == 1 else base
    return name if base == kind else f"cond_{name}"
