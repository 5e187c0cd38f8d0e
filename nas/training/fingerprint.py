"""Identity of a folder's images: kept with what was trained on them, and compared when that is used again."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nas.errors import UserError, damaged
from nas.training.images import Images, mixed, name_hashes

_Hashes = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class _Fields(TypedDict):
    """A fingerprint as a file has to hold it."""

    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    classes: dict[str, Annotated[int, Field(ge=0)]]
    digest: Annotated[int, Field(ge=0)]
    files: NotRequired[dict[str, _Hashes]]


_FIELDS = TypeAdapter(_Fields)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Identity of a folder's images.

    classes  number of images by class
    digest   of names and sizes of all files
    files    32 bits of each file's name and size, uint32, sorted, by part; empty in a shipped model, where it would
             weigh more than the weights
    """

    classes: Mapping[str, int]
    digest: int
    files: Mapping[str, NDArray[np.uint32]]

    def to_dict(self, *, short: bool = False) -> dict[str, Any]:
        """Plain values; `short`: without the files."""
        files = {part: base64.b64encode(values.astype("<u4").tobytes()).decode() for part, values in self.files.items()}
        return {
            "classes": dict(self.classes),
            "digest": self.digest,
            **({} if short or not files else {"files": files}),
        }


def fingerprint(classes: tuple[str, ...], parts: Mapping[str, Images]) -> Fingerprint | None:
    """The fingerprint of a data set; None where its images are not files of the user's."""
    files: dict[str, NDArray[np.uint32]] = {}
    counts = np.zeros(len(classes), dtype=np.int64)
    for part, images in parts.items():
        if images.files is None:
            return None
        hashes = mixed(name_hashes(images.files) ^ mixed(images.files["bytes"]))
        files[part] = np.sort((hashes >> np.uint64(32)).astype(np.uint32))
        counts += np.bincount(images.labels.cpu().numpy(), minlength=len(classes))
    everything = np.sort(np.concatenate(list(files.values()))).astype(np.uint64)
    digest = int(mixed(everything + mixed(np.arange(len(everything)))).sum(dtype=np.uint64) >> np.uint64(1))
    return Fingerprint(dict(zip(classes, counts.tolist(), strict=True)), digest, files)


def read_fingerprint(value: Any, where: str) -> Fingerprint | None:
    """A fingerprint from plain values; None where there is none, as in files of earlier versions.

    Raises:
        UserError: it is damaged.
    """
    if value is None:
        return None
    try:
        fields = _FIELDS.validate_python(value)
        files = {
            part: np.frombuffer(base64.b64decode(text, validate=True), dtype="<u4")
            for part, text in fields.get("files", {}).items()
        }
    except ValidationError as error:
        raise damaged(where, error) from error
    except ValueError as error:
        raise UserError(f"{where}: damaged: the list of its files") from error
    return Fingerprint(fields["classes"], fields["digest"], files)


def compare(then: Fingerprint | None, now: Fingerprint | None) -> str:
    """Say in one line what changed of a data set; empty where nothing did, or one of the two is not known."""
    if then is None or now is None or then.digest == now.digest:
        return ""
    if not then.files or not now.files:
        return f"the images changed since: {sum(then.classes.values()):,} then, {sum(now.classes.values()):,} now"
    old, new = (np.concatenate(list(each.files.values())) for each in (then, now))
    added, gone = len(np.setdiff1d(new, old)), len(np.setdiff1d(old, new))
    if added == len(np.unique(new)):
        return f"these are {len(new):,} other images than the {len(old):,} of then"
    line = f"the images changed since: {added:,} added, {gone:,} gone"
    empty = np.empty(0, np.uint32)
    seen = [
        f"{len(again):,} of the {len(now.files[part]):,} {part} images were training images"
        for part in ("validation", "test")
        if len(again := np.intersect1d(now.files.get(part, empty), then.files.get("train", empty)))
    ]
    return "; ".join([line, *seen])


def is_another(then: Fingerprint | None, now: Fingerprint | None) -> bool:
    """Return whether most images of the earlier data set are not in the present one."""
    if then is None or now is None or then.digest == now.digest or not then.files or not now.files:
        return False
    old, new = (np.unique(np.concatenate(list(each.files.values()))) for each in (then, now))
    return 2 * len(np.intersect1d(old, new)) < len(old)
