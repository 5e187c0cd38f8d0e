"""How a network computes in training: bfloat16 or compiled where that is faster, float32 where it is judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from nas.training.recipe import Precision

_BREAK_EVEN_STEPS = 50_000
log = logging.getLogger(__name__)
COMPILING = "compiling the network first"


def _cuda_has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # torch asks the current one
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast_dtype(
    precision: Precision,
    device: torch.device,
    resolution: int,
    cuda_has_bf16: Callable[[torch.device], bool] = _cuda_has_bf16,
) -> torch.dtype | None:
    """Return bfloat16 where autocast is to be on, else None.

    auto: on for CUDA devices with bf16 arithmetic of their own (from compute capability 8.0 on: older ones emulate it,
    slowly), and for CPUs with native bf16 arithmetic from 16x16 images up. Training with it was 0.85 to 1.06 times as
    fast at 8x8, 1.06 to 1.25 times at 16x16 and 1.14 to 1.40 times at 32x32 (five networks on one core of a Xeon with
    AMX, n = 4, interleaved); on one of an AMD EPYC (Zen 5), two networks were 0.8 times as fast at 8x8, 1.9 and 1.0
    times at 16x16, and 2.6 times at 32x32.
    """
    if precision == "auto" and device.type == "cuda":
        wanted = cuda_has_bf16(device)
    elif precision == "auto":
        wanted = device.type == "cpu" and resolution >= 16 and _cpu_has_bf16()
    else:
        wanted = precision == "bf16"
    return torch.bfloat16 if wanted else None


def _cpu_has_bf16() -> bool:
    # torch.cpu keeps these two private and without a promise: absent means no
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Turn autocast to `dtype` on; None: off."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute convolutions in float32, for which CUDA devices take TF32 otherwise."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch sets it at run time
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def disable_inplace_relu(network: nn.Module) -> None:
    """Let ReLUs write new tensors instead of changing their inputs; the network is changed in place.

    For bfloat16 on a CPU, where torch is faster so: training E, MobileNetV2-CIFAR and two sampled networks at 32x32 is
    1.04 to 1.10 times as fast (batch 128, one core of a Xeon with AMX, n = 8, interleaved). In float32 it is slower.
    """
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False


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
