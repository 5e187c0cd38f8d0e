"""The .tflite file itself: packed small, with the card in it, and read again.

The converter names every tensor after lines of Python, keeps a buffer for each, and repeats equal vectors: a fifth of a
small int8 file. Nothing on a device reads that.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import UserError
from nas.files import parse_json

INPUT, OUTPUT = "images", "logits"
CARD = "nas.card"
"""Name of the metadata entry: JSON of the card's strings."""
ALIGNMENT = 16
"""Of weights in the file, in bytes: what the schema asks for (``force_align``)."""

_MOST_ENTRIES = 100
"""Metadata entries that are looked at: a stranger's file may claim billions."""


def pack(model: bytes, card: Mapping[str, str] | None = None, *, named: bool = False) -> bytes:
    """Write a model again with everything that a runtime reads, and nothing twice.

    Tensors lose their names but for the input's and output's, those without content share the empty buffer 0, equal
    vectors (shapes, zero points, buffers) are written once, ranges of the calibration are left out.

    Args:
        model: a .tflite of one graph with one input and one output.
        card: the metadata entry; None leaves it out, as for a device's flash.
        named: number the tensors, for a reader that needs names.
    """
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = tree.subgraphs
    graph.name = tree.description = None
    ends = {graph.inputs[0]: INPUT, graph.outputs[0]: OUTPUT}
    buffers = _Buffers(model, tree.buffers)
    for index, tensor in enumerate(graph.tensors):
        tensor.name = ends.get(index, str(index) if named else None)
        tensor.buffer = buffers.place(tensor.buffer)
        tensor.shapeSignature = None
        quantization = tensor.quantization
        if quantization is not None:
            quantization.min = quantization.max = None
            if quantization.scale is None:
                tensor.quantization = None
    for operator in graph.operators:
        operator.debugMetadataIndex = -1
    inputs, outputs = (schema.TensorMapT(name, index) for index, name in ends.items())
    tree.signatureDefs = [schema.SignatureDefT([inputs], [outputs], "serving_default", 0)]
    tree.metadataBuffer, tree.metadata = None, None
    if card is not None:
        content = json.dumps(dict(card), ensure_ascii=False, separators=(",", ":")).encode()
        tree.metadata = [schema.MetadataT(CARD, buffers.add(np.frombuffer(content, np.uint8)))]
    tree.buffers = [schema.BufferT(content) for content in buffers.kept]
    return _packed(tree)


def read_card(model: bytes, where: str) -> dict[str, str]:
    """Read the strings that :func:`pack` kept.

    Raises:
        UserError: the file is no .tflite, or one of another program.
    """
    from ai_edge_litert import schema_py_generated as schema

    foreign = UserError(f"{where}: not exported by nas (it says neither classes nor mean nor std)")
    if model[4:8] != b"TFL3":
        raise UserError(f"{where}: not a .tflite model")
    try:
        tree = schema.Model.GetRootAs(model, 0)
        entries = [tree.Metadata(index) for index in range(min(tree.MetadataLength(), _MOST_ENTRIES))]
        numbers = [entry.Buffer() for entry in entries if entry.Name() == CARD.encode()]
        content = tree.Buffers(numbers[0]).DataAsNumpy().tobytes().decode() if numbers else ""
    except Exception as error:  # offsets of a damaged file lead anywhere
        raise UserError(f"{where}: damaged, or not a .tflite model") from error
    if not content:
        raise foreign
    strings = parse_json(content, where)
    if not isinstance(strings, dict) or not all(isinstance(value, str) for value in strings.values()):
        raise foreign
    return strings


def operators(model: bytes) -> list[str]:
    """Name the operators of a model as the schema does (``CONV_2D``), each once, in the order of the file."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    tree = schema.Model.GetRootAs(model, 0)
    codes = [tree.OperatorCodes(index) for index in range(tree.OperatorCodesLength())]
    return [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]


def largest_buffer(model: bytes) -> int:
    """Return the bytes of a packed model's largest constant."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.Model.GetRootAs(model, 0)
    return max(tree.Buffers(index).DataLength() for index in range(tree.BuffersLength()))


def paddings(model: bytes) -> list[tuple[str, str]]:
    """Name the tensors before and after each padding with a value (``PADV2``), of a model whose tensors have names."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    codes = [code.builtinCode for code in tree.operatorCodes]
    (graph,) = tree.subgraphs
    return [
        (graph.tensors[operator.inputs[0]].name.decode(), graph.tensors[operator.outputs[0]].name.decode())
        for operator in graph.operators
        if codes[operator.opcodeIndex] == schema.BuiltinOperator.PADV2
    ]


def relu6_as_relu(model: bytes) -> bytes:
    """Write the nodes that are a ReLU6 and nothing else as ReLU, which quantisers know.

    In int8 that is the same function where the output's range ends at 6: what is larger saturates. Elsewhere it is not.
    """
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    builtin = schema.BuiltinOperator
    for code in tree.operatorCodes:
        if code.builtinCode == builtin.RELU6:
            code.builtinCode = code.deprecatedBuiltinCode = builtin.RELU
    return _packed(tree)


class _Buffers:
    """Contents of a model's buffers, each once; number 0 is the empty one."""

    def __init__(self, model: bytes, buffers: list[Any]) -> None:
        self._model, self._buffers = model, buffers
        self.kept: list[NDArray[np.uint8] | None] = [None]
        self._numbers: dict[bytes, int] = {}

    def place(self, number: int) -> int:
        """Keep one of the model's buffers and return its new number."""
        buffer = self._buffers[number]
        content = buffer.data
        if buffer.offset > 1:  # large ones lie behind the tables
            content = np.frombuffer(self._model, np.uint8, buffer.size, buffer.offset)
        return 0 if content is None or len(content) == 0 else self.add(content)

    def add(self, content: NDArray[np.uint8]) -> int:
        """Keep a content and return its number."""
        key = content.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self.kept)
            self.kept.append(content)
        return self._numbers[key]


def _packed(tree: Any) -> bytes:
    """Serialise a model with equal vectors written once, and weights aligned."""
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        """Writes equal vectors once, and weights at multiples of what the schema asks for."""

        places: dict[tuple[str, bytes], int]

        def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - the library's name
            key = x.dtype.str, x.tobytes()
            if key not in self.places:
                if x.dtype == np.uint8:
                    self.Prep(ALIGNMENT, x.nbytes)
                self.places[key] = super().CreateNumpyVector(x)
            return self.places[key]

    builder = Builder(1024)
    builder.places = {}
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
