"""A trained network as its target runs it: the file, what that takes there, and how it judges images.

Searches, `nas train`, `nas evaluate` and `nas export` make the file of the same checkpoint, training images and target
alike, so that its bytes and accuracies agree whoever asks.

A conversion takes seconds of a core; LiteRT's begins with 8 s in each process, for the import of litert-torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.errors import UserError
from nas.export import litert, onnx
from nas.export.check import Quantised
from nas.export.micro import arena
from nas.files import read_bytes, write_file
from nas.network.tflite_file import pack
from nas.targets import Target
from nas.training.card import Card
from nas.training.checkpoint import Checkpoint
from nas.training.data import Dataset, PartName
from nas.training.evaluate import Scores, evaluate_forward
from nas.training.split import calibration_part
from nas.training.weights import card

_BATCH = 64
ENDINGS = (".onnx", ".tflite")
"""Of the models that carry their card."""


@dataclass(frozen=True)
class Shipment:
    """The model that is shipped on a target.

    Attributes:
        target: where it runs.
        content: of the file that `nas export` writes; of ``tflite-micro`` the .tflite with its card.
        run: images (N, C, R, R) in [0, 1] -> logits (N, classes), by the target's runtime on one thread of the CPU.
    """

    target: Target
    content: bytes
    run: Callable[[Tensor], Tensor]

    @property
    def file_bytes(self) -> int:
        """Bytes of the file; on ``tflite-micro`` of the array in flash."""
        return len(self._flash) if self.target.form == "tflite-micro" else len(self.content)

    @property
    def ending(self) -> str:
        """Of the name of a file with `content`."""
        return "-int8.tflite" if self.target.form == "tflite-micro" else self.target.ending

    def memory_bytes(self) -> int | None:
        """Measure the arena of ``tflite-micro``; None on other targets, whose runtimes do not tell what they take.

        Raises:
            ExportError: TensorFlow Lite Micro does not run the model.
        """
        return arena(self._flash).total if self.target.form == "tflite-micro" else None

    def judge(self, data: Dataset, part: PartName) -> Scores:
        """Let the model judge a part of a data set in its format."""
        return judge_images(self.run, data, part)

    @property
    def _flash(self) -> bytes:
        return pack(self.content)


def ship(target: Target, checkpoint: Checkpoint, data: Dataset, where: str = "the checkpoint") -> Shipment:
    """Make the file of a trained network; int8 is calibrated on training images of every class.

    Args:
        target: any that `nas export` has a format for.
        checkpoint: of a training or a search.
        data: what the network was trained on, in its format.
        where: what an error calls the checkpoint.

    Raises:
        UserError: the target does not run the network, an extra is missing, or the checkpoint is damaged.
        ExportError: a library cannot convert or quantise it.
    """
    description = card(checkpoint, where)
    if target.form is None:
        raise UserError(f"target {target.name} ships the training's own file; there is nothing to convert")
    target.check([description.architecture])
    target.require()
    of_tflite = target.form != "onnx"
    content = (litert.litert_bytes if of_tflite else onnx.onnx_bytes)(description, checkpoint.weights)
    if target.int8:
        to_int8 = litert.litert_int8_bytes if of_tflite else onnx.onnx_int8_bytes
        content = to_int8(content, calibration_images(data), per_tensor=target.per_tensor)
    session: Any = litert.Session if of_tflite else onnx.Session
    return Shipment(target, content, session(content, where, threads=1))


def quantise(model: Path, path: Path, images: Tensor, *, per_tensor: bool = False) -> Quantised:
    """Quantise an ONNX model or a .tflite of fp32 that `nas` wrote.

    Args:
        model: the float model.
        path: the int8 model's file, whose ending says what both are; replaced where it exists.
        images: to calibrate with, as :func:`calibration_images` chooses them.
        per_tensor: one scale for all of a layer's weights, in place of one per output channel.

    Raises:
        UserError: a library is missing, or a file cannot be read or written.
        ExportError: the library cannot quantise the model.
    """
    before = read_bytes(model, most=litert.MAX_BYTES)
    to_int8 = litert.litert_int8_bytes if path.suffix == ".tflite" else onnx.onnx_int8_bytes
    content = to_int8(before, images, per_tensor=per_tensor)
    write_file(path, content, new_folder=True)
    return Quantised(path, len(content), len(before), len(images))


def open_exported(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """Open a model that `nas export` wrote: images (N, C, R, R) in [0, 1] -> logits (N, classes), and its card.

    Raises:
        UserError: its extra is missing, the file cannot be read or is none of ours.
    """
    return litert.open_model(path) if path.suffix == ".tflite" else onnx.open_model(path)


def calibration_images(data: Dataset) -> Tensor:
    """Choose the training images that ranges of int8 are taken from, the classes in their proportions.

    Returns:
        uint8 (N, C, R, R) on the CPU, at most 512. Whatever is judged later has played no part.
    """
    return data.train.images[calibration_part(data.train.labels)].cpu()


def judge_images(run: Callable[[Tensor], Tensor], data: Dataset, part: PartName) -> Scores:
    """Let a model, images (N, C, R, R) in [0, 1] -> logits on the CPU, judge a part of a data set."""
    return evaluate_forward(run, data, part, batch=_BATCH, prepare=lambda images: images.cpu().float() / 255)
