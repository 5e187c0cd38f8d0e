"""The metadata that a shipped model carries in its own file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nas.architecture.document import Architecture
from nas.errors import UserError, first_mistake
from nas.files import parse_json
from nas.preprocessing import Fit, Preprocessing
from nas.training.fingerprint import Fingerprint, read_fingerprint
from nas.training.folder import SplitBy

_VERSION = "1"
_FORM = "float32 (batch, {channels}, {resolution}, {resolution}), {colours} in [0, 1], neither mean nor std applied"


class SplitFields(TypedDict):
    """Fields of a training and validation split, as a file has to hold them."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]

    seed: Annotated[int, Field(ge=0)]
    validation_fraction: Annotated[float, Field(ge=0, lt=1)]
    train_size: Annotated[int, Field(ge=1)] | None
    by: NotRequired[SplitBy]


_SPLIT = TypeAdapter(SplitFields)


@dataclass(frozen=True)
class Card:
    """The metadata that using a trained network takes.

    `classes`: one name per logit. `mean`, `std`: per channel, of values in [0, 1]; the shipped forms apply them
    themselves. `decoded_at`: the side in pixels at which the training data lay before they were resized to the
    network's resolution; None where it is that resolution. `fit`, `white`: of :class:`Preprocessing`.
    `dataset`: the name of what it was trained on, empty where that is a folder of the user's; `split`: how it was
    divided; `data`: the identity of a folder's images, None where it is not known.

    Raises `UserError` where mean or std do not fit the architecture's channels.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoded_at: int | None = None
    fit: Fit = "crop"
    white: float | None = None
    dataset: str = ""
    split: Mapping[str, Any] | None = None
    data: Fingerprint | None = None

    def __post_init__(self) -> None:
        channels = self.architecture.input.channels
        numbers = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not len(self.mean) == len(self.std) == channels or not numbers or min(self.std) <= 0:
            raise UserError(f"{self.architecture.name}: mean and std need {channels} values each, std above 0")
        if not self.classes:
            raise UserError(f"{self.architecture.name}: no class names")
        try:
            _ = self.preprocessing
        except UserError as error:
            raise error.at(self.architecture.name) from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, resolution, resolution) of one image."""
        image = self.architecture.input
        return image.channels, image.resolution, image.resolution

    @property
    def preprocessing(self) -> Preprocessing:
        """The steps from an image file to the network's input."""
        channels, resolution, _ = self.shape
        first = self.decoded_at or resolution
        sides = (resolution,) if first == resolution else (first, resolution)
        return Preprocessing(channels, sides, self.fit, self.white)

    def to_metadata(self) -> dict[str, str]:
        """Strings, as ONNX and safetensors keep them. What is not a plain string is JSON."""
        channels, resolution, _ = self.shape
        colours = {1: "gray", 3: "RGB"}.get(channels, "values")
        return {
            "nas.version": _VERSION,
            "name": self.architecture.name,
            "id": self.architecture.id,
            "architecture": json.dumps(self.architecture.to_dict()),
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "channels": str(channels),
            "resolution": str(resolution),
            "decoded_at": str(self.decoded_at or resolution),
            "fit": self.fit,
            "white": json.dumps(self.white),
            "preprocessing": self.preprocessing.text(),
            "dataset": self.dataset,
            "split": json.dumps(self.split),
            "data": json.dumps(self.data.to_dict(short=True) if self.data else None, ensure_ascii=False),
            "input": _FORM.format(channels=channels, resolution=resolution, colours=colours),
            "normalisation": "inside: the model subtracts mean and divides by std",
            "output": f"float32 (batch, {len(self.classes)}), logits; softmax gives the classes' probabilities",
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> "Card":
        """The card of a file that `to_metadata` was written into.

        Raises:
            UserError: the file `where` is not one of ours, is of a newer version, or its card is damaged.
        """
        if "nas.version" not in metadata:
            raise UserError(f"{where}: not exported by nas (it says neither classes nor mean nor std)")
        if metadata["nas.version"] != _VERSION:
            raise UserError(f"{where}: version {metadata['nas.version']}, this nas reads version {_VERSION}")
        try:
            read: dict[str, Any] = {
                key: parse_json(metadata[key], f"{where}: {key}") for key in ("architecture", "classes", "mean", "std")
            }
            return cls(
                architecture=Architecture.from_dict(read["architecture"], where),
                classes=tuple(str(name) for name in read["classes"]),
                mean=tuple(float(value) for value in read["mean"]),
                std=tuple(float(value) for value in read["std"]),
                decoded_at=int(metadata["decoded_at"]),
                fit=stated_fit(metadata),
                white=parse_json(metadata.get("white", "null"), f"{where}: white"),
                dataset=metadata.get("dataset", ""),
                split=check_split(parse_json(metadata.get("split", "null"), f"{where}: split")),
                data=read_fingerprint(parse_json(metadata.get("data", "null"), f"{where}: data"), f"{where}: data"),
            )
        except UserError as error:
            raise error.at(where) from error
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{where}: its metadata are damaged ({type(error).__name__}: {error})") from error


def stated_fit(fields: Mapping[str, Any]) -> Fit:
    """Return how images became squares as a file says it; earlier versions called it crop, or were silent."""
    crop = fields.get("crop", "box")
    return cast(Fit, fields.get("fit", "crop" if crop == "pixels" else crop))  # checked by Preprocessing


def check_split(value: Any) -> Mapping[str, Any] | None:
    """Check the split that a file of somebody else states, and return it; raises `UserError` naming the field."""
    try:
        return None if value is None else dict(_SPLIT.validate_python(value))
    except ValidationError as error:
        raise UserError("split: {}: {}".format(*first_mistake(error))) from error
