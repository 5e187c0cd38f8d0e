"""The parts of an architecture document: input, stem, head, and one stage model per block kind.

A stage knows what follows from its own fields and the channels that come in: the shortcuts of its blocks, the side of
their outputs, and which of its fields have no effect (its canonical form). The documents themselves, with their ids,
are in :mod:`nas.architecture`; the networks in :mod:`nas.network.blocks`.
"""

import difflib
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nas.geometry import Padding, convolved, least_convolved, least_pooled, pooled, strided

Activation = Literal["relu", "relu6", "hard_swish", "silu"]
Norm = Literal["batch", "none"]
Shortcut = Literal["none", "identity", "conv", "conv_strided"]
BlockShortcut = Literal["none", "identity", "conv"]


def _odd(kernel: Any) -> Any:
    if isinstance(kernel, int) and kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; kernels are odd, such as 3, 5 or 7")
    return kernel


def _kernel_set(kernels: Any) -> Any:
    if not isinstance(kernels, list | tuple):
        raise ValueError(f"{kernels!r} is not a list of odd kernels, such as [3] or [3, 5, 7]")
    if len(kernels) != len({str(kernel) for kernel in kernels}):
        raise ValueError(f"kernels {list(kernels)} name one kernel twice")
    return tuple(kernels)


Channels = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1, le=64)]
Stride = Annotated[int, Field(ge=1, le=4)]
Ratio = Annotated[int | float, Field(gt=0, le=64, allow_inf_nan=False)]
Kernel = Annotated[int, Field(ge=1, le=31), BeforeValidator(_odd)]
Kernels = Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=8), BeforeValidator(_kernel_set)]
SeRatio = Annotated[int | float, Field(ge=0, le=1, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the document: unknown fields are errors that name the known ones, values are never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).model_fields)))

    def __hash__(self) -> int:
        """Of the fields, worked out once: a search looks the same stages up over and over."""
        return self._hash

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {close[0]!r}? " if close else ""
                    raise ValueError(f"unknown field {key!r}; {hint}allowed: {', '.join(cls.model_fields)}")
        return value

    def without_defaults(self) -> dict[str, Any]:
        """The fields as plain values, those at their default left out."""
        return {
            name: plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.is_required() or getattr(self, name) != field.default
        }


class Input(Part):
    """The images: channels and side in pixels (images are square)."""

    channels: Annotated[int, Field(ge=1, le=64)] = 3
    resolution: Annotated[int, Field(ge=1, le=2048)] = 32


class Stem(Part):
    """The first convolution, with norm and activation; then, with `pool: max`, a 3x3 maximum over steps of 2.

    `padding: same` keeps the size up to the strides. `padding: valid` pads neither the convolution nor the pooling,
    and the pooling rounds its size up (Caffe's rule, with which SqueezeNet was trained).
    """

    channels: Channels
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding = "same"
    pool: Literal["none", "max"] = "none"

    @property
    def pool_stride(self) -> int:
        return 2 if self.pool == "max" else 1

    def out_size(self, size: int) -> int:
        """Side of the stem's output in pixels."""
        size = convolved(size, self.kernel, self.stride, self.padding)
        return pooled(size, self.pool_stride, self.padding) if self.pool == "max" else size

    def least_size(self, out_size: int) -> int:
        """The smallest input side that gives at least this output side."""
        if self.pool == "max":
            out_size = least_pooled(out_size, self.pool_stride, self.padding)
        return least_convolved(out_size, self.kernel, self.stride, self.padding)

    def canonical(self, channels: int) -> dict[str, Any]:
        document = self.without_defaults() | {"channels": channels}
        if self.kernel == 1 and self.pool == "none":
            document.pop("padding", None)
        return document


class Head(Part):
    """What follows the last stage: a 1x1 convolution to `channels` (0: none), then the classifier.

    `linear`: global average pooling, dropout, linear layer. `conv`: dropout, 1x1 convolution with bias, activation,
    global average pooling (SqueezeNet).
    """

    channels: Annotated[int, Field(ge=0, le=65_536)] = 0
    dropout: Annotated[int | float, Field(ge=0, lt=1)] = 0
    classifier: Literal["linear", "conv"] = "linear"


class _Stage(Part):
    """`repeats` blocks in a row; the first has the stride and the change of channels, the others keep both."""

    block: str
    channels: Channels
    repeats: Count = 1
    stride: Stride = 1

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        """The stage's fields without those that have no effect, for these channels before and in it."""
        del in_channels
        return self.without_defaults() | {"channels": channels}

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        """What stands beside a block's body."""
        del in_channels, out_channels, stride
        return "none"

    def out_size(self, size: int, stride: int) -> int:
        """Side of a block's output in pixels."""
        return strided(size, stride)

    def least_size(self, out_size: int, stride: int) -> int:
        """The smallest input side for which a block's output has at least this one."""
        return least_convolved(out_size, 1, stride, "same")


class _ResidualStage(_Stage):
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
        """The first rule in order that gives the stage's blocks the same shortcuts as its own rule."""

        def kinds(rule: Shortcut) -> tuple[str, str | None]:
            first = _block_shortcut(rule, in_channels, channels, self.stride)
            rest = _block_shortcut(rule, channels, channels, 1) if self.repeats > 1 else None
            return first, rest

        rules: tuple[Shortcut, ...] = ("none", "identity", "conv", "conv_strided")
        return next(rule for rule in rules if kinds(rule) == kinds(self.shortcut))


