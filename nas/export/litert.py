"""LiteRT: a .tflite of fp32, and one of int8 that is made of it; checked and run by LiteRT's interpreter with XNNPACK.

Both read one image in channels-last order, (1, R, R, C), as pixels lie in memory. The normalisation is the first
operator, a depthwise 1x1 convolution: padding comes after it, as in training, so that no fold into the stem is exact
unless all channels have one mean. The int8 input is then the pixel minus 128, for every network.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.export.check import Normalised, Shipped, compare, granularity, one_line
from nas.extras import muted, require
from nas.files import read_bytes, write_file
from nas.network.fold import fold
from nas.network.litert import ChannelsLast, check_operators, quantise_tflite, to_tflite
from nas.network.tflite_file import pack, read_card
from nas.training.card import Card
from nas.training.weights import restore

MAX_BYTES = 2**31
"""No .tflite is larger: its offsets are signed 32-bit numbers."""

TOLERANCE = 1e-4
_PART = 64
_SENTENCES = ("preprocessing", "input", "normalisation", "output")
"""Entries of the card that the file leaves out: 2.5 kB that are made of the others, or do not hold for int8."""


def check_litert(architecture: Architecture) -> None:
    """Raise UserError unless LiteRT runs the network and what converts it is installed."""
    check_operators(architecture, "give --format onnx")
    require("a .tflite", "litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro", extra="litert")


def to_litert(card: Card, weights: Mapping[str, Tensor], path: Path) -> Shipped:
    """Write a trained network as a .tflite of fp32.

    Input ``images``: float32 (1, R, R, C), values in [0, 1]; output ``logits``: float32 (1, classes). The card is in
    the file's metadata.

    Raises:
        UserError: LiteRT does not run the network, an extra is missing, the weights do not fit, the file cannot be
            written.
        ExportError: LiteRT gives other logits than torch, by more than 1e-4.
    """
    content = litert_bytes(card, weights)
    expected = Normalised(restore(card, weights), card)
    difference = compare(expected, Session(content), card, tolerance=TOLERANCE, form="LiteRT")
    write_file(path, content, new_folder=True)
    return Shipped((path,), difference)


def litert_bytes(card: Card, weights: Mapping[str, Tensor]) -> bytes:
    """Convert a network to a packed .tflite of fp32; see :func:`nas.network.litert.to_tflite`.

    Args:
        card: the network's.
        weights: its state dict.

    Raises:
        UserError: see :func:`to_litert`.
        ExportError: the converter fails.
    """
    check_litert(card.architecture)
    channels, side, _ = card.shape
    network = ChannelsLast(fold(restore(card, weights)), card.mean, card.std).eval()
    with one_line("litert-torch cannot convert this network"):
        model = to_tflite(network, torch.zeros(1, side, side, channels))
    return pack(model, {name: text for name, text in card.to_metadata().items() if name not in _SENTENCES})


def litert_int8_bytes(model: bytes, images: Tensor, *, per_tensor: bool = False) -> bytes:
    """Quantise a .tflite of fp32 that :func:`litert_bytes` made; see :func:`nas.network.litert.quantise_tflite`.

    Args:
        model: the file's bytes.
        images: to calibrate with: uint8 (N, C, R, R), as the network reads them.
        per_tensor: one scale for all of a layer's weights, in place of one per output channel.

    Raises:
        UserError: the extra is missing.
        ExportError: the quantiser fails.
    """
    require("an int8 .tflite", "ai_edge_quantizer", "ai_edge_litert", extra="litert")
    card = read_card(model, "the model")
    parts = ([image[None] for image in _as_read(part)] for part in torch.split(images, _PART))
    with one_line("ai-edge-quantizer cannot quantise this model"):
        result = quantise_tflite(model, parts, per_tensor=per_tensor)
    scales = granularity(per_tensor)
    return pack(result, {**card, "quantisation": f"int8, static, {scales}; {len(images)} training images"})


class Session:
    """A .tflite on LiteRT's CPU engine with XNNPACK: images (N, C, R, R) in [0, 1] -> logits (N, classes).

    An int8 model is given int8 pixels, and its logits are dequantised. `interpreter` is LiteRT's own,
    `input` and `output` its details of these tensors.

    Args:
        model: the file's bytes.
        where: what an error calls it.
        threads: of the engine.

    Raises:
        UserError: ai-edge-litert is missing, or cannot read the model.
    """

    def __init__(self, model: bytes, where: str = "the model", *, threads: int = 1) -> None:
        require("a .tflite", "ai_edge_litert", extra="litert")
        from ai_edge_litert.interpreter import Interpreter

        self.metadata = read_card(model, where)
        try:
            with muted():
                self.interpreter = Interpreter(model_content=model, num_threads=threads)
                self.interpreter.allocate_tensors()
        except Exception as error:  # RuntimeError or ValueError, as it happens
            raise UserError(f"{where}: not a model that LiteRT can run") from error
        self.input, self.output = self.interpreter.get_input_details()[0], self.interpreter.get_output_details()[0]

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate([self.run(image[None]) for image in _as_read(images)]))

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one image, float32 (1, R, R, C) in [0, 1]."""
        scale, zero = self.input["quantization"]
        if scale:
            image = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.input["index"], image)
        self.interpreter.invoke()
        logits = self.interpreter.get_tensor(self.output["index"])
        scale, zero = self.output["quantization"]
        return (logits.astype(np.float32) - zero) * np.float32(scale) if scale else logits


def open_model(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """A .tflite that nas wrote, fp32 or int8, as a function of images, and its card; see :func:`nas.export.onnx`.

    Raises:
        UserError: the extra is missing, the file cannot be read or is none of ours.
    """
    session = Session(read_bytes(path, most=MAX_BYTES), str(path))
    card = Card.from_metadata(session.metadata, str(path))
    shapes = [list(details["shape"]) for details in (session.input, session.output)]
    channels, side, _ = card.shape
    if shapes != [[1, side, side, channels], [1, len(card.classes)]]:
        raise UserError(f"{path}: its input and output {shapes} are not those of its card")
    return session, card


def _as_read(images: Tensor) -> NDArray[np.float32]:
    """Images (N, C, R, R), uint8 or in [0, 1], as a model reads them: float32 (N, R, R, C) in [0, 1]."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    return values.permute(0, 2, 3, 1).contiguous().numpy()
