"""Refuse networks that are too large to be trained here, from the document, before anything is allocated."""

import os

import torch

from nas.blocks.complexity import FLOAT_BYTES
from nas.costs.analytic import Cost


def training_bytes(cost: Cost, batch: int) -> int:
    """The least memory that a training needs: weights, gradients, momentum, and the largest layer of one batch.

    A lower bound, so that nothing is refused that would fit: what lies between the largest layers is not counted, and
    activations may be held in half precision.
    """
    return 3 * FLOAT_BYTES * cost.params + batch * cost.peak_activation_bytes // 2


def memory_bytes(device: str) -> int | None:
    """Memory of the device, or None where the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def too_large(cost: Cost, batch: int, memory: int | None) -> str | None:
    """Return why a network cannot be trained in so much memory, or None where it might."""
    needed = training_bytes(cost, batch)
    if memory is None or needed <= memory:
        return None
    return f"over the memory: training needs {needed / 1e9:.1f} GB or more, there are {memory / 1e9:.1f} GB"
