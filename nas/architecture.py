"""The architecture document: its schema, its canonical form and its id.

An architecture is a document of plain values; nothing else in the program describes a network. The schema is written as
pydantic models, one per block kind, so that a field exists only where it means something. ``docs/space.md`` is the
reference for people who write such files.

From the document follow, without building anything:

- the *blocks*: every block of the network with its channels, stride and input size worked out (:meth:`Architecture.blocks`);
- the *canonical form*: the document with the width folded into the channels and every field left out that has no effect;
- the *id*: a hash of the canonical form. Two documents with one id are one network.
"""

import difflib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nas.errors import UserError
from nas.files import dump_flow

if TYPE_CHECKING:
    from nas.network.build import Network

DIVISOR = 8
"""A width multiplier rounds channels to multiples of this (MobileNetV2's rule)."""

Activation = Literal["relu", "relu6", "hard_swish", "silu"]
Shortcut = Literal["none", "identity", "conv", "conv_strided"]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


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


class _Part(BaseModel):
    """A part of the document: unknown fields are errors that name the known ones, values are never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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


class Input(_Part):
    """The images: channels and side in pixels (images are square)."""

    channels: Annotated[int, Field(ge=1, le=64)] = 3
    resolution: Annotated[int, Field(ge=1, le=2048)] = 32


class Stem(_Part):
    """The first convolution, with norm and activation."""

    channels: Channels
    kernel: Kernel = 3
    stride: Stride = 1


class Head(_Part):
    """What follows the last stage: 1x1 convolution to `channels` (0: none), global average pooling, linear layer."""

    channels: Annotated[int, Field(ge=0, le=65_536)] = 0
    dropout: Annotated[int | float, Field(ge=0, lt=1)] = 0


class _Stage(_Part):
    """`repeats` blocks in a row; the first has the stride and the change of channels, the others keep both."""

    block: str
    channels: Channels
    repeats: Count = 1
    stride: Stride = 1

    def canonical(self) -> dict[str, Any]:
        """The stage's fields without those that have no effect on its own blocks."""
        return _without_defaults(self)


class _DepthwiseStage(_Stage):
    kernels: Kernels = (3,)
    combine: Literal["add", "concat"] = "add"
    se_ratio: SeRatio = 0
    experts: Count = 1

    def canonical(self) -> dict[str, Any]:
        document = super().canonical()
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

    def canonical(self) -> dict[str, Any]:
        document = super().canonical()
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
    """Howard et al. 2017 (MobileNetV1): depthwise, then 1x1, each with norm and activation."""

    block: Literal["depthwise_separable"]
    shortcut: Shortcut = "none"


class Conv(_Stage):
    """One standard convolution with norm and activation."""

    block: Literal["conv"]
    kernel: Kernel = 3
    experts: Count = 1
    shortcut: Shortcut = "none"


Stage = Annotated[InvertedResidual | Bottleneck | DepthwiseSeparable | Conv, Field(discriminator="block")]
BLOCK_KINDS = ("inverted_residual", "bottleneck", "depthwise_separable", "conv")


class Block(NamedTuple):
    """One block with everything worked out; hashable, so that what is known of it can be cached."""

    spec: InvertedResidual | Bottleneck | DepthwiseSeparable | Conv
    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    """Side of the block's input in pixels."""
    shortcut: Literal["none", "identity", "conv"]

    @property
    def out_resolution(self) -> int:
        return strided(self.resolution, self.stride)


