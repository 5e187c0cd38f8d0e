"""The network as a .tflite on LiteRT's interpreter with XNNPACK, fp32 or int8, as nas export writes it."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError, first_line
from nas.extras import muted, require
from nas.latency.engine import Engine, Run
from nas.network.litert import ChannelsLast, check_operators, quantise_tflite, to_tflite
from nas.network.tflite_file import pack

_PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert")
_MEAN, _STD = 0.5, 0.25
"""Of a normalisation like the one in the file that ships; its values cost no time."""


class LiteRTEngine(Engine):
    """LiteRT on the CPU, with the image given and the logits taken.

    Args:
        name: of the engine.
        int8: run the quantised network. Its ranges are those of noise: no time depends on them.
        per_tensor: one scale for all of a layer's weights.
    """

    layouts = ("channels_last",)

    def __init__(self, name: str, *, int8: bool = False, per_tensor: bool = False) -> None:
        self._name, self._int8, self._per_tensor = name, int8, per_tensor

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
