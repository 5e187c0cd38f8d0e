"""A folded network -> a .tflite of fp32 -> one of int8: the steps that exports and latencies share.

The extra ``litert`` must be installed; what its libraries raise is passed on.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.architecture.document import Architecture
from nas.blocks.layers import Pyramid
from nas.errors import UserError
from nas.extras import muted
from nas.network.tflite_file import INPUT, largest_buffer, pack, paddings, relu6_as_relu

_MOST_WEIGHTS = 32 * 2**20
"""Bytes of a layer's weights in fp32: ai-edge-quantizer 0.10 cuts larger ones into pieces, and then fails on them."""


_LEAST_RANGE = 1e-6
"""Of values that are always 0, such as those of an SE layer whose ReLU lets nothing through: XNNPACK refuses networks
with scales as small as that."""


class ChannelsLast(nn.Module):
    """A network as it is converted: images (N, R, R, C) in [0, 1] -> logits (N, classes).

    Args:
        network: folded; changed in place.
        mean, std: of the normalisation.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        channels = len(mean)
        shift, scale = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
        self.normalise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.normalise.weight = nn.Parameter((1 / scale).view(-1, 1, 1, 1), requires_grad=False)
        self.normalise.bias = nn.Parameter(-shift / scale, requires_grad=False)
        self.network = _activating_branches(network)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalise(images.permute(0, 3, 1, 2)))


def _activating_branches(network: nn.Module) -> nn.Module:
    """Move a ReLU or ReLU6 behind a concatenation into the convolutions before it, in place: the same function.

    They compute it at no cost, where a node of its own would read and write the whole tensor, and a ReLU6 would do so
    in float: ai-edge-quantizer 0.10 does not know it.
    """
    for sequence in [module for module in network.modules() if type(module) is nn.Sequential]:
        for index, (layer, activation) in enumerate(itertools.pairwise(list(sequence))):
            if isinstance(layer, Pyramid) and isinstance(activation, nn.ReLU | nn.ReLU6):
                layer.branches = nn.ModuleList(nn.Sequential(branch, activation) for branch in layer.branches)
                sequence[index + 1] = nn.Identity()
    return network


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


def quantise_tflite(model: bytes, parts: Iterable[Sequence[NDArray[np.float32]]], *, per_tensor: bool = False) -> bytes:
    """Quantise a .tflite of fp32, as it comes: int8 weights per output channel, int8 activations per tensor.

    Ranges of activations are the smallest and largest value over all images, as with ONNX: the quantiser's own moving
    average put the logits 0.20 of their standard deviation off, the extremes 0.03 (CIFAR-10, 241 kB of fp32, 512
    images, n = 1). The input's range is [0, 1], so that its int8 values are the pixels minus 128.

    Args:
        model: that :func:`nas.network.tflite_file.pack` wrote.
        parts: inputs of the model to calibrate with, part by part, since all of them may not fit into memory.
        per_tensor: one scale for all of a layer's weights.

    Raises:
        ValueError: a layer has more weights than the quantiser takes.
    """
    if (largest := largest_buffer(model)) > _MOST_WEIGHTS:
        raise ValueError(
            f"a layer has {largest / 1e6:.1f} MB of weights in fp32, it takes {_MOST_WEIGHTS / 1e6:.1f} MB"
        )
    named = pack(model, named=True)  # the quantiser tells tensors apart by their names
    with muted():
        from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        manager = recipe_manager.RecipeManager()
        manager.add_static_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=qtyping.QuantGranularity["TENSORWISE" if per_tensor else "CHANNELWISE"],
        )
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
        for name, bounds in found.items():
            if "min" in bounds and np.ptp([bounds["min"].min(), bounds["max"].max()]) < _LEAST_RANGE:
                found[name] = {"min": np.zeros(1, np.float32), "max": np.ones(1, np.float32)}
        method = manager.get_quantization_recipe()
        model = relu6_as_relu(named)
        result = quantizer.Quantizer(model, method).quantize(found, enable_progress_report=False).quantized_model
        assert result is not None
    return bytes(result)
