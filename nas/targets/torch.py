"""PyTorch: the state dict as safetensors, which the papers' file sizes are of."""

from nas.architecture.document import Architecture
from nas.costs.analytic import cost
from nas.targets.target import Target


def _size(architecture: Architecture, num_classes: int) -> int:
    return cost(architecture, num_classes).size_bytes


def peak_fp32(architecture: Architecture, num_classes: int) -> int:
    """Return the peak of activations in fp32, as :mod:`nas.blocks.complexity` defines it."""
    return cost(architecture, num_classes).peak_activation_bytes


def peak_int8(architecture: Architecture, num_classes: int) -> int:
    """Return the same peak, one byte per value."""
    return peak_fp32(architecture, num_classes) // 4


TORCH = Target(
    name="torch",
    ending=".safetensors",
    form=None,
    engine="eager",
    size=_size,
    memory=peak_fp32,
    aliases={"memory": "peak_memory"},
)
