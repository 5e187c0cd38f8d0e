"""Counting what a network costs while walking through it, without building it.

A :class:`Tally` follows one image through the layers: it knows the current tensor's channels and side, and each method
stands for one layer. The blocks in :mod:`nas.network.blocks` call it in a function beside their ``forward``.

What counts: MACs are multiply-accumulates of convolutions and linear layers for one image (1 MAC = 2 FLOPs), the mixing
of conditional convolution's experts included; normalisation, activation, pooling and addition count nothing.
"""

from dataclasses import dataclass

from nas.architecture import strided

FLOAT_BYTES = 4
NORM_COUNTER_BYTES = 8  # BatchNorm's num_batches_tracked, one int64 per layer


@dataclass(slots=True)
class Tally:
    """Costs so far, and the tensor that the next layer reads."""

    channels: int
    size: int
    """Side of the current tensor in pixels."""
    params: int = 0
    buffer_bytes: int = 0
    macs: int = 0
    conv_macs: int = 0
    """MACs of convolutions alone: no linear layer, SE or routing (Kuo, Table 4)."""
    conv_params: int = 0
    """Weights of convolutions alone (Kuo, Table 4)."""
    peak_bytes: int = 0
    """Largest sum of the tensors that must be alive at once, fp32, one image, normalisation and activation in place."""
    held_bytes: int = 0
    """A tensor kept for later, such as a shortcut's input."""

    @property
    def tensor_bytes(self) -> int:
        return FLOAT_BYTES * self.channels * self.size**2

    def conv(
        self,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        experts: int = 1,
    ) -> None:
        """A convolution; with several experts a conditional one (:class:`nas.network.layers.CondConv2d`)."""
        weights = out_channels * (self.channels // groups) * kernel**2
        size = strided(self.size, stride)
        self.conv_params += experts * weights
        self.conv_macs += weights * size**2
        self.params += experts * weights + bias * experts * out_channels
        self.macs += weights * size**2
        if experts > 1:
            self.macs += experts * weights
            self.linear_beside(self.channels, experts)
        self.emit(out_channels, size)

    def pyramid(
        self, kernels: tuple[int, ...], combine: str, *, stride: int, experts: int = 1, depthwise: bool = True
    ) -> None:
        """Parallel convolutions of one input, added or concatenated (:class:`nas.network.layers.Pyramid`)."""
        in_channels, size = self.channels, self.size
        held = self.held_bytes
        for index, kernel in enumerate(kernels):
            self.channels, self.size = in_channels, size
            self.held_bytes = held + self._branches_bytes(index, combine, in_channels, strided(size, stride))
            self.conv(in_channels, kernel, stride=stride, groups=in_channels if depthwise else 1, experts=experts)
        self.held_bytes = held
        if combine == "concat":
            self.channels = in_channels * len(kernels)

    def norm(self) -> None:
        """BatchNorm of the current tensor."""
        self.params += 2 * self.channels
        self.buffer_bytes += 2 * FLOAT_BYTES * self.channels + NORM_COUNTER_BYTES

    def squeeze_excitation(self, squeeze_channels: int) -> None:
        """Two 1x1 layers with bias on the pooled tensor."""
        self.linear_beside(self.channels, squeeze_channels)
        self.linear_beside(squeeze_channels, self.channels)

    def pool_all(self) -> None:
        """Global average pooling."""
        self.emit(self.channels, 1)

    def linear(self, out_features: int) -> None:
        self.linear_beside(self.channels * self.size**2, out_features)
        self.emit(out_features, 1)

    def linear_beside(self, in_features: int, out_features: int) -> None:
        """A linear layer with bias beside the current tensor, which stays."""
        self.params += in_features * out_features + out_features
        self.macs += in_features * out_features

    def emit(self, channels: int, size: int) -> None:
        """The current tensor is read and another is written."""
        read = self.tensor_bytes
        self.channels, self.size = channels, size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes + read + self.tensor_bytes)

    @staticmethod
    def _branches_bytes(index: int, combine: str, channels: int, size: int) -> int:
        done = index if combine == "concat" else min(index, 1)  # sums share one tensor
        return done * FLOAT_BYTES * channels * size**2
