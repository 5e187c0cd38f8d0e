"""Judgement of a network class by class: recall, precision, confusions, and its surest mistakes; plain values."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor
from typing_extensions import TypedDict

from nas.errors import UserError, damaged
from nas.training.evaluate import Scores
from nas.training.images import Images
from nas.training.pictures import PICTURE, picture

MISTAKES = 12

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Share = Annotated[float, Field(ge=0, le=1)]


class ClassFigures(TypedDict):
    """Recall: of the class's images, the share that is given to it; precision: of the images that are given to it, the
    share that is of it. None where there are no such images.
    """

    name: str
    images: _Count
    recall: _Share | None
    precision: _Share | None


class Mistake(TypedDict):
    """An image that is given to the wrong class, and the probability that the network gives that class.

    `index` counts the part's images; `image` is the file's name within the part, or that number as text; `picture`,
    where one was asked for, is a data URI.
    """

    index: _Count
    image: str
    actual: str
    predicted: str
    probability: _Share
    picture: NotRequired[Annotated[str, Field(pattern=PICTURE)]]


@with_config(ConfigDict(strict=True, extra="forbid"))
class Judgement(TypedDict):
    """A network's judgement of one part. `confusion`: counts, a row per class, a column per predicted class."""

    accuracy: _Share
    balanced_accuracy: _Share
    images: _Count
    classes: list[ClassFigures]
    confusion: list[list[_Count]]
    mistakes: list[Mistake]


_JUDGEMENT = TypeAdapter(Judgement)


def judge(images: Images, scores: Scores, classes: tuple[str, ...]) -> Judgement:
    """Count a network's judgement of a part class by class.

    Args:
        images: the part.
        scores: of the network on it.
        classes: their names.
    """
    table = confusion(images.labels.cpu(), scores.predicted, len(classes))
    right, actual, given = table.diagonal(), table.sum(1), table.sum(0)
    recalls, precisions = _shares(right, actual), _shares(right, given)
    wrong = (~scores.hits).nonzero()[:, 0]
    surest = wrong[scores.probabilities[wrong].argsort(descending=True, stable=True)[:MISTAKES]]
    mistakes: list[Mistake] = [
        {
            "index": index,
            "image": str(index) if images.files is None else str(images.files["name"][index]),
            "actual": classes[int(images.labels[index])],
            "predicted": classes[int(scores.predicted[index])],
            "probability": round(float(scores.probabilities[index]), 4),
        }
        for index in surest.tolist()
    ]
    return {
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "images": len(images),
        "classes": [
            {"name": name, "images": int(count), "recall": recall, "precision": precision}
            for name, count, recall, precision in zip(classes, actual, recalls, precisions, strict=True)
        ],
        "confusion": table.tolist(),
        "mistakes": mistakes,
    }


def with_pictures(judgement: Judgement, images: Images) -> Judgement:
    """The judgement of a part with pictures of its mistakes."""
    mistakes: list[Mistake] = [
        {**item, "picture": picture(images.images[item["index"] : item["index"] + 1])} for item in judgement["mistakes"]
    ]
    return {**judgement, "mistakes": mistakes}


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> NDArray[np.int64]:
    """Count images by class (rows) and predicted class (columns)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).numpy()


def worst_confusions(judgement: Judgement, most: int) -> list[tuple[str, str, int, float]]:
    """The commonest confusions: class, class that it is taken for, number of images, their share of the class's."""
    names = [item["name"] for item in judgement["classes"]]
    pairs = [
        (names[row], names[column], count, count / sum(counts))
        for row, counts in enumerate(judgement["confusion"])
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def read_judgement(text: str, where: str) -> Judgement:
    """A judgement from JSON.

    Raises:
        UserError: it is damaged.
    """
    try:
        judgement = _JUDGEMENT.validate_json(text)
    except ValidationError as error:
        raise damaged(where, error) from error
    classes = len(judgement["classes"])
    if [len(row) for row in judgement["confusion"]] != [classes] * classes:
        raise UserError(f"{where}: damaged: confusion: {classes} rows and columns are needed")
    return judgement


def _shares(part: NDArray[Any], whole: NDArray[Any]) -> list[float | None]:
    return [float(one / all_) if all_ else None for one, all_ in zip(part, whole, strict=True)]


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights with which every class weighs as much in the loss as any other, on average 1 over the images.

    As scikit-learn's ``class_weight="balanced"``: images / (classes * images of the class); float32 (classes,).
    """
    counts = torch.bincount(labels.cpu(), minlength=classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0).float()
