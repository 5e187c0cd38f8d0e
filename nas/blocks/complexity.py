"""Counting what a network costs while walking through it, without building it.

A :class:`Tally` follows one image through the layers: it knows the current tensor's channels and side, and each method
stands for one layer. The blocks (:mod:`nas.blocks`) call it in a method beside their layers.

What counts: MACs are multiply-accumulates of convolutions and linear layers for one image (1 MAC = 2 FLOPs), the mixing
of conditional convolution's experts included; normalisation, activation, pooling and addition count nothing.

Peak activation memory is that of an inference runtime, in fp32 for one image: a tensor lives from the layer that writes
it to the last one that reads it; normalisation, activation, SE's scaling, addition and concatenation happen in place;
the vectors of pooled channels beside the image tensors count nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from nas.blocks.geometry import POOL_KERNEL, Padding, convolved, pooled, strided

FLOAT_BYTES = 4
NORM_COUNTER_BYTES = 8  # BatchNorm's num_batches_tracked, one int64 per layer


class Layer(NamedTuple):
    """One layer of a network, as counted."""

    kind: str
    """``conv``, ``depthwise``, ``grouped``, each also as ``conditional ...``; ``linear``, ``norm``, ``max pool``..."""
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    resolution: int
    """Side of the output in pixels."""
    params: int
    macs: int


@dataclass(slots=True)
class Tally:
    """Costs so far, and the tensor that the next layer reads."""

    channels: int
    size: int
    """Side of the current tensor in pixels."""
    biased: bool = False
    """The network has no norm: a convolution has a bias instead."""
    params: int = 0
    buffer_bytes: int = 0
    macs: int = 0
    conv_macs: int = 0
    """MACs of convolutions alone: no linear layer, SE or routing (Kuo, Table 4)."""
    conv_params: int = 0
    """Weights of convolutions alone (Kuo, Table 4)."""
    peak_bytes: int = 0
    """Largest sum of the tensors alive at once."""
    held_bytes: int = 0
    """Tensors kept for later, such as a shortcut's input."""
    reads_held: bool = False
    """The current tensor is among those held."""

    @property
    def tensor_bytes(self) -> int:
        return FLOAT_BYTES * self.channels * self.size**2

    @contextmanager
    def layer(
        self, kind: str, kernel: int = 1, stride: int = 1, features: tuple[int, int] | None = None
    ) -> Iterator[None]:
        """Count what is inside as one layer, which may consist of others; tallies that write layers down override it.

        Args:
            features: of a linear layer, in and out; other layers read and write the current tensor.
        """
        del kind, kernel, stride, features
        yield

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
        """A convolution; with several experts a conditional one (:class:`nas.blocks.layers.CondConv2d`).

        Args:
            bias: whether it has one (None: where the network has no norm).
        """
        weights = out_channels * (self.channels // groups) * kernel**2
        biases = out_channels if (self.biased if bias is None else bias) else 0
        size = convolved(self.size, kernel, stride, padding)
        kind = "conv" if groups == 1 else "depthwise" if groups == self.channels else "grouped"
        with self.layer(f"conditional {kind}" if experts > 1 else kind, kernel, stride):
            self.conv_params += experts * weights
            self.conv_macs += weights * size**2
            self.params += experts * (weights + biases)
            self.macs += weights * size**2
            if experts > 1:
                self.macs += experts * (weights + biases)  # mixing
                self._dense(self.channels, experts)  # routing
            self._emit(out_channels, size)

    def pyramid(
        self, kernels: tuple[int, ...], combine: str, *, stride: int, experts: int = 1, depthwise: bool = True
    ) -> None:
        """Parallel convolutions of one input, added or concatenated (:class:`nas.blocks.layers.Pyramid`)."""
        in_channels, size, held, reads_held = self.channels, self.size, self.held_bytes, self.reads_held
        for index, kernel in enumerate(sorted(kernels)):
            self.channels, self.size, self.reads_held = in_channels, size, reads_held
            self.held_bytes = held + self._branches_bytes(index, combine, in_channels, strided(size, stride))
            self.conv(in_channels, kernel, stride=stride, groups=in_channels if depthwise else 1, experts=experts)
        self.held_bytes = held
        if combine == "concat":
            self.channels = in_channels * len(kernels)

    def norm(self) -> None:
        """BatchNorm of the current tensor, in networks that have it."""
        if not self.biased:
            with self.layer("norm"):
                self.params += 2 * self.channels
                self.buffer_bytes += 2 * FLOAT_BYTES * self.channels + NORM_COUNTER_BYTES

    def squeeze_excitation(self, squeeze_channels: int) -> None:
        """Two 1x1 layers with bias on the pooled tensor."""
        with self.layer("squeeze-excitation"):
            for features in ((self.channels, squeeze_channels), (squeeze_channels, self.channels)):
                with self.layer("linear", features=features):
                    self._dense(*features)

    def pool(self, stride: int, padding: Padding, kind: str = "max pool") -> None:
        """3x3 pooling."""
        with self.layer(kind, POOL_KERNEL, stride):
            self._emit(self.channels, pooled(self.size, stride, padding))

    def pool_all(self) -> None:
        """Global average pooling."""
        with self.layer("global pool"):
            self._emit(self.channels, 1)

    def shuffle(self) -> None:
        """A permutation of the channels, which no layer can do in place."""
        with self.layer("shuffle"):
            self._emit(self.channels, self.size)

    def linear(self, out_features: int) -> None:
        """A linear layer with bias on the flattened tensor."""
        features = self.channels * self.size**2, out_features
        with self.layer("linear", features=features):
            self._emit(out_features, 1)
            self._dense(*features)

    def _emit(self, channels: int, size: int) -> None:
        """The current tensor is read and another is written."""
        read = 0 if self.reads_held else self.tensor_bytes
        self.reads_held = False
        self.channels, self.size = channels, size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes + read + self.tensor_bytes)

    @contextmanager
    def holding(self, active: bool = True) -> Iterator[None]:
        """The current tensor stays alive while the layers inside run."""
        if not active or self.reads_held:
            yield
            return
        held = self.tensor_bytes
        self.held_bytes += held
        self.reads_held = True
        yield
        self.held_bytes -= held
        self.reads_held = False

    @contextmanager
    def beside(self, channels: int, size: int) -> Iterator[None]:
        """The layers inside start from an earlier tensor, and the current one stays alive."""
        held = self.tensor_bytes
        self.channels, self.size = channels, size
        self.held_bytes += held
        yield
        self.held_bytes -= held

    def _dense(self, in_features: int, out_features: int) -> None:
        self.params += in_features * out_features + out_features
        self.macs += in_features * out_features

    @staticmethod
    def _branches_bytes(index: int, combine: str, channels: int, size: int) -> int:
        done = index if combine == "concat" else min(index, 1)  # sums share one tensor
        return done * FLOAT_BYTES * channels * size**2


class LayerLog(Tally):
    """A tally that writes its layers down."""

    def __init__(self, channels: int, size: int, *, biased: bool = False) -> None:
        super().__init__(channels, size, biased)
        self.layers: list[Layer] = []

    @contextmanager
    def layer(
        self, kind: str, kernel: int = 1, stride: int = 1, features: tuple[int, int] | None = None
    ) -> Iterator[None]:
        channels, params, macs = self.channels, self.params, self.macs
        yield
        if kind != "squeeze-excitation":  # its two linear layers are written down
            ends, size = (features, 1) if features else ((channels, self.channels), self.size)
            self.layers.append(Layer(kind, *ends, kernel, stride, size, self.params - params, self.macs - macs))
