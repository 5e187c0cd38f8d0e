"""The parts of an architecture document around its stages: input, stem and head."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nas.blocks.document import Channels, Kernel, Part, Stride
from nas.blocks.geometry import Padding, check_upper, convolved, least_convolved, least_pooled, pooled


class Input(Part):
    """The images: channels and side in pixels (images are square)."""

    channels: Annotated[int, Field(ge=1, le=64)] = 3
    resolution: Annotated[int, Field(ge=1, le=2048)] = 32


class Stem(Part):
    """The first convolution, with norm and activation; then, with `pool: max`, a 3x3 maximum over steps of 2.

    `padding: same` and `same_upper` (TensorFlow's SAME) keep the size up to the strides. `padding: valid` pads neither
    the convolution nor the pooling, and the pooling rounds its size up (Caffe's rule, with which SqueezeNet was
    trained).
    """

    channels: Channels
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding = "same"
    pool: Literal["none", "max"] = "none"

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        check_upper(self.padding, self.kernel, self.stride)
        if self.padding == "same_upper" and self.pool == "max":
            raise ValueError("padding same_upper has no pooling here; give same or valid")
        return self

    @property
    def pool_stride(self) -> int:
        return 2 if self.pool == "max" else 1

    def out_size(self, size: int) -> int:
        """Return the side of the stem's output in pixels."""
        size = convolved(size, self.kernel, self.stride, self.padding)
        return pooled(size, self.pool_stride, self.padding) if self.pool == "max" else size

    def least_size(self, out_size: int) -> int:
        """Return the smallest input side that gives at least this output side."""
        if self.pool == "max":
            out_size = least_pooled(out_size, self.pool_stride, self.padding)
        return least_convolved(out_size, self.kernel, self.stride, self.padding)

    def canonical(self, channels: int) -> dict[str, Any]:
        document = self.without_defaults() | {"channels": channels}
        if (self.kernel == 1 and self.pool == "none") or (self.padding == "same_upper" and self.stride == 1):
            document.pop("padding", None)
        return document


class Head(Part):
    """Layers after the last stage: a 1x1 convolution to `channels` (0: none), then the classifier.

    `linear`: global average pooling, dropout, linear layer. `conv`: dropout, 1x1 convolution with bias, activation,
    global average pooling (SqueezeNet).
    """

    channels: Annotated[int, Field(ge=0, le=65_536)] = 0
    dropout: Annotated[int | float, Field(ge=0, lt=1)] = 0
    classifier: Literal["linear", "conv"] = "linear"
