"""Facts of a data set before anything is trained on it, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from nas.errors import damaged
from nas.training.data import PARTS, Dataset
from nas.training.likeness import pixel_hash
from nas.training.pictures import PICTURE

_Count = Annotated[int, Field(ge=0, le=2**53)]

UNEVEN = 3.0
"""From this ratio of the largest to the smallest class on, plain accuracy hides how the small ones fare."""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set as it was read and divided.

    Args:
        dataset: as loaded, not yet in a network's format.

    Returns:
        Plain values: ``classes`` with their images by part; ``imbalance``, the largest class's training images over
        the smallest's; ``absent``, classes without an image by part; widths, heights and width / height of the files
        as (least, median, most); ``copies``, images that equal an earlier one; of a folder also formats, what was
        skipped with the reasons, and ``notes``, what is odd about it.
    """
    parts = {name: dataset.part(name) for name in PARTS}
    classes = dataset.classes
    counts = {name: torch.bincount(part.labels, minlength=len(classes)).tolist() for name, part in parts.items()}
    train = counts["train"]
    facts = dataset.facts
    document: dict[str, Any] = {
        "dataset": dataset.name,
        "channels": dataset.channels,
        "resolution": dataset.resolution,
        "fit": dataset.fit,
        "mirrored": dataset.flip_safe,
        "images": {name: len(part) for name, part in parts.items()},
        "classes": [
            {"name": label, **{name: counts[name][index] for name in PARTS}} for index, label in enumerate(classes)
        ],
        "imbalance": max(train) / max(1, min(train)),
        "absent": {
            name: [label for label, count in zip(classes, counts[name], strict=True) if not count]
            for name in ("validation", "test")
        },
        "notes": [] if facts is None else list(facts.notes),
    }
    if facts is None:
        size = np.zeros(2, dtype=np.int32)  # all have the same
        hashes = [pixel_hash(image, size) for part in parts.values() for image in part.images[:].numpy()]
        return document | {"copies": len(hashes) - len(set(hashes))}
    files = np.concatenate([part.files for part in parts.values() if part.files is not None])
    ratios = files["width"] / np.maximum(files["height"], 1)
    return document | {
        "width": _spread(files["width"]),
        "height": _spread(files["height"]),
        "aspect_ratio": _spread(ratios),
        "no_squares": int((files["width"] != files["height"]).sum()),
        "enlarged": int((np.minimum(files["width"], files["height"]) < dataset.resolution).sum()),
        "formats": dict(Counter(files["format"].tolist()).most_common()),
        "read": dict(facts.read.most_common()),
        "skipped": [
            {"ending": ending, "reason": reason, "files": count}
            for (ending, reason), count in facts.skipped.most_common()
        ],
        "unread": list(facts.unread),
        "copies": facts.copies,
        "near_copies": [list(pair) for pair in facts.near],
        "mirrored_classes": None if facts.mirrored is None else list(facts.mirrored),
        "white": facts.white,
    }


def fact_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Put what :func:`describe` gave into words, but for the classes and the notes: a title and a text each."""
    images, absent = document["images"], document["absent"]
    train = sorted(document["classes"], key=lambda item: int(item["train"]))
    per_class = f"{train[0]['train']:,} training images each"
    if train[0]["train"] < train[-1]["train"]:
        least, most = (f"{item['train']:,} ({item['name']})" for item in (train[0], train[-1]))
        per_class = f"of {least} to {most} training images"
    kind = {1: "gray", 3: "colour"}.get(document["channels"], f"{document['channels']} channels")
    read = f"{document['resolution']} x {document['resolution']} pixels, {kind}"
    rows = [
        ("Images", ", ".join(f"{count:,} {name}" for name, count in images.items())),
        ("Classes", f"{len(train):,}, {per_class}"),
    ]
    if document["imbalance"] >= UNEVEN:
        uneven = f"{document['imbalance']:.3g} times as many images of the largest class as of the smallest"
        rows.append(("Uneven", f"{uneven}: accuracy says little of the small ones, see their recall"))
    rows += [(f"No {name} image of", ", ".join(absent[name])) for name in absent if absent[name]]
    copies = f"{document['copies']:,}"
    if "formats" not in document:
        return [*rows, ("Read as", read), ("Copies", copies)]
    width, height, ratio = (
        f"{least:g} to {largest:g} (median {median:g})" if least < largest else f"{median:g}"
        for least, median, largest in (document[key] for key in ("width", "height", "aspect_ratio"))
    )
    no_squares = document["no_squares"] / sum(images.values())
    enlarged = f"; {document['enlarged']:,} smaller images are enlarged" if document["enlarged"] else ""
    skipped = ", ".join(f"{item['files']:,} {item['ending']} ({item['reason']})" for item in document["skipped"])
    return [
        *rows,
        ("Width, height", f"{width}, {height} pixels"),
        ("Width / height", f"{ratio}; {100 * no_squares:.0f} % are not square"),
        ("Read as", f"{read}, fit {document['fit']}{enlarged}"),
        ("Formats", ", ".join(f"{count:,} {name}" for name, count in document["formats"].items())),
        ("Files read", ", ".join(f"{count:,} {ending}" for ending, count in document["read"].items())),
        ("Files skipped", skipped or "none"),
        *(("Not read", line) for line in document["unread"]),
        ("Copies", copies),
        ("Almost copies", f"{len(document['near_copies']):,}"),
    ]


class _ClassRow(TypedDict):
    name: str
    train: _Count
    validation: _Count
    test: _Count
    picture: Annotated[str, Field(pattern=PICTURE)]


@with_config(ConfigDict(strict=True, extra="forbid"))
class Summary(TypedDict):
    """A data set as a page shows it: facts in words, classes with pictures, what is odd, and the number of classes."""

    rows: list[tuple[str, str]]
    classes: list[_ClassRow]
    notes: list[str]
    all_classes: _Count


def summarise(document: Mapping[str, Any], pictures: Mapping[str, str]) -> Summary:
    """Put what :func:`describe` gave, and pictures by class, together; classes without a picture are left out."""
    classes: list[_ClassRow] = [
        {
            "name": item["name"],
            "train": item["train"],
            "validation": item["validation"],
            "test": item["test"],
            "picture": pictures[item["name"]],
        }
        for item in document["classes"]
        if item["name"] in pictures
    ]
    notes, count = document["notes"], len(document["classes"])
    return {"rows": fact_rows(document), "classes": classes, "notes": notes, "all_classes": count}


def read_summary(text: str, where: str) -> Summary:
    """A summary from JSON.

    Raises:
        UserError: it is damaged.
    """
    try:
        return TypeAdapter(Summary).validate_json(text)
    except ValidationError as error:
        raise damaged(where, error) from error


def _spread(values: Any) -> list[float]:
    return [round(float(value), 3) for value in (values.min(), np.median(values), values.max())]