class _DepthwiseStage(_ResidualStage):
    kernels: Kernels = (3,)
    combine: Literal["add", "concat"] = "add"
    se_ratio: SeRatio = 0
    experts: Count = 1

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if len(self.kernels) == 1:
            document.pop("combine", None)
        if self.kernels != (3,):
            document["kernels"] = sorted(self.kernels)
        return document


class InvertedResidual(_DepthwiseStage):
    """Sandler et al. 2018: 1x1 expansion to t x input channels, depthwise, SE, linear 1x1 projection.

    At t = 1 the expansion is left out unless `keep_expansion` (Han and Kwon keep it).
    """

    block: Literal["inverted_residual"]
    expansion: Ratio = 6
    shortcut: Shortcut = "identity"
    keep_expansion: bool = False

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.expansion != 1:
            document.pop("keep_expansion", None)
        return document


class Bottleneck(_DepthwiseStage):
    """Hoang and Jo 2018, Figure 1: norm, 1x1 to t x output channels, k x k standard or depthwise, 1x1."""

    block: Literal["bottleneck"]
    expansion: Ratio = 0.5
    conv: Literal["standard", "depthwise"] = "depthwise"
    shortcut: Shortcut = "conv_strided"


class DepthwiseSeparable(_DepthwiseStage):
    """Howard et al. 2017 (MobileNetV1): depthwise, then 1x1, each with norm and activation.

    `intermediate: false` leaves out the norm and the activation between the two (Chollet 2017, section 4.7).
    """

    block: Literal["depthwise_separable"]
    intermediate: bool = True


class Conv(_ResidualStage):
    """One standard convolution with norm and activation."""

    block: Literal["conv"]
    kernel: Kernel = 3
    padding: Padding = "same"
    experts: Count = 1

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.kernel == 1:
            document.pop("padding", None)
        return document

    def out_size(self, size: int, stride: int) -> int:
        return convolved(size, self.kernel, stride, self.padding)

    def least_size(self, out_size: int, stride: int) -> int:
        return least_convolved(out_size, self.kernel, stride, self.padding)

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        if self.padding == "valid" and self.kernel > 1:
            return "none"  # the body's output is smaller than its input
        return super().block_shortcut(in_channels, out_channels, stride)

    def _effective_shortcut(self, in_channels: int, channels: int) -> Shortcut:
        if self.padding == "valid" and self.kernel > 1:
            return "none"
        return super()._effective_shortcut(in_channels, channels)


class Separable(_ResidualStage):
    """Chollet 2017 (Xception), Figure 5: `depth` times activation, separable convolution, norm; where strided, 3x3
    max-pool.

    The first `depth` - 1 separable convolutions are t x output channels wide.
    """

    block: Literal["separable"]
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    expansion: Ratio = 1
    kernel: Kernel = 3
    shortcut: Shortcut = "conv_strided"

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if self.depth == 1:
            document.pop("expansion", None)
        return document


class Shuffle(_Stage):
    """Zhang et al. 2017 (ShuffleNet v1), Figure 2: grouped 1x1 to t x output channels, shuffle, depthwise, grouped 1x1.

    Where the shape stays the input is added; where it changes the input is average-pooled and concatenated, and the
    body gives the channels that are missing (no shortcut where the output is not wider than the input). A 1x1
    convolution whose channels `groups` does not divide has their greatest common divisor as groups. `group_first:
    false` leaves the first 1x1 of the stage ungrouped, as the paper does in its Stage 2, whose input is thin.
    """

    block: Literal["shuffle"]
    groups: Annotated[int, Field(ge=1, le=64)] = 3
    expansion: Ratio = 0.25
    kernel: Kernel = 3
    group_first: bool = True

    def canonical(self, in_channels: int, channels: int) -> dict[str, Any]:
        document = super().canonical(in_channels, channels)
        if math.gcd(self.groups, in_channels, inner_channels(self.expansion, channels)) == 1:
            document.pop("group_first", None)
        return document

    def block_shortcut(self, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
        return "identity" if stride == 1 and in_channels == out_channels else "none"


class Fire(_Stage):
    """Iandola et al. 2016 (SqueezeNet), Figure 1: 1x1 squeeze to t x output channels, then 1x1 and 3x3 side by side.

    Each side gives half of the channels. Where strided, a 3x3 max-pool without padding comes first, and rounds its
    size up.
    """

    block: Literal["fire"]
    channels: Annotated[int, Field(ge=2, le=65_536)]
    expansion: Ratio = 0.125

    def out_size(self, size: int, stride: int) -> int:
        return pooled(size, stride, "valid") if stride > 1 else size

    def least_size(self, out_size: int, stride: int) -> int:
        return least_pooled(out_size, stride, "valid") if stride > 1 else out_size


AnyStage = InvertedResidual | Bottleneck | DepthwiseSeparable | Conv | Separable | Shuffle | Fire
Stage = Annotated[AnyStage, Field(discriminator="block")]
BLOCK_KINDS = ("inverted_residual", "bottleneck", "depthwise_separable", "conv", "separable", "shuffle", "fire")


class Block(NamedTuple):
    """One block with everything worked out; hashable, so that what is known of it can be cached."""

    spec: AnyStage
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


def inner_channels(expansion: float, channels: int) -> int:
    """Width inside a block: t x channels, at least 1."""
    return max(1, round(expansion * channels))


def plain(value: Any) -> Any:
    """A field's value as YAML has it: lists for tuples, and a whole number without its point."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _block_shortcut(rule: Shortcut, in_channels: int, out_channels: int, stride: int) -> BlockShortcut:
    if rule == "none":
        return "none"
    if stride == 1 and in_channels == out_channels:
        return "identity"
    if rule == "conv_strided" or (rule == "conv" and stride == 1):
        return "conv"
    return "none"
