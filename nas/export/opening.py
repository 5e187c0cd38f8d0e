"""An exported model of any form that carries its card, by its file's ending."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from nas.export import litert, onnx
from nas.training.card import Card

ENDINGS = (".onnx", ".tflite")


def open_exported(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """A model that `nas export` wrote: images (N, C, R, R) in [0, 1] -> logits (N, classes), and its card.

    Raises:
        UserError: its extra is missing, the file cannot be read or is none of ours.
    """
    return litert.open_model(path) if path.suffix == ".tflite" else onnx.open_model(path)