class Architecture(_Part):
    """A network, as a document. See the module's docstring; make one with :meth:`from_dict` or ``nas.load``."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w+][\w.+-]*$")]
    source: Annotated[str, Field(max_length=300)] = ""
    """Where it comes from, for people: paper and table."""
    input: Input = Input()
    width: Annotated[int | float, Field(gt=0, le=16, allow_inf_nan=False)] = 1
    activation: Activation = "relu"
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=100), BeforeValidator(_as_tuple)]
    head: Head = Head()

    @classmethod
    def from_dict(cls, document: Any, where: str = "architecture") -> Self:
        """Check a document.

        Args:
            document: plain dictionaries, lists and scalars, as YAML gives them.
            where: what the error message calls the document, such as its path.

        Raises:
            UserError: one line that names the field and what is allowed.
        """
        if not isinstance(document, Mapping):
            raise UserError(f"{where}: an architecture is a mapping of fields, this is a {type(document).__name__}")
        try:
            architecture = cls.model_validate(document)
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error)}") from None
        architecture._check_resolution(where)
        return architecture

    def to_dict(self) -> dict[str, Any]:
        """The document as it was given: only the fields that were set, as plain values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_yaml(self) -> str:
        """The document as YAML, one stage a line."""
        return dump_yaml(self.to_dict())

    @functools.cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits; equal for equal networks, whatever their documents' names and spelling."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def canonical(self) -> dict[str, Any]:
        """The shortest document of this network: width folded in, no field without effect, no name or source."""
        stages = []
        channels = self.stem_channels
        for stage in self.stages:
            document = stage.canonical()
            document["channels"] = scale(stage.channels, self.width)
            shortcut = _effective_shortcut(stage, channels, document["channels"])
            document.pop("shortcut", None)
            if shortcut != type(stage).model_fields["shortcut"].default:
                document["shortcut"] = shortcut
            channels = document["channels"]
            stages.append(document)
        head = _without_defaults(self.head) | {"channels": self.head_channels}
        return {
            "input": self.input.model_dump(),
            "activation": self.activation,
            "stem": _without_defaults(self.stem) | {"channels": self.stem_channels},
            "stages": stages,
            "head": head,
        }

    @property
    def stem_channels(self) -> int:
        return scale(self.stem.channels, self.width)

    @property
    def head_channels(self) -> int:
        """The last convolution is widened, never thinned (MobileNetV2, section 3.3)."""
        return scale(self.head.channels, max(1, self.width)) if self.head.channels else 0

    def blocks(self) -> Iterator[Block]:
        """The blocks from the stem to the head, each with its channels, stride and input size worked out."""
        channels = self.stem_channels
        resolution = strided(self.input.resolution, self.stem.stride)
        for stage in self.stages:
            out_channels = scale(stage.channels, self.width)
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                shortcut = _block_shortcut(stage.shortcut, channels, out_channels, stride)
                yield Block(stage, channels, out_channels, stride, resolution, shortcut)
                resolution = strided(resolution, stride)
                channels = out_channels

    def with_input(self, *, channels: int | None = None, resolution: int | None = None) -> Self:
        """The same network for other images.

        Raises:
            UserError: the resolution is too small for the strides.
        """
        image = {"channels": channels or self.input.channels, "resolution": resolution or self.input.resolution}
        return type(self).from_dict({**self.to_dict(), "input": image}, self.name)

    def build(self, num_classes: int) -> "Network":
        """The network as an ``nn.Module`` with fresh weights; short for :func:`nas.network.build.build`."""
        from nas.network.build import build  # the one import upwards, for the user's convenience only

        return build(self, num_classes)

    def _check_resolution(self, where: str) -> None:
        stride = self.stem.stride
        for stage in self.stages:
            stride *= stage.stride
        if self.input.resolution < stride:
            raise UserError(
                f"{where}: input.resolution: {self.input.resolution} is too small for strides of {stride} in all; "
                f"give at least {stride} or smaller strides"
            )


def strided(size: int, stride: int) -> int:
    """Output side of an odd kernel with padding k // 2."""
    return -(-size // stride)


@functools.cache
def scale(channels: int, width: float) -> int:
    """Channels under a width multiplier: the nearest multiple of 8, at least 8 and never below 90% (MobileNetV2's rule).

    A width of 1 leaves the channels as they are written.
    """
    if width == 1:
        return channels
    rounded = max(DIVISOR, int(channels * width + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded if rounded >= 0.9 * channels * width else rounded + DIVISOR


def dump_yaml(document: Mapping[str, Any]) -> str:
    """YAML with one line per field and one per stage, for reading and comparing by eye."""
    lines = []
    for key, value in document.items():
        if key == "stages":
            lines.append("stages:")
            lines.extend(f"  - {dump_flow(stage)}" for stage in value)
        else:
            lines.append(f"{key}: {dump_flow(value)}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_defaults(part: _Part) -> dict[str, Any]:
    return {
        name: _plain(getattr(part, name))
        for name, field in type(part).model_fields.items()
        if field.is_required() or getattr(part, name) != field.default
    }


def _block_shortcut(
    rule: Shortcut, in_channels: int, out_channels: int, stride: int
) -> Literal["none", "identity", "conv"]:
    if rule == "none":
        return "none"
    if stride == 1 and in_channels == out_channels:
        return "identity"
    if rule == "conv_strided" or (rule == "conv" and stride == 1):
        return "conv"
    return "none"


def _effective_shortcut(stage: Any, in_channels: int, out_channels: int) -> Shortcut:
    """The first rule in order that gives the stage's blocks the same shortcuts as its own rule."""

    def kinds(rule: Shortcut) -> tuple[str, str | None]:
        first = _block_shortcut(rule, in_channels, out_channels, stage.stride)
        rest = _block_shortcut(rule, out_channels, out_channels, 1) if stage.repeats > 1 else None
        return first, rest

    rules: tuple[Shortcut, ...] = ("none", "identity", "conv", "conv_strided")
    return next(rule for rule in rules if kinds(rule) == kinds(stage.shortcut))


def _explain(error: ValidationError) -> str:
    """The first of pydantic's complaints as one line: path, what is wrong, what was given."""
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if part not in BLOCK_KINDS and part not in ("int", "float")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    kind, given = first["type"], first["input"]
    if kind == "value_error":
        message = str(first["ctx"]["error"])
    elif kind == "missing":
        message = "this field is missing"
    elif kind == "union_tag_invalid":
        message = f"unknown block {first['ctx']['tag']!r}; allowed: {', '.join(BLOCK_KINDS)}"
    elif kind == "union_tag_not_found":
        message = f"a stage needs a 'block': {', '.join(BLOCK_KINDS)}"
    else:
        number = kind in ("int_type", "float_type") and "float" in (
            str(part) for e in error.errors() for part in e["loc"]
        )
        text = "input should be a number" if number else first["msg"].split(" or instance of")[0]
        text = text.replace("tuple", "list").replace("dictionary", "mapping of fields")
        shown = repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:57]}..."
        message = f"{text[0].lower()}{text[1:]}, not {shown}"
    return f"{path}: {message}" if path else message
