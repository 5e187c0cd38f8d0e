"""ONNX of fp32 and int8: norms and pyramids folded, any batch size, normalisation inside; run by ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.errors import UserError, first_line
from nas.export.check import Normalised, Shipped, compare, granularity, one_line
from nas.extras import quietly, require
from nas.files import read_bytes, write_file
from nas.network.fold import fold
from nas.network.onnx_int8 import quantise_onnx
from nas.training.card import Card
from nas.training.weights import restore

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""Read by ONNX Runtime from 1.14 (2023) on; nothing of ours needs a newer one."""

MAX_BYTES = 2**31
"""No ONNX file is larger, since no protocol buffer is."""

TOLERANCE = 1e-4
INPUT, OUTPUT, BATCH = "images", "logits", "batch"
_PART = 64


def to_onnx(card: Card, weights: Mapping[str, Tensor], path: Path) -> Shipped:
    """Write a trained network as ONNX.

    Input ``images``: float32 (batch, C, R, R), values in [0, 1]; output ``logits``: float32 (batch, classes). The card
    is in the model's metadata.

    Args:
        card: the network's.
        weights: its state dict.
        path: the file; replaced where it exists.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing, the weights do not fit, the file cannot be written.
        ExportError: ONNX Runtime gives other logits than torch, by more than 1e-4.
    """
    content = onnx_bytes(card, weights)
    expected = Normalised(restore(card, weights), card)
    difference = compare(expected, Session(content), card, tolerance=TOLERANCE, form="ONNX Runtime")
    write_file(path, content, new_folder=True)
    return Shipped((path,), difference)


def onnx_bytes(card: Card, weights: Mapping[str, Tensor]) -> bytes:
    """Convert a network to an ONNX file; see :func:`to_onnx`.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing, or the weights do not fit.
        ExportError: the exporter fails.
    """
    require("--format onnx", "onnx", "onnxscript", "onnxruntime")
    content: bytes = _convert(Normalised(fold(restore(card, weights)), card), card).SerializeToString()
    return content


def onnx_int8_bytes(model: bytes, images: Tensor, *, per_tensor: bool = False) -> bytes:
    """Quantise an ONNX file of fp32 that :func:`onnx_bytes` made; see :func:`nas.network.onnx_int8.quantise_onnx`.

    Args:
        model: the file's bytes.
        images: to calibrate with: uint8 (N, C, R, R), as the network reads them.
        per_tensor: one scale for all of a layer's weights, in place of one per output channel.

    Raises:
        UserError: onnx or onnxruntime is missing.
        ExportError: ONNX Runtime cannot quantise the model.
    """
    require("int8", "onnx", "onnxruntime")
    batches = ((part.float() / 255).numpy() for part in torch.split(images, _PART))
    scales = granularity(per_tensor)
    origin = {"quantisation": f"int8, static, {scales}; ranges from {len(images)} training images"}
    with one_line("ONNX Runtime cannot quantise this model"):
        return quantise_onnx(model, batches, origin, per_tensor=per_tensor)


class Session:
    """A model on ONNX Runtime's CPU engine, as a function of tensors: images (N, C, R, R) -> logits (N, classes).

    Args:
        content: the file's bytes.
        where: what an error calls it.
        threads: of the engine; 0: one per core.

    Raises:
        UserError: onnxruntime is missing, or cannot read the model.
    """

    def __init__(self, content: bytes, where: str = "the model", *, threads: int = 0) -> None:
        require("an ONNX model", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self._input = self._session.get_inputs()[0].name
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # onnxruntime's errors have no common base of their own
            raise UserError(f"{where}: not a model that ONNX Runtime can read") from error
        self._where = where

    def __call__(self, images: Tensor) -> Tensor:
        """Run it.

        Raises:
            UserError: it cannot be run on these images.
        """
        try:
            return torch.from_numpy(self._session.run(None, {self._input: images.numpy()})[0])
        except Exception as error:
            raise UserError(f"{self._where}: cannot be run: {first_line(error)}") from error


def open_model(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """A model that `to_onnx` or `quantise` wrote: images (N, C, R, R) in [0, 1] -> logits (N, classes), and its card.

    Raises:
        UserError: onnxruntime is missing, the file cannot be read or is none of ours. The function raises it where the
            model cannot be run, or gives something else than a logit for each class.
    """
    session = Session(read_bytes(path, most=MAX_BYTES), str(path))
    card = Card.from_metadata(session.metadata, str(path))

    def run(images: Tensor) -> Tensor:
        logits = session(images)
        if logits.shape != (len(images), len(card.classes)):
            raise UserError(f"{path}: its output {tuple(logits.shape)} is not one logit for each of its classes")
        return logits

    return run, card


def _convert(network: nn.Module, card: Card) -> "ModelProto":
    import onnx

    example = torch.zeros(2, *card.shape)  # a batch of 1 would be taken for a constant
    with one_line("torch cannot export this network to ONNX"), quietly():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origins(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    model.producer_name = "nas"
    onnx.helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    return model


def _forget_origins(model: "ModelProto") -> None:
    """Drop what torch notes beside every node: stack traces with this machine's paths, more bytes than the weights."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:]  # names symbols that no longer exist; a reader infers the shapes again
