"""The network as nas export writes it: as ONNX on ONNX Runtime, as a .tflite on LiteRT with XNNPACK; both extras."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError, first_line
from nas.extras import muted, require
from nas.latency.engine import Engine, Run, split
from nas.network.litert import ChannelsLast, check_operators, quantise_tflite, to_tflite
from nas.network.onnx_int8 import quantise_onnx
from nas.network.tflite_file import pack

_PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert")
_MEAN, _STD = 0.5, 0.25
"""Of a normalisation like the one in the file that ships; its values cost no time."""


class FileEngine(Engine):
    """Runs a file of a network.

    Args:
        name: of the engine. With ``-int8`` it runs the quantised network, whose ranges are those of noise: no time
            depends on them; with ``:per-tensor`` all of a layer's weights have one scale.
    """

    def __init__(self, name: str) -> None:
        self._name, self._int8, self._per_tensor = name, "-int8" in name, name.endswith(":per-tensor")


class OnnxRuntimeEngine(FileEngine):
    """ONNX Runtime on the CPU, or on a card where onnxruntime-gpu is installed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.splits = not self._int8  # quantising each would take seconds a network

    def check(self, device: str) -> None:
        require(f"engine {self._name}", "onnx", "onnxruntime")  # the exporter needs onnx
        import onnxruntime

        if device != "cpu" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(f"engine {self._name}: no CUDA provider here; install onnxruntime-gpu or use --device cpu")

    def versions(self) -> list[str]:
        import onnxruntime

        return [f"onnxruntime {onnxruntime.__version__}"]

    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        array = images.cpu().numpy()
        model = to_onnx_int8(network, images, self._per_tensor) if self._int8 else to_onnx(network, images)
        return [self._session(model, images, threads)], array

    def load_segments(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        steps, tensor = [], images
        for segment in split(network):
            steps.append(self._session(to_onnx(segment, tensor), images, threads))
            tensor = segment(tensor)
        return steps, images.cpu().numpy()

    def _session(self, model: bytes, images: Tensor, threads: int) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = "CUDAExecutionProvider" if images.is_cuda else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0]


def to_onnx(module: nn.Module, images: Tensor) -> bytes:
    """The module as an ONNX model for inputs of one shape, with the layers that nas.export gives it.

    By the older exporter, which traces: it is ten times faster than the newer one, and a calibration exports hundreds
    of blocks.
    """
    buffer: Any = io.BytesIO()  # the exporter takes it, its annotation does not
    with warnings.catch_warnings(), _exporting():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (images,), buffer, dynamo=False, input_names=["input"], output_names=["output"])
    return buffer.getvalue()


def to_onnx_int8(module: nn.Module, images: Tensor, per_tensor: bool = False) -> bytes:
    """The same, quantised with the ranges that these images give."""
    return quantise_onnx(_unshared(to_onnx(module, images)), [images.cpu().numpy()], {}, per_tensor=per_tensor)


def _unshared(model: bytes) -> bytes:
    """Write equal weights once each, as nas.export does.

    The exporter writes them once in all and hands them on by Identity nodes, which the quantiser takes for activations:
    the zero biases of a fresh network stay in float, and their convolutions with them (han-e: 1.8 ms for 1.0).
    """
    import onnx

    tree = onnx.load_from_string(model)
    graph = tree.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        copy = graph.initializer.add()
        copy.CopyFrom(weights[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)
    content: bytes = tree.SerializeToString()
    return content


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Conditional convolutions have another form in ONNX, which they take when torch says that it exports."""
    before = torch.compiler._is_exporting_flag
    torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_exporting_flag = before


class LiteRTEngine(FileEngine):
    """LiteRT on the CPU, with the image given and the logits taken."""

    layouts = ("channels_last",)

    def check(self, device: str) -> None:
        require(f"engine {self._name}", *(name.replace("-", "_") for name in _PACKAGES), extra="litert")
        if device != "cpu":
            raise UserError(f"engine {self._name} runs on the CPU; use --device cpu")

    def check_network(self, architecture: Architecture) -> None:
        check_operators(architecture, "set experts to 1, or use --engine onnxruntime")

    def prepare(self) -> None:
        with muted():
            import litert_torch  # noqa: F401

    def versions(self) -> list[str]:
        return [f"{name} {version(name)}" for name in _PACKAGES]

    def load(self, network: nn.Module, images: Tensor, threads: int) -> tuple[Sequence[Run], Any]:
        from ai_edge_litert.interpreter import Interpreter

        channels = images.shape[1]
        pixels = images.permute(0, 2, 3, 1).clamp(0, 1).contiguous()
        array: NDArray[Any] = pixels.numpy()
        try:
            model = to_tflite(ChannelsLast(network, (_MEAN,) * channels, (_STD,) * channels).eval(), pixels)
            if self._int8:
                model = quantise_tflite(model, [[array]], per_tensor=self._per_tensor)
                array = np.rint(array * 255 - 128).astype(np.int8)
            with muted():  # XNNPACK says that it is there
                interpreter = Interpreter(model_content=pack(model), num_threads=threads)
                interpreter.allocate_tensors()
        except Exception as error:  # what a converter's steps raise has no common base
            reason = first_line(error)
            raise UserError(f"engine {self._name}: LiteRT does not run this network: {reason}") from error
        (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images: NDArray[Any]) -> NDArray[Any]:
            interpreter.set_tensor(entry["index"], images)
            interpreter.invoke()
            return interpreter.get_tensor(end["index"])

        return [run], array
