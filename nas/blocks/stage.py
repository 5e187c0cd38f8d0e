"""The common part of all block kinds: a stage of the document, its blocks, and a block as a module with its costs.

A kind is one class in one file: its fields, what follows from them (the canonical form, the shortcuts, the sides of its
outputs), and its layers, each stated once (:class:`Layer`). All blocks map (N, C_in, H, W) to (N, C_out, H', W'), where
H' = ceil(H / stride) unless the kind says otherwise.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from nas.blocks.complexity import Recorder
from nas.blocks.document import Activation, Channels, Count, Norm, Part, Stride
from nas.blocks.geometry import least_convolved, strided
from nas.blocks.inheritance import Wire, best
from nas.blocks.layers import conv_norm_act

Shortcut = Literal["none", "identity", "conv", "conv_strided"]
BlockShortcut = Literal["none", "identity", "conv"]


class Stage(Part):
    """`repeats` blocks in a row; the first has the stride and the change of channels, the others keep both."""

    block: str
    channels: Channels
    repeats: Count = 1
    stride: Stride = 1

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        """Return the stage's fields without those that have no effect, for these channels before and in it."""
        del in_channels
        return self.without_defaults() | {"channels": channels}

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        """Return what stands beside a block's body."""
        del in_channels, out_channels, stride
        return "none"

    def out_size(self, size: int, stride: int) -> int:
        """Return the side of a block's output in pixels."""
        return strided(size, stride)

    def least_size(self, out_size: int, stride: int) -> int:
        """Return the smallest input side for which a block's output has at least this one."""
        return least_convolved(out_size, 1, stride, "same")

    def layers(self, block: "Block") -> "Sequence[Layer]":
        """State the layers beside the shortcut, in order."""
        raise NotImplementedError

    def body(self, block: "Block") -> nn.Sequential:
        """Make the layers beside the shortcut."""
        return nn.Sequential(*(layer.make() for layer in self.layers(block)))

    def record_body(self, block: "Block", recorder: Recorder) -> None:
        """Record the layers beside the shortcut."""
        for layer in self.layers(block):
            layer.record(recorder)

    def wires(self, block: "Block") -> tuple[Wire, ...]:
        """List the layers of :meth:`build` that a smaller block inherits, in order."""
        return tuple(layer.wire(f"body.{i}") for i, layer in enumerate(self.layers(block)) if layer.role)

    def all_wires(self, block: "Block") -> tuple[Wire, ...]:
        """List the wires of :meth:`wires`, then that of a shortcut's convolution, which reads the block's input."""
        beside = (Wire("shortcut", "shortcut", "stream", "out"),) if block.shortcut == "conv" else ()
        return (*self.wires(block), *beside)

    def keep(self, group: str, scores: Tensor, count: int, ends: "Ends") -> Tensor:
        """Choose which of a larger block's channels to keep.

        Args:
            group: as the wires name it.
            scores: importance of each of the larger block's channels.
            count: of the smaller block's.
            ends: both blocks, and what is kept of their input.

        Returns:
            The places of those kept, in the order of the smaller block's channels.
        """
        del group, ends
        return best(scores, count)

    def build(self, block: "Block") -> nn.Module:
        """Make a block with fresh weights."""
        return ResidualBlock(self.body(block), make_shortcut(block))

    def record(self, block: "Block", recorder: Recorder) -> None:
        """Record a block; the recorder then stands at its output."""
        start = recorder.here
        self.record_body(block, recorder)
        if block.shortcut == "none":
            return
        body, recorder.here = recorder.here, start
        if block.shortcut == "conv":
            recorder.conv(block.out_channels, stride=block.stride)
            recorder.norm()
        beside, recorder.here = recorder.here, body
        recorder.add(beside)


