"""torch.compile where a training is long enough for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

_BREAK_EVEN_STEPS = 50_000

log = logging.getLogger(__name__)

COMPILING = "compiling the network first"


def worth_compiling(device: str, steps: int) -> bool:
    """Decide whether a training of `steps` steps gains more by compilation than it costs.

    On a CPU none does. Compiling took 82 s of processor time for E and 38 s for MobileNetV2-CIFAR, whose steps then
    were 1.04 and 1.10 times as fast, no more than they vary (32x32, batch 64, fp32, one core of an AMD EPYC, Zen 5,
    busy with other work; n = 5 interleaved steps, spread 10%). If all of that were gain, it would take 7,000 and 600
    steps to repay the compilation. bf16 was not measured.

    On a GPU not yet measured: a minute of compilation is repaid within 50,000 steps if each becomes 1.2 ms faster.
    """
    return device.startswith("cuda") and steps >= _BREAK_EVEN_STEPS


class Compiled:
    """torch.compile(network), or the network as it is where that fails (no C++ compiler, a layer that it cannot take).

    Compilation happens in the first call; a failure is logged.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._forward: Callable[[Tensor], Tensor] = torch.compile(network)

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return self._forward(images)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # seconds to import, where nothing is compiled

            if not isinstance(error, TorchDynamoException):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            log.warning("not compiled, training goes on without: %s", reason[:200])
            self._forward = self._network
        return self._forward(images)  # out of the except block, whose traceback keeps the failed call's tensors
