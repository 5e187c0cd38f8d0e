"""The architecture document: its schema, its canonical form and its id.

An architecture is a document of plain values; nothing else in the program describes a network. The schema is written as
pydantic models, one per block kind (:mod:`nas.blocks`), so that a field exists only where it means something.
``docs/space.md`` is the reference for people who write such files.

From the document follow, without building anything:

- the *blocks*: every block of the network with its channels, stride and input size worked out
  (:meth:`Architecture.blocks`);
- the *canonical form*: the document with the width folded into the channels and every field left out that has no
  effect;
- the *id*: a hash of the canonical form. Two documents with one id are one network.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from nas.blocks import KINDS, AnyStage, Block, Stage
from nas.blocks.document import Activation, Channels, Kernel, Norm, Part, Stride
from nas.blocks.geometry import Padding, check_upper, convolved, least_convolved, least_pooled, pooled
from nas.errors import UserError
from nas.files import dump_flow

__all__ = ["Architecture", "Block", "dump_yaml", "scale", "unversioned", "versioned"]

SCHEMA = 1
"""Version of architecture and space documents, as their files give it."""

DIVISOR = 8
"""A width multiplier rounds channels to multiples of this (MobileNetV2's rule)."""


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


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


class Architecture(Part):
    """A network, as a document. See the module's docstring; make one with :meth:`from_dict` or ``nas.load``."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w+][\w.+-]*$")]
    source: Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]*$")] = (
        ""
    )
    """Where it comes from, for people: paper and table, on one line."""
    input: Input = Input()
    width: Annotated[int | float, Field(gt=0, le=16, allow_inf_nan=False)] = 1
    activation: Activation = "relu"
    norm: Norm = "batch"
    """`batch`: BatchNorm after each convolution; `none`: a bias in its place (SqueezeNet)."""
    stem: Stem
    stages: Annotated[tuple[AnyStage, ...], Field(min_length=1, max_length=100), BeforeValidator(_as_tuple)]
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
            architecture = cls.model_validate(unversioned(document, where))
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error)}") from None
        architecture._check_resolution(where)
        return architecture

    def to_dict(self) -> dict[str, Any]:
        """Return the document as it was given: only the fields that were set, as plain values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_yaml(self) -> str:
        """Return the document as a YAML file, its version first, one stage a line."""
        return dump_yaml(versioned(self.to_dict()))

    @functools.cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits; equal for equal networks, whatever their documents' names and spelling."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def canonical(self) -> dict[str, Any]:
        """Return the shortest document of this network: width folded in, no field without effect, no name or source."""
        stages = []
        channels = self.stem_channels
        for stage in self.stages:
            document = canonical_stage(stage, channels, scale(stage.channels, self.width))
            channels = document["channels"]
            stages.append(dict(document))
        return {**self.canonical_frame(), "stages": stages}

    def canonical_frame(self) -> dict[str, Any]:
        """Return the canonical form without its stages."""
        frame = {
            "input": self.input.model_dump(),
            "activation": self.activation,
            "stem": self.stem.canonical(self.stem_channels),
            "head": self.head.without_defaults() | {"channels": self.head_channels},
        }
        return frame if self.norm == "batch" else {**frame, "norm": self.norm}

    @property
    def stem_channels(self) -> int:
        return scale(self.stem.channels, self.width)

    @property
    def head_channels(self) -> int:
        """The last convolution is widened, never thinned (MobileNetV2, section 3.3)."""
        return scale(self.head.channels, max(1, self.width)) if self.head.channels else 0

    @property
    def has_experts(self) -> bool:
        """True where a stage has conditional convolutions."""
        return any(getattr(stage, "experts", 1) > 1 for stage in self.stages)

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks from the stem to the head, each with its channels, stride and input size worked out."""
        channels = self.stem_channels
        resolution = self.stem.out_size(self.input.resolution)
        for stage in self.stages:
            out_channels = scale(stage.channels, self.width)
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                shortcut = stage.block_shortcut(channels, out_channels, stride)
                ends = channels, out_channels
                yield Block(stage, *ends, stride, resolution, shortcut, index == 0, self.activation, self.norm)
                resolution = stage.out_size(resolution, stride)
                channels = out_channels

    def with_input(self, *, channels: int | None = None, resolution: int | None = None) -> Self:
        """Return the same network for other images.

        Raises:
            UserError: the resolution is too small for the strides.
        """
        image = {"channels": channels or self.input.channels, "resolution": resolution or self.input.resolution}
        return type(self).from_dict({**self.to_dict(), "input": image}, self.name)

    @property
    def least_resolution(self) -> int:
        """The smallest input side in pixels that the strides and the unpadded layers leave something of."""
        size = 1
        stride = self.stem.stride * self.stem.pool_stride
        for stage in reversed(self.stages):
            for index in reversed(range(stage.repeats)):
                size = stage.least_size(size, stage.stride if index == 0 else 1)
            stride *= stage.stride
        return max(stride, self.stem.least_size(size))

    def _check_resolution(self, where: str) -> None:
        if self.input.resolution < self.least_resolution:
            raise UserError(
                f"{where}: input.resolution: {self.input.resolution} is too small for the strides; "
                f"give at least {self.least_resolution} or smaller strides"
            )


@functools.lru_cache(maxsize=10_000)
def canonical_stage(stage: Stage, in_channels: int, channels: int) -> dict[str, Any]:
    """Return a stage's canonical form, not to be changed, for these channels before and in it."""
    return stage.canonical(in_channels, channels)


@functools.cache
def scale(channels: int, width: float) -> int:
    """Scale channels by a width: the nearest multiple of 8, at least 8 and never below 90% (MobileNetV2's rule).

    A width of 1 leaves the channels as they are written.
    """
    if width == 1:
        return channels
    rounded = max(DIVISOR, int(channels * width + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded if rounded >= 0.9 * channels * width else rounded + DIVISOR


def versioned(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as its file has it: with the version of the schema."""
    return {"schema": SCHEMA, **document}


def unversioned(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the document without the version, which says how a file is to be read and nothing of the network.

    A document without one is of version 1.

    Raises:
        UserError: the version is a newer one, or none at all.
    """
    version = document.get("schema", 1)
    if type(version) is not int or version < 1:
        raise UserError(f"{where}: schema: a version is a whole number from 1 on, not {version!r}")
    if version > SCHEMA:
        raise UserError(f"{where}: schema {version}, this nas reads up to {SCHEMA}; use a newer nas")
    return {key: value for key, value in document.items() if key != "schema"}


def dump_yaml(document: Mapping[str, Any]) -> str:
    """Write YAML with one line per field and one per stage, for reading and comparing by eye."""
    lines = []
    for key, value in document.items():
        if key == "stages":
            lines.append("stages:")
            lines.extend(f"  - {dump_flow(stage)}" for stage in value)
        else:
            lines.append(f"{key}: {dump_flow(value)}")
    return "\n".join(lines) + "\n"


def _explain(error: ValidationError) -> str:
    """Explain the first of pydantic's complaints on one line: path, what is wrong, what was given."""
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if part not in KINDS and part not in ("int", "float")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    kind, given = first["type"], first["input"]
    if isinstance(given, Mapping) and "choice" in given:
        message = "a choice makes this a search space; one network is needed here"
    elif kind == "value_error":
        message = str(first["ctx"]["error"])
    elif kind == "missing":
        message = "this field is missing"
    elif kind == "union_tag_invalid":
        message = f"unknown block {first['ctx']['tag']!r}; allowed: {', '.join(KINDS)}"
    elif kind == "union_tag_not_found":
        message = f"a stage needs a 'block': {', '.join(KINDS)}"
    elif kind == "string_pattern_mismatch" and path == "name":
        message = f"letters, digits and _ + . - are allowed, not {given!r}"
    else:
        number = kind in ("int_type", "float_type") and "float" in (
            str(part) for e in error.errors() for part in e["loc"]
        )
        text = "input should be a number" if number else first["msg"].split(" or instance of")[0]
        text = text.replace("tuple", "list").replace("dictionary", "mapping of fields")
        shown = repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:57]}..."
        message = f"{text[0].lower()}{text[1:]}, not {shown}"
        if number and isinstance(given, list | Mapping):
            message += "; alternatives are written {choice: [...]}"
    return f"{path}: {message}" if path else message
