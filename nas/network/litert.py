"""A folded network -> a .tflite of fp32 -> one of int8: the steps that exports and latencies share.

The extra ``litert`` must be installed; what its libraries raise is passed on.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.extras import muted
from nas.network.tflite_file import INPUT, pack, paddings


class ChannelsLast(nn.Module):
    """A network as it is converted: images (N, R, R, C) in [0, 1] -> logits (N, classes)."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        channels = len(mean)
        shift, scale = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
        self.normalise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.normalise.weight = nn.Parameter((1 / scale).view(-1, 1, 1, 1), requires_grad=False)
        self.normalise.bias = nn.Parameter(-shift / scale, requires_grad=False)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalise(images.permute(0, 3, 1, 2)))


def check_operators(architecture: Architecture, advice: str) -> None:
    """Raise UserError, with what to do instead, unless LiteRT knows the network's operators."""
    if architecture.has_experts:
        raise UserError(
            f"{architecture.name}: conditional convolutions (experts above 1) do not run in LiteRT; {advice}"
        )


def to_tflite(network: ChannelsLast, images: Tensor) -> bytes:
    """Convert a folded network to a .tflite of fp32, as it comes: about 3 s, and 2 to 8 s once for the import.

    Args:
        network: in eval mode.
        images: (N, R, R, C); their shape is the model's.
    """
    with muted():
        import litert_torch

        return bytes(litert_torch.convert(network, (images,)).model_content())


def quantise_tflite(model: bytes, parts: Iterable[Sequence[NDArray[np.float32]]]) -> bytes:
    """Quantise a .tflite of fp32, as it comes: int8 weights per channel, int8 activations per tensor.

    Ranges of activations are the smallest and largest value over all images, as with ONNX: the quantiser's own moving
    average put the logits 0.20 of their standard deviation off, the extremes 0.03 (CIFAR-10, 241 kB of fp32, 512
    images, n = 1). The input's range is [0, 1], so that its int8 values are the pixels minus 128.

    Args:
        model: that :func:`nas.network.tflite_file.pack` wrote.
        parts: inputs of the model to calibrate with, part by part, since all of them may not fit into memory.
    """
    named = pack(model, named=True)  # the quantiser tells tensors apart by their names
    with muted():
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        method = recipe.static_wi8_ai8()
        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(method)
        ranges = calibrator.Calibrator(
            named,
            num_threads=1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,  # 7 times as fast as reading every tensor
            qsv_update_func=qsv_utils.min_max_update,
        )
        for part in parts:
            ranges.calibrate({"serving_default": [{INPUT: images} for images in part]}, manager)
        found = ranges.get_model_qsvs()
        found[INPUT] = {"min": np.zeros(1, np.float32), "max": np.ones(1, np.float32)}
        for before, after in paddings(named):  # of maxima, with -inf: int8 has the smallest value in its place
            found[after] = found[before]
        result = quantizer.Quantizer(named, method).quantize(found, enable_progress_report=False).quantized_model
        assert result is not None
    return bytes(result)