class ResidualStage(Stage):
    """A stage whose blocks add a shortcut to their bodies.

    `identity` where the shape stays, and nothing elsewhere; `conv`: besides, a 1x1 convolution with norm where only the
    channels change (Han and Kwon); `conv_strided`: that wherever the shape changes (ResNet).
    """

    shortcut: Shortcut = "none"

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        document.pop("shortcut", None)
        shortcut = self._effective_shortcut(in_channels, channels)
        if shortcut != type(self).model_fields["shortcut"].default:
            document["shortcut"] = shortcut
        return document

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        return _block_shortcut(self.shortcut, in_channels, out_channels, stride)

    def _effective_shortcut(self, in_channels: int, channels: int) -> Shortcut:
        """Return the first rule in order that gives the stage's blocks the same shortcuts as its own rule."""

        def kinds(rule: Shortcut) -> tuple[str, str | None]:
            first = _block_shortcut(rule, in_channels, channels, self.stride)
            rest = _block_shortcut(rule, channels, channels, 1) if self.repeats > 1 else None
            return first, rest

        rules: tuple[Shortcut, ...] = ("none", "identity", "conv", "conv_strided")
        return next(rule for rule in rules if kinds(rule) == kinds(self.shortcut))


class Block(NamedTuple):
    """One block with everything worked out; hashable, so that what is known of it can be cached."""

    spec: Stage
    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    """Side of the block's input in pixels."""
    shortcut: BlockShortcut
    first: bool = True
    """Whether it is the first of its stage."""
    activation: Activation = "relu"
    norm: Norm = "batch"

    @property
    def out_resolution(self) -> int:
        return self.spec.out_size(self.resolution, self.stride)


class Layer(NamedTuple):
    """One layer of a block: its module, its costs, and what a smaller block inherits of it.

    Attributes:
        make: makes the module.
        record: walks a recorder through it as the forward pass goes.
        role, reads, writes, begins: as of its :class:`~nas.blocks.inheritance.Wire`; no role where nothing of it is
            inherited.
    """

    make: Callable[[], nn.Module]
    record: Callable[[Recorder], None]
    role: str = ""
    reads: str = ""
    writes: str = ""
    begins: int = 0

    def wire(self, module: str) -> Wire:
        """Return the wire of the layer at this path within the block's module."""
        return Wire(self.role, module, self.reads, self.writes, self.begins)


def convolution(
    block: Block,
    wire: tuple[str, str, str],
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    act: bool,
    begins: int = 0,
    **shape: Any,
) -> Layer:
    """State a convolution with norm (or bias, where the network has no norm) and, if `act`, activation.

    Args:
        wire: role, and the groups that it reads and writes.
        begins: of the wire.
        shape: stride, groups, padding and experts, where they are others than 1, 1, ``same`` and 1.
    """

    def record(recorder: Recorder) -> None:
        recorder.conv(out_channels, kernel, **shape)
        recorder.norm()
        if act:
            recorder.activate()

    made: dict[str, Any] = {"size": block.resolution, "activation": block.activation if act else None}
    made |= {"norm": block.norm, **shape}
    return Layer(partial(conv_norm_act, in_channels, out_channels, kernel, **made), record, *wire, begins)


class Ends(NamedTuple):
    """A block, the larger one that it inherits from, and the places of that one's input channels which it keeps."""

    block: Block
    larger: Block
    reads: Tensor


class ResidualBlock(nn.Module):
    """A body of layers beside a shortcut: none, the input itself, or a 1x1 convolution with norm."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.body(x)
        return self.body(x) + self.shortcut(x)


def make_shortcut(block: Block) -> nn.Module | None:
    """Make what stands beside a block's body."""
    if block.shortcut == "conv":
        return conv_norm_act(
            block.in_channels, block.out_channels, stride=block.stride, activation=None, norm=block.norm
        )
    return nn.Identity() if block.shortcut == "identity" else None


def inner_channels(expansion: float, channels: int) -> int:
    """Return the width inside a block: t x channels, at least 1."""
    return max(1, round(expansion * channels))


def _block_shortcut(rule: Shortcut, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
    if rule == "none":
        return "none"
    if stride == 1 and in_channels == out_channels:
        return "identity"
    if rule == "conv_strided" or (rule == "conv" and stride == 1):
        return "conv"
    return "none"
